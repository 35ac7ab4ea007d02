"""A CSV or Parquet table with one row per image."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..documents import TABLE_SUFFIXES, read_table
from ..issues import Issue
from .build import Draft, build
from .listing import SPLITS, inside, key


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """Column ``image``; optionally ``label``, ``patient``, ``class`` (or ``target``), ``split``.

    Paths are relative to the table's folder and stay below it. A folder is taken for a table where
    it holds exactly one table with a column ``image`` of which at least one entry is a file.

    Raises:
        InputError: A table was given that cannot be read or lacks the column ``image``.
    """
    if root.is_file():
        if root.suffix.lower() not in TABLE_SUFFIXES:
            return None
        rows = read_table(root)
        if "image" not in rows[0]:
            columns = ", ".join(rows[0])
            raise InputError(root, f"has no column 'image' (but {columns})", "Rename the column")
        return _dataset(root, root, rows, data, issues)
    found = _in_folder(root)
    return None if found is None else _dataset(root, *found, data, issues)


def _in_folder(folder: Path) -> tuple[Path, list[dict[str, str]]] | None:
    usable = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TABLE_SUFFIXES or path.name.lower() == "patients.csv":
            continue
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            rows = read_table(path)
        except InputError:
            continue  # some other table that happens to lie beside images
        if any(_is_file(folder, row.get("image", "")) for row in rows):
            usable.append((path, rows))
    if len(usable) > 1:
        both = " and ".join(path.name for path, _ in usable)
        raise InputError(
            folder, f"holds several tables of images ({both})", "Give one of the tables"
        )
    return usable[0] if usable else None


def _is_file(folder: Path, name: str) -> bool:
    try:
        inside(folder, name, "")
    except InputError:
        return False
    return True


def _dataset(
    root: Path, table: Path, rows: list[dict[str, str]], data: Data, issues: list[Issue]
) -> Dataset:
    drafts: list[Draft] = []
    seen: set[Path] = set()
    for number, row in enumerate(rows, start=2):
        where = f"{table}, row {number}"
        try:
            draft = _draft(table.parent, row, where)
        except InputError as error:
            issues.append(Issue.of(error))
            continue
        if draft.case.images[0] in seen:
            problem = f"names {row['image']} a second time"
            issues.append(Issue("error", where, problem, "Keep one row per image"))
            continue
        seen.add(draft.case.images[0])
        drafts.append(draft)
    if "patient" in rows[0] and data.group is None:
        _report_blank_patients(table, drafts, issues)
    classes = declared_classes(table.parent, issues)
    return build(root, "table", drafts, data, issues, home=table.parent, classes=classes)


def _draft(folder: Path, row: dict[str, str], where: str) -> Draft:
    image = inside(folder, row["image"], where)
    label = inside(folder, row["label"], where) if row.get("label") else None
    split = row.get("split", "").lower()
    if split and split not in SPLITS:
        raise InputError(where, f"has the split {split!r}", "Use train, validation or test")
    relative = PurePosixPath(image.relative_to(folder).as_posix())
    case = Case(
        name=key(relative),
        images=(image,),
        label=label,
        group=row.get("patient", ""),
        target=row.get("class") or row.get("target") or None,
        split=SPLITS[split] if split else None,
    )
    return Draft(relative, case)


def _report_blank_patients(table: Path, drafts: list[Draft], issues: list[Issue]) -> None:
    blank = sum(not draft.case.group for draft in drafts)
    if blank:
        problem = f"has {blank} rows without a patient"
        issues.append(
            Issue("warning", str(table), problem, "Fill them in, or each is its own patient")
        )
