"""Which patient a case belongs to. Splits keep patients whole: a wrong answer leaks test data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..dataset import Case
from ..issues import Issues, some
from ..tables import read_table
from .listing import key, stem

_PNEUMONIA = re.compile(r"person(\d+)_(?:bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?", re.IGNORECASE)


def known_patient(name: str) -> str:
    """The patient in a file name of Kermany, Zhang, Goldbaum 2018 (pediatric chest X-rays), or ''.

    ``person7_virus_15`` is person 7, ``IM-0115-0001`` and ``NORMAL2-IM-0115-0001`` are normal 115.
    A number in both series of normal films, or with bacteria and virus, may be two children; taking
    them for one cannot leak.
    """
    for word, pattern in (("person", _PNEUMONIA), ("normal", _NORMAL)):
        if match := pattern.fullmatch(name):
            return f"{word}{int(match[1])}"
    return ""


def patients_of(
    home: Path, cases: Iterable[tuple[PurePosixPath, Case]], data: Data, issues: Issues
) -> list[str]:
    """The patient of each case; a case of which nothing is known is its own patient.

    Args:
        home: The data folder, with or without ``patients.csv`` (columns ``image``, ``patient``).
        cases: Each with its path below ``home``; ``group`` is the patient by the layout, or ''.
        data: ``group`` is a regular expression that overrides everything else.
        issues: Receives faults of ``patients.csv``, and the images without a patient.

    Raises:
        InputError: The expression is not valid or has no group; ``patients.csv`` lacks a column.
    """
    pattern = None if data.group is None else _compiled(data.group)
    table = _patients_csv(home / "patients.csv", issues) if pattern is None else {}
    unmatched: list[str] = []
    unlisted: list[str] = []

    def patient(image: PurePosixPath, case: Case) -> str:
        if pattern is not None:
            match = pattern.search(image.as_posix())
            if match is None or not match[1]:
                unmatched.append(image.as_posix())
                return case.name
            return match[1]
        listed = [table[k] for k in (key(image), stem(image), case.name) if k in table]
        if table and not listed and not case.group:
            unlisted.append(image.as_posix())
        return case.group or next(iter(listed), known_patient(stem(image)) or case.name)

    patients = [patient(*case) for case in cases]
    if unmatched:
        count = f"{len(unmatched)} paths: {some(unmatched)}"
        problem = f"the group expression {data.group!r} finds no patient in {count}"
        remedy = "Correct --group; it is searched in each path below the data folder"
        issues.error(home, problem, remedy)
    if unlisted:
        problem = f"does not list {len(unlisted)} images: {some(unlisted)}"
        remedy = "Add them; each now counts as its own patient"
        issues.warning(home / "patients.csv", problem, remedy)
    return patients


def _patients_csv(path: Path, issues: Issues) -> dict[str, str]:
    """Patient by path without suffix; {} without such a table."""
    table: dict[str, str] = {}
    rows = read_table(path) if path.is_file() else []
    if rows and not {"image", "patient"} <= rows[0].keys():
        raise InputError(path, "lacks the column image or patient", "Add both to its header")
    for number, row in enumerate(rows, start=2):
        name, patient = key(PurePosixPath(row["image"])), row["patient"]
        if patient and table.setdefault(name, patient) != patient:
            where = f"{path}, row {number}"
            issues.error(where, f"gives {name} a second patient", "Keep one row per image")
    return table


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        problem = f"{expression!r} is no regular expression ({error})"
        raise InputError("data.group", problem, "Correct it") from None
    if not pattern.groups:
        problem = f"{expression!r} has no group in parentheses"
        remedy = "Put the patient's part in parentheses, as in '(patient\\d+)_'"
        raise InputError("data.group", problem, remedy)
    return pattern
