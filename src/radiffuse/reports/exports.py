"""Figures and tables of a study in forms that papers take: SVG, PDF, LaTeX."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import printable
from ..system.cells import csv_text
from ..system.files import write_atomic
from .html import format_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
"""Characters that LaTeX has no plain escape for; the others take a backslash."""


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``path.svg`` and ``path.pdf``, the same bytes for the same figure, with text that stays text."""
    for kind in ("svg", "pdf"):
        write_atomic(path.with_suffix(f".{kind}"), _drawn(figure, path.name, kind))


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``path.csv`` and ``path.tex``."""
    write_atomic(path.with_suffix(".csv"), csv_text(table, "%.6g"))
    save_latex(table, path.with_suffix(".tex"))


def save_latex(table: pd.DataFrame, path: Path) -> None:
    """Write a table as a LaTeX ``tabular``, numbers to the right and as reports show them."""
    from pandas.api.types import is_numeric_dtype

    sides = "".join("r" if is_numeric_dtype(kind) else "l" for kind in table.dtypes)
    cells = [list(map(str, table.columns)), *table.itertuples(index=False, name=None)]
    lines = [" & ".join(_escaped(format_value(cell)) for cell in row) + r" \\" for row in cells]
    body = [rf"\begin{{tabular}}{{{sides}}}", lines[0], r"\hline", *lines[1:], r"\end{tabular}", ""]
    write_atomic(path, "\n".join(body))


def _drawn(figure: Figure, name: str, kind: str) -> bytes:
    import matplotlib

    nothing = {"svg": "Date", "pdf": "CreationDate"}
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata={nothing[kind]: None})
    return buffer.getvalue()


def _escaped(text: str) -> str:
    """Text that prints as it is; a name from a file cannot become a command."""
    return re.sub(
        r"[\\~^&%$#_{}]", lambda found: SPECIAL.get(found[0], "\\" + found[0]), printable(text)
    ).replace("\N{EN DASH}", "--")
