"""The tutorials and the pages for each reader run from top to bottom: every bash and Python block, in an empty folder.

Steps, counts and networks are made tiny by flags at the end of a line, which win over those before. Nothing else
differs from what a reader types. The shell expands the lines (loops, variables, files it writes); the commands then run
here, in one process.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from code_blocks import ROOT, fenced

from radiffuse.cli import main

ELSEWHERE = {"index", "walk", "developer"}
"""The first two have nothing to run, the last changes the source: see ``test_developer_page.py``."""
TUTORIALS = sorted(
    page
    for folder in ("tutorials", "readers")
    for page in (ROOT / "docs" / folder).glob("*.md")
    if page.stem not in ELSEWHERE
)
TINY = ["--width", "8", "--multipliers", "1,2", "--attention-factors", "2", "--head-channels", "8"]
STEPS = ["--steps", "2", "--batch-size", "2", "--warmup-steps", "0"]
LIGHT = {
    "anatomy": ["--size", "32,32"],
    "pretrain": [*TINY, "--size", "32,32", *STEPS],
    "fit": STEPS,
    "generate": ["--count", "2", "--sampler", "ddim"],
    "study": ["--labels", "1", "--draws", "1", "--finetune.training.steps", "2",
              "--finetune.training.batch_size", "2", "--finetune.training.warmup_steps", "0"],
}  # fmt: skip
COUNT = 24


def lightened(words: list[str]) -> list[str]:
    """A command of the reader's, made small."""
    command, *rest = words
    extra = list(LIGHT.get(command, ()))
    if command == "anatomy":
        extra += ["--count", str(COUNT)]
    if (
        command == "fit" and "--method" not in rest
    ):  # its trials take minutes; tests/automatic has them
        extra += ["--method", "scratch"]
    if command == "fit" and "--from" not in rest:
        extra += [*TINY, "--size", "32,32"]
    if "--hours" in rest:  # the number of steps is enough
        place = rest.index("--hours")
        del rest[place : place + 2]
    return [command, *rest, *extra]


def recorded(block: str, folder: Path, log: Path) -> list[list[str]]:
    """Run a block in bash, where ``radiffuse`` only notes its words; the calls it noted."""
    log.unlink(missing_ok=True)
    target = shlex.quote(str(log))
    note = (
        f'radiffuse() {{ printf "%q " "$@" >> {target}; echo >> {target}; }}; export -f radiffuse\n'
    )
    subprocess.run(["bash", "-euo", "pipefail", "-c", note + block], cwd=folder, check=True)
    return [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    calls = 0
    for kind, block in fenced(page):
        if kind == "python":
            # Fewer films than the page writes.
            small = block.replace("range(80)", f"range({COUNT})").replace("(64, 64)", "(32, 32)")
            exec(compile(small, str(page), "exec"), {"__name__": "__main__"})
        if kind != "bash":
            continue
        for words in recorded(block, folder, tmp_path / "calls"):
            assert main(lightened(words)) == 0, words
            calls += 1
    assert calls
    assert main(["doctor", "--json"]) == 0  # and nothing in the way afterwards


def test_the_shell_expands_lines_before_they_run(tmp_path: Path) -> None:
    block = "for n in 1 2; do radiffuse check 'a b' --group '^(p\\d+)-' --labels $n; done\n"
    assert recorded(block, tmp_path, tmp_path / "log") == [
        ["check", "a b", "--group", "^(p\\d+)-", "--labels", n] for n in ("1", "2")
    ]
    script = "cat > s.sh <<'END'\nradiffuse info $DRAW\nEND\nDRAW=7 bash s.sh\n"
    assert recorded(script, tmp_path, tmp_path / "log") == [["info", "7"]]
    with pytest.raises(subprocess.CalledProcessError):
        recorded("false\n", tmp_path, tmp_path / "log")


def test_every_tutorial_has_something_to_run() -> None:
    assert len(TUTORIALS) >= 8
    for page in TUTORIALS:
        assert any(kind == "bash" for kind, _ in fenced(page)), page
