"""Tables that describe a data set: CSV, TSV and Parquet."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.cells import read_cell

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
MOST_TEXT = 2**28
"""Bytes that a table may hold, unpacked; that of MIMIC-CXR's images has 55 million."""
MOST_CELLS = 2**24
"""Cells that a table may have, each of which becomes an object; that of PadChest has 6 million."""
HEAD = 2**16
"""Bytes of a table that ``head_of`` reads."""
HEAD_LINES = 9
"""Lines of it that are looked at: the columns and a few rows."""
csv.field_size_limit(MOST_TEXT)  # the ancestors of a drawn pair may be thousands of patients
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, csv.Error)
"""What readers of tables raise; pyarrow's errors are ValueErrors."""
_UNSEEN = "\ufeff\ufffe\u200b\0"
"""Marks that editors leave around texts."""
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the mark that a text begins with; that of UTF-32 begins with that of UTF-16."""


class Line(list[str]):
    """Cells of one line, and its number in the file; that of a row of Parquet, which has no lines."""

    def __init__(self, cells: Iterable[str], number: int) -> None:
        super().__init__(cells)
        self.number = number


class Row(dict[str, str]):
    """Cells by column, and the file and line that messages name."""

    def __init__(self, cells: Iterable[tuple[str, str]], where: str) -> None:
        super().__init__(cells)
        self.where = where


def is_table(path: Path) -> bool:
    """Whether the name is that of a table that can be read."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def read_table(path: Path) -> list[Row]:
    """Rows of a CSV, TSV (also ``.gz``) or Parquet file as text by lower-case column; '' if empty.

    Text may be in UTF-8, UTF-16 or UTF-32, else it is Windows-1252 or Latin-1. Empty rows, and columns
    without a name, are left out. Every row has every column.

    Raises:
        InputError: It cannot be read, has no rows, or repeats a column.
    """
    lines = _lines(path)
    if len(lines) < 2:
        raise InputError(path, "holds no rows", "Give a header line and one row per image")
    columns = lines[0]
    named = [name for name in columns if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        problem = f"has two columns of the same name ({', '.join(twice)})"
        raise InputError(path, problem, "Rename or remove one of them")
    unit = "row" if _is_parquet(path) else "line"
    rows = []
    for line in lines[1:]:
        where = f"{path}, {unit} {line.number}"
        if len(line) > len(columns) and any(line[len(columns) :]):
            problem = f"has {len(line)} fields where the header has {len(columns)}"
            raise InputError(where, problem, "Put quotes around text that holds the delimiter")
        padded = line + [""] * (len(columns) - len(line))
        rows.append(Row(((k, v) for k, v in zip(columns, padded, strict=False) if k), where))
    return rows


def head_of(path: Path) -> list[Line]:
    """The first lines of a table, that of the columns in lower case; [] where it is empty.

    Raises:
        InputError: It cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return _head(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _head(path: Path, changed: int, size: int) -> list[Line]:
    """The head of a table in one state: several layouts look at it, and a Parquet table is read whole."""
    return _lines(path, HEAD)[:HEAD_LINES]


def _lines(path: Path, most: int | None = None) -> list[Line]:
    """Lines that are not empty, of a text or the first ``most`` bytes of it; columns in lower case."""
    try:
        found = _parquet(path) if _is_parquet(path) else _delimited(path, most)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    lines = [line for line in found if any(line)]
    lines[:1] = [Line((name.lower() for name in line), line.number) for line in lines[:1]]
    return lines


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(path, f"is no readable table ({error})", "Save it again as CSV")


def decoded(content: bytes) -> str:
    """The text of a file from any editor, without its mark: never fails, but may misread rare letters."""
    encodings = [_MARKS[mark] for mark in _MARKS if content.startswith(mark)]
    if not encodings and b"\0" in content[:4096]:  # UTF-16 without a mark: one byte of two is 0
        even, odd = content[:4096:2].count(0), content[1:4096:2].count(0)
        encodings = ["utf-16-le" if odd > even else "utf-16-be"]
    for encoding in (*encodings, "utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


def _delimited(path: Path, most: int | None) -> list[Line]:
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        content = file.read((most or MOST_TEXT) + 1)
    if most is None and len(content) > MOST_TEXT:
        raise _too_large(path)
    text = decoded(content[: most and most - most % 4])
    first, _, rest = text.partition("\n")
    before = 0
    if first.lower().startswith("sep=") and len(first.strip()) == 5:  # as Excel writes
        text, delimiter, before = rest, first[4], 1
    else:
        header = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    found, cells, number = [], 0, before + 1
    for row in rows:
        cells += 1 + len(row)
        if cells > MOST_CELLS:
            raise _too_large(path)
        texts = (read_cell(cell.strip().strip(_UNSEEN).strip()) for cell in row)
        found.append(Line(texts, number))
        number = before + rows.line_num + 1  # a cell may go over several lines
    return found


def _unfolded(column: Any) -> int:
    """Bytes of a column, with a text that is stored once counted as often as it occurs."""
    import pyarrow.compute as pc

    lengths = (
        pc.binary_length(chunk.dictionary).take(chunk.indices)
        for chunk in column.chunks
        if hasattr(chunk, "dictionary")
    )
    return int(column.nbytes) + sum(pc.sum(part).as_py() or 0 for part in lengths)


def _parquet(path: Path) -> list[Line]:
    from pyarrow import parquet

    shape = parquet.read_metadata(path)
    size = sum(shape.row_group(i).total_byte_size for i in range(shape.num_row_groups))
    if size <= MOST_TEXT and shape.num_rows * shape.num_columns <= MOST_CELLS:
        columns = [shape.schema.column(i) for i in range(shape.num_columns)]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        # Each text once, however often it occurs, until it is known what all take together.
        table = parquet.read_table(path, read_dictionary=texts)
        size = sum(map(_unfolded, table.columns))
    if size > MOST_TEXT or shape.num_rows * shape.num_columns > MOST_CELLS:
        cells = f"{shape.num_rows} rows of {shape.num_columns} columns"
        raise InputError(path, f"unfolds to {size} bytes in {cells}", "Give a smaller table")
    names = Line((str(name).strip() for name in table.column_names), 0)
    columns = [column.to_pylist() for column in table.columns]
    # NaN, which is not equal to itself, stands for an empty cell
    return [names] + [
        Line(("" if v is None or v != v else str(v).strip() for v in row), number)
        for number, row in enumerate(zip(*columns, strict=True), start=1)
    ]


def _too_large(path: Path) -> InputError:
    return InputError(path, "is too large for a table of images", "Give a smaller table")
