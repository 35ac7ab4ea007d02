"""Names of classes by label value: declared by files, or those of public CT sets (``organs.csv``)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ..config import IGNORE
from ..errors import InputError
from ..system.files import read_json
from .issues import Issues

TABLE = Path(__file__).with_name("organs.csv")
"""Its first lines name the source of each column."""
FILES = ("classes.json", "labels.json", "dataset.json")
"""Files that may name the classes of a data set, in this order."""
ALL_CLASSES = "all"
"""What tables call the mean over a case's counted classes, so that no class has this name."""
Key = tuple[str, ...]


@cache
def _table() -> tuple[dict[str, dict[int, str]], dict[Key, str]]:
    """Names by value for each set, and the name of an organ by the key of each of its aliases."""
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
    """What spellings of a name share: ``kidney_right`` and ``Right Kidney`` have the same words."""
    return tuple(sorted(re.findall(r"\w+", name.lower().replace("_", " "))))


def organ(name: str) -> str:
    """The table's name of an organ for any alias or spelling; other names are returned unchanged."""
    return _table()[1].get(name_key(name), name)


def known_sets() -> tuple[str, ...]:
    """Sets that the table has a column for."""
    return tuple(_table()[0])


def classes_of_set(name: str) -> dict[int, str]:
    """Organ by label value of one set of the table, with 0, the background."""
    return dict(_table()[0][name])


def read_classes(source: str) -> dict[int, str]:
    """Names by label value, from a set of the table (``btcv``), a JSON file, or its folder.

    The file may be a ``plan.json`` or one of ``FILES``, the folder a run or its masks.

    Raises:
        InputError: It is none of these, or the file names no classes.
    """
    if source in known_sets():
        return classes_of_set(source)
    path = Path(source).expanduser()
    if path.is_dir():
        files = (path / name for name in ("plan.json", *FILES))
        path = next((file for file in files if file.is_file()), path)
    if not path.is_file():
        remedy = f"Give one of {', '.join(known_sets())}, or a JSON file that names the classes"
        raise InputError(source, "names no classes", remedy)
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("labels") or content.get("classes") or content
    if isinstance(content, dict) and any(isinstance(value, dict) for value in content.values()):
        remedy = "Give one list in a file of its own, or the name of a set"
        raise InputError(path, f"holds {len(content)} lists of classes instead of one", remedy)
    return dict(enumerate(class_names(content, path)))


def class_names(labels: object, where: Path) -> tuple[str, ...]:
    """Names by label value, background first.

    Args:
        labels: ``["background", "lung"]``, ``{"0": "background", "1": "lung"}`` or
            ``{"background": 0, "lung": 1}``. Value 0 is the background and may be left out; 255 is
            ignored; values between without a name are called ``label 7``.
        where: The file, for the message.

    Raises:
        InputError: The notation is another, or a value is no integer from 0 to 254.
    """
    named = _by_value(labels, where)
    if wrong := [value for value in named if not 0 <= value < IGNORE]:
        remedy = f"Use values from 0 (background) to {IGNORE - 1}; {IGNORE} means ignore"
        raise InputError(where, f"declares the label value {wrong[0]}", remedy)
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
        raise InputError(where, "does not name the classes in a known notation", remedy)
    named: dict[int, str] = {}
    for left, right in labels.items():
        if isinstance(right, list):
            problem = f"declares the region {left!r} made of several label values"
            raise InputError(where, problem, "Give each label value one name")
        value, name = (right, left) if _whole(right) else (left, right)
        if not _whole(value) or not isinstance(name, str):
            raise InputError(where, f"has the entry {left!r}: {right!r} among its classes", remedy)
        if int(value) in named:
            raise InputError(where, f"names the label value {value} twice", "Keep one name")
        named[int(value)] = name
    named.pop(IGNORE, None)
    return named


def _whole(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and value.strip().isdecimal()
    )


def declared_classes(folder: Path, issues: Issues) -> tuple[str, ...]:
    """Class names from one of ``FILES`` in a folder, else (); () and a warning for several lists.

    Raises:
        InputError: The file cannot be understood.
    """
    for path in (folder / name for name in FILES):
        if not path.is_file():
            continue
        content = read_json(path)
        if isinstance(content, dict) and "labels" in content:
            content = content["labels"]
        elif path.name == "dataset.json":
            continue
        several = isinstance(content, dict) and content.values()
        if several and all(isinstance(value, dict) for value in several):
            problem = f"holds {len(content)} lists of classes instead of one: no name is used"
            remedy = (
                "Make sure that each label value means the same in all cases, and keep one list"
            )
            issues.warning(path, problem, remedy)
            return ()
        return class_names(content, path)
    return ()
