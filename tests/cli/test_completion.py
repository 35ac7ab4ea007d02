"""What the Tab key offers in bash is what the commands take."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import line_of
from radiffuse.cli import main
from radiffuse.cli.completion import script
from radiffuse.cli.settings import from_arguments
from radiffuse.commands import COMMANDS

pytest.importorskip("shtab")
ASK = """
source {file}
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
spec=$(complete -p radiffuse)
fun=$(sed -E 's/.*-F ([^ ]+).*/\\1/' <<< "$spec")
$fun radiffuse "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "radiffuse.bash"
    path.write_text(script("bash"))
    return path


def offered(file: Path, *words: str) -> set[str]:
    """What bash offers for the last of these words."""
    quoted = " ".join(map(shlex.quote, ("radiffuse", *words)))
    done = subprocess.run(
        ["bash", "-c", ASK.format(file=shlex.quote(str(file)), words=quoted)],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_bash_offers_commands_flags_and_values(bash: Path) -> None:
    assert offered(bash, "pre") == {"pretrain", "predict"}
    assert set(COMMANDS) <= offered(bash, "")
    assert offered(bash, "pretrain", "--objec") == {"--objective"}
    assert offered(bash, "pretrain", "x", "--objective", "dd") == {"ddpm", "ddep"}
    assert {"--training.steps", "--training.seed"} <= offered(bash, "fit", "--training.s")
    assert "--steps" in offered(bash, "fit", "--st")
    assert offered(bash, "doctor", "--completion", "z") == {"zsh"}
    assert offered(bash, "fit", "x", "--method", "pr") == {"probe"}
    assert "films-64" in offered(bash, "pretrain", "x", "--config", "fi")


def test_bash_offers_files_where_they_belong(bash: Path) -> None:
    (bash.parent / "scans").mkdir(exist_ok=True)
    assert any("scans" in word for word in offered(bash, "pretrain", "sca"))
    assert any("scans" in word for word in offered(bash, "fit", "x", "--from", "sca"))


@pytest.mark.parametrize("command", ["pretrain", "fit", "predict"])
def test_every_flag_that_is_offered_is_taken(bash: Path, command: str) -> None:
    from radiffuse.cli.names import flags

    words = [name for names, _ in flags(command) for name in names]
    assert set(words) <= offered(bash, command, "--")
    value = ["r", "d"] if command == "predict" else ["d"]
    methods = {name: ["--method", name] for name in ("probe", "diffusion", "joint")}
    for names, kind in flags(command):
        method = methods.get(names[0].strip("-").partition(".")[0], []) if command == "fit" else []
        if kind is bool:
            for name in names:
                from_arguments(command, [*value, "--out", "o", *method, name])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--completion", shell]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert name in text
    assert "objective" in text
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_what_cannot_be_served(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = line_of(["doctor", "--completion", "tcsh"], capsys)
    assert all(word in line for word in ("--completion", "tcsh", "bash", "zsh", "fish"))
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "[completion]" in line_of(["doctor", "--completion", "bash"], capsys)
