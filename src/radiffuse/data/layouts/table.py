"""A CSV or Parquet table with one row per image."""

from __future__ import annotations

from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from ..tables import Row, head_of, is_table, read_table
from .build import build, once, place_of
from .doubts import look_at_columns, tables_of_images
from .listing import SPLITS, inside, is_file_below, key

EXPECTED = "a CSV or Parquet file with a column 'image'"


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Column ``image``; optionally ``label``, ``patient``, ``class`` (or ``target``), ``split``.

    Paths are relative to the table's folder. A folder fits if it holds exactly one table with a
    column ``image`` of which at least one entry is a file.

    Raises:
        InputError: The given table cannot be read or lacks the column ``image``; a folder holds several,
            or none but such as name no file.
    """
    if root.is_dir():
        found = _in_folder(root, issues)
        if found is None:
            return None
        path, rows = found
    elif is_table(root):
        path, rows = root, read_table(root)
        if "image" not in rows[0]:
            problem = f"has no column 'image' (but {', '.join(rows[0])})"
            raise InputError(root, problem, "Rename a column")
    else:
        return None
    home = path.parent
    listed: list[tuple[str, Case]] = []
    for row in rows:
        with issues.collected():
            listed.append((row.where, _case(home, row)))
    cases = once(listed, home, issues)
    blank = sum(not case.group for case in cases)
    if blank and "patient" in rows[0] and data.group is None:
        remedy = "Fill them in, or each is its own patient"
        issues.warning(path, f"has {blank} rows without a patient", remedy)
    look_at_columns(path, head_of(path), issues)
    classes = declared_classes(home, issues)
    return build(root, "table", cases, data, issues, home=home, classes=classes)


def _in_folder(folder: Path, issues: Issues) -> tuple[Path, list[Row]] | None:
    tables = [(path, read_table(path)) for path in tables_of_images(folder, issues)]
    usable = [
        (p, rows) for p, rows in tables if any(is_file_below(folder, r["image"]) for r in rows)
    ]
    if len(usable) > 1:
        problem = f"holds several tables of images ({' and '.join(p.name for p, _ in usable)})"
        raise InputError(folder, problem, "Give one of the tables")
    if tables and not usable:
        path, rows = tables[0]
        problem = f"names no image that is there (the first is {rows[0]['image']!r})"
        remedy = "Write paths below its folder, or name the layout (--layout images) to do without"
        raise InputError(path, problem, remedy)
    for path, _ in tables:
        if path != usable[0][0]:
            problem = f"has a column 'image', but names no image that is there, as {usable[0][0].name} does"
            issues.warning(path, problem, "It is passed over; make sure that nothing is missing")
    return usable[0] if usable else None


def _case(home: Path, row: Row) -> Case:
    image = inside(home, row["image"], row.where)
    label = inside(home, row["label"], row.where) if row.get("label") else None
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise InputError(row.where, f"has the split {split!r}", "Use train, validation or test")
    return Case(
        key(place_of(image, home)),
        (image,),
        label=label,
        group=row.get("patient", ""),
        target=row.get("class") or row.get("target") or None,
        split=SPLITS.get(split),
    )
