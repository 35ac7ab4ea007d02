"""What type checkers and Python's help know of the commands."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import radiffuse
import radiffuse.errors
from radiffuse.cli.settings import from_values
from radiffuse.commands import COMMANDS

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "src/radiffuse/__init__.pyi"


def test_the_stubs_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools/stubs.py"), str(STUBS), "--check"]
    assert subprocess.run(command, check=False).returncode == 0


def test_every_argument_of_the_stubs_is_one_of_the_command() -> None:
    tree = ast.parse(STUBS.read_text(encoding="utf-8"))
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert found.keys() == {*COMMANDS, "fit_custom"}
    names = {argument.arg for argument in found["fit"].args.kwonlyargs}
    assert {"data", "out", "method", "from_", "labels", "steps", "batch_size", "config"} <= names
    assert "dat" not in names
    for steps in (3, "3"):
        assert from_values("fit", {"data": "d", "out": "o", "steps": steps}).training.steps == 3


def test_the_package_lists_what_it_has() -> None:
    found = {name for name in dir(radiffuse) if not name.startswith("__")}
    assert found == {*COMMANDS, "Segmenter", "Run", "fit_custom", "config", "errors"}
    assert all(hasattr(radiffuse, name) for name in dir(radiffuse))


def test_help_explains_every_argument_with_its_default() -> None:
    text = inspect.getdoc(radiffuse.fit) or ""
    assert "    data: Labelled images. (required)" in text
    assert "    learning_rate (in" not in text  # its short name is enough
    assert "    learning_rate: Peak learning rate. (default " in text
    assert "    rotate (in augmentation): " in text or "    rotate: " in text
    assert "in degrees" in text


def test_a_start_is_no_segmenter_and_the_way_to_one_is_said() -> None:
    with pytest.raises(radiffuse.errors.RunError, match="--from films-64 --out runs/seg, then"):
        radiffuse.Segmenter.load("films-64")
