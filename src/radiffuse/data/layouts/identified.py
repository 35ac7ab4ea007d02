"""Whose the DICOM images of a labelled data set are: their headers say which belong to one patient.

Neither PatientID nor anything that could be computed from it is kept, see ``dicom``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ..dataset import Case
from ..issues import Issues
from ..names import patient_key, short_hash
from .listing import is_dicom
from .patients import known_patient

TAGS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")

Placed = tuple[PurePosixPath, Case]
"""A case, and its path below the data folder."""


def with_patients(root: Path, cases: Sequence[Placed], issues: Issues) -> list[Placed]:
    """The cases, each with its place; those whose patient no layout knows have one where DICOM headers name it.

    Images are of one patient by PatientID, or else by StudyInstanceUID, and by what their names say: that cannot leak.
    One word for all of several images was put there to remove names: it says nothing, and a line says so.
    """
    headers = {case.name: _identity(case) for _, case in cases if not case.group}
    known = {name: patient_key(patient) for name, (patient, _) in headers.items() if patient}
    if len(set(known.values())) == 1 < len(known):
        problem = (
            f"has {len(known)} DICOM images with the same PatientID, which is taken for nobody's"
        )
        remedy = "Name the patients with --group or patients.csv, if several images are of one"
        issues.warning(root, problem, remedy)
        return list(cases)
    patients = _Patients()
    for place, case in cases if known else ():
        if not case.group:
            patients.add(case.name, known.get(case.name, ""), patient_key(known_patient(place)))
    groups = dict[str, str]()
    for names in patients.images():
        if any(name in known for name in names):
            first = min(headers[name][1] or name for name in names)
            groups |= dict.fromkeys(names, f"patient-{short_hash(first)}")
    return [(place, replace(c, group=groups.get(c.name, c.group))) for place, c in cases]


class _Patients:
    """Which images are of one patient, where header and name of a file may each say so."""

    def __init__(self) -> None:
        self.same: dict[tuple[str, str], tuple[str, str]] = {}
        self.said: dict[str, tuple[str, str]] = {}

    def add(self, image: str, header: str, name: str) -> None:
        """An image, and what its header and its name say of the patient; '' where they say nothing."""
        marks = [mark for mark in (("header", header), ("name", name)) if mark[1]]
        for mark in marks:
            self.same.setdefault(mark, mark)
            self.same[self._first(mark)] = self._first(marks[0])
            self.said[image] = mark

    def images(self) -> list[list[str]]:
        """The images of each patient of whom anything is said."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for image, mark in self.said.items():
            found[self._first(mark)].append(image)
        return list(found.values())

    def _first(self, mark: tuple[str, str]) -> tuple[str, str]:
        while self.same[mark] != mark:
            mark = self.same[mark] = self.same[self.same[mark]]
        return mark


def _identity(case: Case) -> tuple[str, str]:
    """What tells the patient of an image from others, and the UID of the image; '' where the file does not say."""
    path = (case.series or case.images)[0]
    if not case.series and not is_dicom(path):
        return "", ""
    from ..readers.dicomfile import load

    try:
        found = load(path, TAGS)
        patient, study, series, image = (str(found.get(tag) or "").strip() for tag in TAGS)
    except InputError:  # whoever reads the image says what is wrong
        return "", ""
    except Exception:  # pydicom raises many kinds for damaged headers
        return "", ""
    return patient or study, f"{series}/{image}" if series or image else ""
