"""Cells of CSV files. A text that a spreadsheet would take for a formula is written behind an apostrophe."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""Begins such a text; apostrophes before it are doubled, so that what is read is what was written."""


def written_cell(value: Any) -> Any:
    """A value as it stands in a CSV file; numbers, also as text, stay numbers."""
    if isinstance(value, str) and FORMULA.match(value):
        with contextlib.suppress(ValueError):
            float(value)
            return value
        return f"'{value}"
    return value


def read_cell(value: Any) -> Any:
    """A value as it was before ``written_cell``."""
    if isinstance(value, str) and value[:1] == "'" and FORMULA.match(value):
        return value[1:]
    return value


def csv_text(table: pd.DataFrame, float_format: str | None = None) -> str:
    """A table as the text of a CSV file, without its index; a spreadsheet runs nothing of it."""
    texts = {column: table[column].map(written_cell) for column in _texts(table)}
    safe = table.assign(**texts).rename(columns=written_cell)
    # csv quotes a line feed, but a carriage return only where it ends lines
    ends = any("\r" in str(value) for values in texts.values() for value in values)
    options: dict[str, Any] = {"quoting": csv.QUOTE_NONNUMERIC} if ends else {}
    text: str = safe.to_csv(index=False, float_format=float_format, lineterminator="\n", **options)
    return text


def read_csv(path: Path, dtype: Mapping[str, Any] | None = None, **options: Any) -> pd.DataFrame:
    """A table that ``csv_text`` wrote; ``options`` are those of pandas.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    import pandas as pd

    table: pd.DataFrame = pd.read_csv(path, dtype=dtype, **options).rename(columns=read_cell)
    return table.assign(**{column: table[column].map(read_cell) for column in _texts(table)})


def _texts(table: pd.DataFrame) -> list[str]:
    from pandas.api.types import is_numeric_dtype

    return [c for c in table.columns if not is_numeric_dtype(table[c].dtype)]
