"""JSON files and tables that describe a data set, and the names of classes in them."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import IGNORE
from ..errors import InputError
from .issues import Issue

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
MOST_TEXT = 2**30
"""Bytes that a compressed table may unfold to."""


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Grant read access") from None
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is no valid JSON ({error})", "Correct or re-export it") from None


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV (also ``.csv.gz``), TSV or Parquet file as text, by lower-case column name; empty cells are ''.

    Raises:
        InputError: It cannot be read, has no rows, or repeats a column.
    """
    try:
        rows = _parquet(path) if path.suffix.lower() == ".parquet" else _delimited(path)
    except InputError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        csv.Error,
    ) as error:  # pyarrow's errors are ValueErrors
        raise InputError(path, f"is no readable table ({error})", "Save it again as CSV") from None
    if not rows:
        raise InputError(path, "holds no rows", "Give a header line and one row per image")
    return rows


def _delimited(path: Path) -> list[dict[str, str]]:
    text = _unfolded(path) if path.suffix == ".gz" else path.read_text(encoding="utf-8-sig")
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
            raise InputError(
                f"{path}, row {number}",
                f"has {len(line)} fields where the header has {len(columns)}",
                "Put quotes around text that holds the delimiter",
            )
    padded = [line + [""] * (len(columns) - len(line)) for line in lines[1:]]
    return [dict(zip(columns, (cell.strip() for cell in line), strict=True)) for line in padded]


def _unfolded(path: Path) -> str:
    with gzip.open(path) as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise InputError(path, f"unfolds to more than {MOST_TEXT} bytes", "Give a smaller table")
    return content.decode("utf-8-sig")


def _parquet(path: Path) -> list[dict[str, str]]:
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    return [{str(k).lower(): "" if v is None else str(v) for k, v in row.items()} for row in rows]


def class_names(labels: object, where: Path) -> tuple[str, ...]:
    """Names by label value from any usual notation.

    Args:
        labels: ``["background", "lung"]``, ``{"0": "background", "1": "lung"}`` or
            ``{"background": 0, "lung": 1}``. Value 0 is the background and may be left out; 255 is
            ignored; values between that have no name are called ``label 7``.
        where: The file they stand in, for the message.

    Returns:
        Names, background first.

    Raises:
        InputError: The notation is another one, or a value is no whole number from 0 to 254.
    """
    named = _by_value(labels, where)
    wrong = [value for value in named if not 0 <= value < IGNORE]
    if wrong:
        raise InputError(
            where,
            f"declares the label value {wrong[0]}",
            f"Use values from 0 (background) to {IGNORE - 1}; {IGNORE} means ignore",
        )
    named = {0: "background"} | named
    names = tuple(named.get(value, f"label {value}") for value in range(max(named) + 1))
    if len(set(names)) < len(names):
        raise InputError(where, "gives two label values the same name", "Rename one of them")
    return names


def _by_value(labels: object, where: Path) -> dict[int, str]:
    remedy = 'Write {"0": "background", "1": "lung"}'
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    if not isinstance(labels, Mapping) or not labels:
        raise InputError(where, "does not name the classes in a way that is known", remedy)
    named: dict[int, str] = {}
    for left, right in labels.items():
        if isinstance(right, list):
            raise InputError(
                where,
                f"declares the region {left!r} made of several label values",
                "Give each label value one name; overlapping regions are not supported",
            )
        value, name = (right, left) if _whole(right) else (left, right)
        if not _whole(value) or not isinstance(name, str):
            raise InputError(where, f"has the entry {left!r}: {right!r} among its classes", remedy)
        if int(value) in named:
            raise InputError(where, f"names the label value {value} twice", "Keep one name")
        named[int(value)] = name
    named.pop(IGNORE, None)
    return named


def _whole(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal())


def declared_classes(folder: Path, issues: list[Issue]) -> tuple[str, ...]:
    """Class names from ``classes.json``, ``labels.json`` or ``dataset.json`` in a folder, else ().

    A file that holds several lists, one per source of labels, names no common classes: it gives ()
    and a warning.

    Raises:
        InputError: The file is there and cannot be understood.
    """
    for name in ("classes.json", "labels.json", "dataset.json"):
        path = folder / name
        if not path.is_file():
            continue
        content = read_json(path)
        if isinstance(content, dict) and "labels" in content:
            content = content["labels"]
        elif name == "dataset.json":
            continue
        if isinstance(content, dict) and content and all(map(_is_dict, content.values())):
            problem = f"holds {len(content)} lists of classes instead of one"
            remedy = "Make sure that each label value means the same in all cases"
            issues.append(Issue("warning", str(path), problem, remedy))
            return ()
        return class_names(content, path)
    return ()


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)
