"""A CSV or Parquet table with one row per image."""

from __future__ import annotations

from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from ..tables import TABLE_SUFFIXES, read_table
from .build import build, once, place_of
from .listing import SPLITS, inside, key

EXPECTED = "a CSV or Parquet file with a column 'image'"

Rows = list[dict[str, str]]


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Column ``image``; optionally ``label``, ``patient``, ``class`` (or ``target``), ``split``.

    Paths are relative to the table's folder. A folder fits if it holds exactly one table with a
    column ``image`` of which at least one entry is a file.

    Raises:
        InputError: The given table cannot be read or lacks the column ``image``.
    """
    if root.is_dir():
        found = _in_folder(root)
        if found is None:
            return None
        path, rows = found
    elif root.suffix.lower() in TABLE_SUFFIXES:
        path, rows = root, read_table(root)
        if "image" not in rows[0]:
            problem = f"has no column 'image' (but {', '.join(rows[0])})"
            raise InputError(root, problem, "Rename a column")
    else:
        return None
    home = path.parent
    listed: list[tuple[str, Case]] = []
    for number, row in enumerate(rows, start=2):
        where = f"{path}, row {number}"
        with issues.collected():
            listed.append((where, _case(home, row, where)))
    cases = once(listed, home, issues)
    blank = sum(not case.group for case in cases)
    if blank and "patient" in rows[0] and data.group is None:
        remedy = "Fill them in, or each is its own patient"
        issues.warning(path, f"has {blank} rows without a patient", remedy)
    classes = declared_classes(home, issues)
    return build(root, "table", cases, data, issues, home=home, classes=classes)


def _in_folder(folder: Path) -> tuple[Path, Rows] | None:
    usable = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TABLE_SUFFIXES or path.name.lower() == "patients.csv":
            continue
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            rows = read_table(path)
        except InputError:
            continue  # another kind of table beside images
        if any(_is_file(folder, row.get("image", "")) for row in rows):
            usable.append((path, rows))
    if len(usable) > 1:
        problem = f"holds several tables of images ({' and '.join(p.name for p, _ in usable)})"
        raise InputError(folder, problem, "Give one of the tables")
    return usable[0] if usable else None


def _is_file(folder: Path, name: str) -> bool:
    try:
        return bool(inside(folder, name, ""))
    except InputError:
        return False


def _case(home: Path, row: dict[str, str], where: str) -> Case:
    image = inside(home, row["image"], where)
    label = inside(home, row["label"], where) if row.get("label") else None
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise InputError(where, f"has the split {split!r}", "Use train, validation or test")
    return Case(
        key(place_of(image, home)),
        (image,),
        label=label,
        group=row.get("patient", ""),
        target=row.get("class") or row.get("target") or None,
        split=SPLITS.get(split),
    )
