"""Which value each public set of abdominal CT gives to an organ: the table ``organs.csv``, and names in general."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..errors import InputError
from .documents import class_names, read_json

TABLE = Path(__file__).with_name("organs.csv")
"""The table; its first lines name the source of each column."""

Key = tuple[str, ...]


@cache
def _table() -> tuple[dict[str, dict[int, str]], dict[Key, str]]:
    """Names by value for each set, and the name of the row by the key of every name of the organ."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    sets = [column for column in rows[0] if column not in ("name", "aliases")]
    values = {
        name: {0: "background"} | {int(row[name]): row["name"] for row in rows if row[name]}
        for name in sets
    }
    names = {
        name_key(name): row["name"]
        for row in rows
        for name in (row["name"], *row["aliases"].split(";"))
        if name
    }
    return values, names


def name_key(name: str) -> Key:
    """What two spellings of a name share: ``kidney_right`` and ``Right Kidney`` have the same words."""
    return tuple(sorted(re.findall(r"\w+", name.lower().replace("_", " "))))


def organ(name: str) -> str:
    """The name of an organ in the table, whatever alias or spelling is given; other names stay as they are."""
    return _table()[1].get(name_key(name), name)


def known_sets() -> tuple[str, ...]:
    """Sets that the table has a column for."""
    return tuple(_table()[0])


def classes_of_set(name: str) -> dict[int, str]:
    """Organ by label value of one set of the table, with 0, the background."""
    return dict(_table()[0][name])


def numbered(classes: Sequence[str]) -> dict[int, str]:
    """Names by label value from names in their order."""
    return dict(enumerate(classes))


def read_classes(source: str) -> dict[int, str]:
    """Names by label value, from a column of the table, a JSON file, or a folder that holds one.

    Args:
        source: A set of the table (``btcv``); a ``plan.json``, ``classes.json``, ``labels.json`` or
            ``dataset.json``; or a folder with one of them, such as a run or its masks.

    Raises:
        InputError: It is none of these, or the file names no classes.
    """
    if source in known_sets():
        return classes_of_set(source)
    path = Path(source).expanduser()
    if path.is_dir():
        names = ("plan.json", "classes.json", "labels.json", "dataset.json")
        path = next((path / name for name in names if (path / name).is_file()), path)
    if not path.is_file():
        remedy = f"Give one of {', '.join(known_sets())}, or a JSON file that names the classes"
        raise InputError(source, "names no classes", remedy)
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("labels") or content.get("classes") or content
    if isinstance(content, dict) and any(isinstance(value, dict) for value in content.values()):
        remedy = "Give one list in a file of its own, or the name of a set"
        raise InputError(path, f"holds {len(content)} lists of classes instead of one", remedy)
    return numbered(class_names(content, path))
