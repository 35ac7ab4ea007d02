"""Which patient a case belongs to. Splits keep patients whole: a wrong answer leaks test data."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...config import Data
from ...errors import InputError
from ..dataset import Case
from ..issues import Issues, some
from ..links import refuse_link
from ..names import patient_key, unified
from ..provenance import ANCESTORS, read_ancestors
from ..tables import is_table, read_table
from .listing import entries, stem

_PNEUMONIA = re.compile(r"person(\d+)_(?:bacteria|virus)_\d+", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)-\d+(?:-\d+)?", re.IGNORECASE)
_SHARED = re.compile(r"ancestors-[0-9a-f]{12}")
_NAMED = (
    re.compile(r"(sub-[a-zA-Z0-9]+)(?:_[a-zA-Z0-9-]+)*"),
    re.compile(r"((?:patient|subject|case)[ _-]?\d+)(?:[ _.-].*)?", re.IGNORECASE),
    re.compile(r"(brats-[a-z]+-\d{5})-\d{3}(?:-.*)?", re.IGNORECASE),
    re.compile(r"(1[01]\d{3})_100\d{4}(?:_.*)?"),
    re.compile(r"(Image_\d\d)[LR](?:_.*)?"),
)
"""BIDS, any that say so, BraTS 2023, PI-CAI, CHASE_DB1 (eyes): examinations of one patient differ in what follows."""


def known_patient(place: PurePosixPath) -> str:
    """The patient in the name of a file, or of the innermost folder that has one in its name, or ''.

    ``sub-01_ses-2_T1w`` is ``sub-01`` (BIDS 1.8, "File name structure"), ``patient001_frame12`` of ACDC ``patient001``,
    ``case0005_slice012`` of Synapse ``case0005``, ``BraTS-GLI-00046-001-t1n`` ``BraTS-GLI-00046``,
    ``10032_1000032_t2w`` of PI-CAI ``10032``, and both eyes ``Image_01L`` and ``Image_01R`` of CHASE_DB1 ``Image_01``.
    Of Kermany, Zhang, Goldbaum 2018 (pediatric chest X-rays) ``person7_virus_15`` is person 7, ``IM-0115-0001``
    and ``NORMAL2-IM-0115-0001`` are normal 115. A number in both series of normal films, or with bacteria and
    virus, may be two children; taking them for one cannot leak.
    """
    name = stem(place)
    for word, pattern in (("person", _PNEUMONIA), ("normal", _NORMAL)):
        if match := pattern.fullmatch(name):
            return f"{word}{int(match[1])}"
    for part in (name, *place.parts[-2::-1]):
        if found := named_in(part):
            return found
    return ""


def named_in(part: str) -> str:
    """The patient that a name of a file or folder begins with, or ''."""
    return next((match[1] for each in _NAMED if (match := each.fullmatch(part))), "")


def patients_of(
    home: Path,
    cases: Sequence[tuple[PurePosixPath, Case]],
    data: Data,
    issues: Issues,
    *,
    stated: bool = False,
    left_out: Collection[PurePosixPath] | None = (),
) -> tuple[list[str], bool]:
    """The patient of each case, and whether anything names patients.

    A case of which nothing is known is its own patient. Patients whose names differ in no more than
    case, leading zeros or a trailing ``.0``, as spreadsheets leave it, are one: that cannot leak. That of a drawn pair
    is all patients that it descends from, joined by ``+``.

    Args:
        home: The data folder; it and the folders in it may hold tables of patients.
        cases: Each with its path below ``home``; ``group`` is the patient by the layout, or ''.
        data: ``group`` is a regular expression that overrides everything else.
        issues: Receives faults of the tables, and the images without a patient.
        stated: The patients of the layout were written by the user, so they go before ``patients.csv``.
        left_out: Images that are no cases, which a table may name; None: of a file, not of all of ``home``.

    Raises:
        InputError: The expression is not valid or has no group; a table of patients cannot be used, or
            lists none of several images; ``ancestors.json`` is damaged, or lacks what a table names.
    """
    pattern = None if data.group is None else _compiled(data.group)
    tables = _tables(home, left_out is not None) if pattern is None else []
    unmatched: list[str] = []

    def patient(image: PurePosixPath, case: Case) -> str:
        if pattern is not None:
            match = pattern.search(image.as_posix())
            if match is None or not match[1]:
                unmatched.append(image.as_posix())
                return ""
            return match[1]
        files = (*case.images, *case.series) if tables else ()
        known = case.group if stated else ""
        places = [image, *(PurePosixPath(path.relative_to(home)) for path in files)]
        for table in tables:
            known = table.patient(places, case.name, needed=not known) or known
        return known or case.group or known_patient(image)

    found = [patient(*case) for case in cases]
    if unmatched:
        count = f"{len(unmatched)} paths: {some(unmatched)}"
        problem = f"the group expression {data.group!r} finds no patient in {count}"
        remedy = "Correct --group; it is searched in each path below the data folder"
        issues.error(home, problem, remedy)
    for table in tables:
        table.report(left_out, issues)
    spelled = _with_ancestors(home, _one_spelling(home, found, issues), tables)
    return [n or case.name for n, (_, case) in zip(spelled, cases, strict=True)], any(found)


def _with_ancestors(home: Path, patients: list[str], tables: Sequence[_Table]) -> list[str]:
    """The patients, with all ancestors in place of a name that stands for them."""
    if not (shared := {name for name in patients if _SHARED.fullmatch(name)}):
        return patients
    joined: dict[str, str] = {}
    own = home if home.is_dir() else home.parent
    for folder in {own, *(table.path.parent for table in tables)}:
        for name, one in read_ancestors(folder).items():
            joined[name] = "+".join(one.get("patients", ()))
    if missing := sorted(name for name in shared if not joined.get(name)):
        problem = f"does not say who {missing[0]} are, from whom its images were drawn"
        raise InputError(home / ANCESTORS, problem, "Restore the file, or draw the images again")
    return [joined.get(name, name) for name in patients]


def is_patient_table(path: Path) -> bool:
    """Whether a name says that a file names patients; it may be of a kind that is not read."""
    name, _, suffixes = path.name.lower().partition(".")
    return name == "patients" and (is_table(path) or suffixes in ("xlsx", "xls", "ods", "txt"))


class _Table:
    """A table of patients, which knows the images below its folder by the ends of their paths."""

    def __init__(self, path: Path, place: PurePosixPath) -> None:
        self.path, self.place = path, place
        self.rows: dict[tuple[str, ...], str] = {}
        self.ends: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
        self.used: set[tuple[str, ...]] = set()
        self.listed, self.unlisted = 0, list[str]()
        if not is_table(path):
            raise InputError(path, "is no table that is read", "Save it as patients.csv")
        rows = read_table(path)
        if not {"image", "patient"} <= rows[0].keys():
            raise InputError(path, "lacks the column image or patient", "Add both to its header")
        for row in rows:
            image, patient = _parts(row["image"]), row["patient"]
            if not image or not patient:
                continue
            if patient_key(self.rows.setdefault(image, patient)) != patient_key(patient):
                problem = f"gives {row['image']} a second patient"
                raise InputError(row.where, problem, "Keep one row per image")
        for image in self.rows:
            for start in range(len(image)):
                self.ends[_alike(image[start:])].append(image)

    def patient(self, places: Sequence[PurePosixPath], name: str, *, needed: bool = True) -> str:
        """The patient of a case from any of its paths below the data folder, or from its name, or ''.

        Raises:
            InputError: Rows of several patients mean the case.
        """
        below = [place for place in places if place.is_relative_to(self.place)]
        if not below:
            return ""
        parts = (_parts(place.relative_to(self.place).as_posix()) for place in below)
        rows = {row for each in parts for row in self._rows(each)}
        rows |= {row for row in self.ends.get(_alike([name]), ()) if len(row) == 1}
        self.used |= rows
        found = {patient_key(self.rows[row]): self.rows[row] for row in sorted(rows)}
        if len(found) > 1:
            problem = f"gives {places[0]} {len(found)} patients ({some(sorted(found.values()))})"
            remedy = "Write the paths of images below the data folder"
            raise InputError(self.path, problem, remedy)
        if found:
            self.listed += 1
        elif needed:
            self.unlisted.append(places[0].as_posix())
        return next(iter(found.values()), "") if needed else ""

    def _rows(self, image: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The rows that mean an image: one path is the end of the other. The longest agreement counts."""
        if image in self.rows:
            return [image]
        for start in range(len(image)):
            end = image[start:]
            rows = [r for r in self.ends.get(_alike(end), ()) if not start or len(r) == len(end)]
            if rows:
                return [row for row in rows if row[-len(end) :] == end] or rows
        return []

    def report(self, left_out: Collection[PurePosixPath] | None, issues: Issues) -> None:
        """Say which images and rows did not match; ``left_out`` as in ``patients_of``."""
        if len(self.unlisted) > 1 and not self.listed:
            count, row = len(self.unlisted), "/".join(next(iter(self.rows), ("nothing",)))
            problem = f"lists none of the {count} images, such as {self.unlisted[0]} (but {row})"
            remedy = "Write paths below the data folder, or file names; or name patients by --group"
            raise InputError(self.path, problem, remedy)
        if self.unlisted and (self.listed or left_out is not None):
            problem = f"does not list {len(self.unlisted)} images: {some(self.unlisted)}"
            issues.warning(self.path, problem, "Add them; each now counts as its own patient")
        for place in left_out or ():
            if place.is_relative_to(self.place):
                self.used |= {*self._rows(_parts(place.relative_to(self.place).as_posix()))}
        idle = ["/".join(row) for row in self.rows if row not in self.used]
        if idle and left_out is not None:
            problem = f"lists {len(idle)} images that are no cases here: {some(idle)}"
            issues.warning(self.path, problem, "Correct their paths, or remove the rows")


def _tables(home: Path, whole: bool) -> list[_Table]:
    """The tables of patients in a folder and, if it is used as a ``whole``, in the folders in it.

    Raises:
        InputError: One cannot be read, lacks a column or contradicts itself, or a folder holds several.
    """
    inner = [p for p in entries(home) if whole and p.is_dir() and not p.is_symlink()]
    tables = []
    for folder in (*(p for p in inner if not p.name.startswith(".")), home):
        found = [path for path in entries(folder) if is_patient_table(path)]
        if len(found) > 1:
            names = " and ".join(path.name for path in found)
            raise InputError(folder, f"holds both {names}", "Keep one table of patients")
        for path in found:
            refuse_link(path, home)
            tables.append(_Table(path, PurePosixPath(folder.relative_to(home))))
    return tables


def _parts(text: str) -> tuple[str, ...]:
    """The folders and the stem of a path of any system, without drive or root."""
    path = PureWindowsPath(text.strip())
    parts = path.relative_to(path.anchor).parts
    return (*parts[:-1], stem(parts[-1])) if parts else ()


def _alike(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(unified(part) for part in parts)


def _one_spelling(home: Path, patients: Sequence[str], issues: Issues) -> list[str]:
    """One name for all spellings of a patient, and a line that says so; '' stays ''."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for patient in patients:
        spellings[patient_key(patient)].add(re.sub(r"^(\d+)\.0+$", r"\1", patient))
    chosen = {key: min(names) for key, names in spellings.items()}
    several = [
        " and ".join(sorted(names)) for _, names in sorted(spellings.items()) if len(names) > 1
    ]
    if several:
        problem = f"spells {len(several)} patients in several ways ({some(several)})"
        issues.warning(home, problem, "Each is taken for one patient; spell different ones apart")
    return [chosen[patient_key(patient)] for patient in patients]


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
