"""The notebooks among the tutorials run from the first cell to the last, and what they show can be shown."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from code_blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def shown(source: str, names: dict[str, object]) -> object:
    """Run a cell as a notebook does: the value of its last line, if that is an expression."""
    lines = ast.parse(source)
    last = lines.body.pop() if isinstance(lines.body[-1], ast.Expr) else None
    exec(compile(lines, "cell", "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads(notebook.read_text())["cells"]
    names: dict[str, object] = {}
    pages = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "clear the outputs: they age, and may show patients"
        value = shown("".join(cell["source"]), names)
        if (page := getattr(value, "_repr_html_", None)) is not None:
            assert "<" in page()
            pages += 1
        assert repr(value)
    assert pages


def test_there_is_a_notebook_and_cells_are_run_as_in_one() -> None:
    assert NOTEBOOKS
    names: dict[str, object] = {}
    assert shown("a = 2\na + 1", names) == 3
    assert shown("b = a", names) is None
    assert names["b"] == 2
