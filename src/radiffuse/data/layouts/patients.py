"""Which patient a case belongs to. No split parts a patient: a wrong answer leaks test data."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..documents import read_table
from ..issues import Issues, some
from .listing import key, stem

_PNEUMONIA = re.compile(r"person(\d+)_(?:bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?", re.IGNORECASE)


def known_patient(name: str) -> str:
    """The patient in a well-known file name, else ''.

    Kermany, Zhang, Goldbaum 2018 (paediatric chest X-rays): ``person7_virus_15`` is person 7,
    ``IM-0115-0001`` and ``NORMAL2-IM-0115-0001`` are normal 115. The same number in both series of
    normal films, or with bacteria and with virus, may be two children; taking them for one cannot
    leak.
    """
    for word, pattern in (("person", _PNEUMONIA), ("normal", _NORMAL)):
        if match := pattern.fullmatch(name):
            return f"{word}{int(match[1])}"
    return ""


class Patients:
    """Finds the patient of each case of one data set.

    Args:
        root: The data folder; its ``patients.csv`` (columns ``image`` and ``patient``) is read if
            there.
        data: ``group`` is the user's regular expression, which goes before everything else.
        issues: Receives what is wrong with ``patients.csv`` and with matches.

    Raises:
        InputError: The expression is not valid or has no group; ``patients.csv`` lacks a column.
    """

    def __init__(self, root: Path, data: Data, issues: Issues) -> None:
        self.root = root
        self.issues = issues
        self.pattern = None if data.group is None else _compiled(data.group)
        self.unmatched: list[str] = []
        self.unlisted: list[str] = []
        self.table: dict[str, str] = {}
        path = root / "patients.csv"
        if self.pattern is None and path.is_file():
            self._read_patients(path)

    def _read_patients(self, path: Path) -> None:
        rows = read_table(path)
        if not {"image", "patient"} <= rows[0].keys():
            raise InputError(path, "lacks the column image or patient", "Add both to its header")
        for number, row in enumerate(rows, start=2):
            name, patient = key(PurePosixPath(row["image"])), row["patient"]
            if patient and self.table.setdefault(name, patient) != patient:
                problem = f"gives {name} a second patient"
                self.issues.error(f"{path}, row {number}", problem, "Keep one row per image")

    def of(self, image: PurePosixPath, name: str, given: str = "") -> str:
        """The patient of one case.

        Args:
            image: Path of the (first) image, relative to the data folder.
            name: Name of the case, which stands for its own patient where nothing else is known.
            given: What the layout itself says, such as the column ``patient`` of a table.
        """
        if self.pattern is not None:
            match = self.pattern.search(image.as_posix())
            if match is None or not match[1]:
                self.unmatched.append(image.as_posix())
                return name
            return match[1]
        if given:
            return given
        if self.table:
            for candidate in (key(image), stem(image), name):
                if candidate in self.table:
                    return self.table[candidate]
            self.unlisted.append(image.as_posix())
        return known_patient(stem(image)) or name

    def finish(self) -> None:
        """Report, in one line each, the images for which no patient was found."""
        if self.unmatched and self.pattern is not None:
            problem = (
                f"the group expression {self.pattern.pattern!r} finds no patient in "
                f"{len(self.unmatched)} paths: {some(self.unmatched)}"
            )
            remedy = "Correct --group; it is searched in each path below the data folder"
            self.issues.error(self.root, problem, remedy)
        if self.unlisted:
            problem = f"does not list {len(self.unlisted)} images: {some(self.unlisted)}"
            remedy = "Add them; each now counts as its own patient"
            self.issues.warning(self.root / "patients.csv", problem, remedy)


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
