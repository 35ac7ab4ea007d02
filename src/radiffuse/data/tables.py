"""Tables that describe a data set: CSV, TSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path

from ..errors import InputError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
MOST_TEXT = 2**30
"""Bytes that a compressed table may inflate to."""
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, csv.Error)
"""What readers of tables raise; pyarrow's errors are ValueErrors."""


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV (also ``.csv.gz``), TSV or Parquet file as text by lower-case column; '' if empty.

    Raises:
        InputError: It cannot be read, has no rows, or repeats a column.
    """
    try:
        rows = _parquet(path) if path.suffix.lower() == ".parquet" else _delimited(path)
    except _DAMAGE as error:
        raise InputError(path, f"is no readable table ({error})", "Save it again as CSV") from None
    if not rows:
        raise InputError(path, "holds no rows", "Give a header line and one row per image")
    return rows


def _delimited(path: Path) -> list[dict[str, str]]:
    text = _inflated(path) if path.suffix == ".gz" else path.read_text(encoding="utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    lines = [row for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter) if row]
    if not lines:
        return []
    columns = [name.strip().lower() for name in lines[0]]
    if len(set(columns)) < len(columns):
        raise InputError(path, "has two columns of the same name", "Rename one of them")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) > len(columns):
            where = f"{path}, row {number}"
            problem = f"has {len(line)} fields where the header has {len(columns)}"
            raise InputError(where, problem, "Put quotes around text that holds the delimiter")
    padded = [line + [""] * (len(columns) - len(line)) for line in lines[1:]]
    return [dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in padded]


def _inflated(path: Path) -> str:
    with gzip.open(path) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise InputError(path, f"inflates to more than {MOST_TEXT} bytes", "Give a smaller table")
    return content.decode("utf-8-sig")


def _parquet(path: Path) -> list[dict[str, str]]:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    return [{str(k).lower(): "" if v is None else str(v) for k, v in row.items()} for row in rows]
