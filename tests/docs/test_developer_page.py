"""The additions of docs/readers/developer.md work: its blocks are applied to a copy of the source, its commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from code_blocks import ROOT, fenced

PAGE = ROOT / "docs" / "readers" / "developer.md"
ADDITIONS = ("An objective of pre-training", "A file format", "A method of the study")
COMMANDS = """
import sys
from pathlib import Path
from code_blocks import fenced
from quick_endings import quick_endings
from radiffuse.cli import main
from test_tutorials import TINY, recorded
for one in quick_endings():
    setattr(*one)
quick = {"pretrain": [*TINY, "--batch-size", "2"], "fit": ["--batch-size", "2"]}
for kind, block in fenced(Path(sys.argv[1])):
    block = block.replace("python -c", f"{sys.executable} -c")
    for words in recorded(block, Path(), Path(sys.argv[2])) if kind == "bash" else ():
        assert main([*words, *quick.get(words[0], ())]) == 0, words
"""
"""Runs the commands of the page with whatever radiffuse is on the path; flags at the end of a line win."""


def edits(block: str) -> list[tuple[str, str, str]]:
    """File, text before and text after of every part of a ``diff`` block."""
    found = []
    for part in re.split(r"^\+\+\+ ", block, flags=re.MULTILINE)[1:]:
        name, _, body = part.strip("\n").partition("\n")
        lines = body.splitlines()
        before, after = ([x[1:] for x in lines if x[0] in marks] for marks in (" -", " +"))
        found.append((name, "\n".join(before), "\n".join(after)))
    return found


def apply(kind: str, block: str, copy: Path) -> None:
    """Add a new file to the copy of the source, or change one at the only place that fits."""
    if kind == "python":
        path = copy / block.splitlines()[0].removeprefix("# ")
        assert not path.exists()
        path.write_text(block)
    for name, before, after in edits(block) if kind == "diff" else ():
        text = (copy / name).read_text()
        assert text.count(before) == 1, (name, before)
        (copy / name).write_text(text.replace(before, after))


@pytest.mark.timeout(600)
def test_the_additions_work(tmp_path: Path) -> None:
    copy, reader = tmp_path / "copy", tmp_path / "reader"
    weights = Path("src/radiffuse/train/weights")
    left_out = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "src", copy / "src", ignore=left_out)
    (copy / weights).symlink_to(ROOT / weights)
    for kind, block in fenced(PAGE):
        apply(kind, block, copy)
    reader.mkdir()
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (copy / "src", here, here.parent)))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(PAGE), str(tmp_path / "calls")],
        cwd=reader, env=os.environ | {"PYTHONPATH": path}, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert len(list((reader / "masks").glob("*.png"))) == 12
    assert "sharpen" in (reader / "runs/study/summary.csv").read_text()


def test_each_addition_is_short() -> None:
    text = PAGE.read_text()
    for title in ADDITIONS:
        section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
        blocks = re.findall(r"^```(python|diff)\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        new = [
            line
            for kind, block in blocks
            for line in block.splitlines()
            if line.strip() and (kind == "python" or re.match(r"\+(?!\+\+)", line))
        ]
        assert 0 < len(new) < 30, (title, len(new))


def test_an_edit_that_fits_nowhere_or_twice_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\ntwo\none\n")
    apply("diff", "+++ a.py\n two\n+three\n", tmp_path)
    assert (tmp_path / "a.py").read_text() == "one\ntwo\nthree\none\n"
    for wrong in ("+++ a.py\n one\n+four\n", "+++ a.py\n-five\n"):
        with pytest.raises(AssertionError):
            apply("diff", wrong, tmp_path)
