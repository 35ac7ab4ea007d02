"""A file is one idea, and a function fits a screen."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "radiffuse"
FILES = sorted(SOURCE.rglob("*.py"))
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60


def test_no_file_is_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = {str(p.relative_to(SOURCE)): n for p, n in lengths.items() if n > LINES_OF_A_FILE}
    assert not long


def test_no_function_is_long() -> None:
    """Docstring included, decorators not."""
    long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > LINES_OF_A_FUNCTION:
                    long[f"{path.relative_to(SOURCE)}:{node.name}"] = length
    assert not long
