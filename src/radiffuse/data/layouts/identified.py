"""Whose DICOM images are: headers say which belong to one patient, within a labelled data set and in two folders.

Neither PatientID nor anything that could be computed from it is kept, see ``dicom``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import InputError
from ..dataset import Case, Dataset
from ..issues import Issues
from ..names import patient_key, short_hash
from .dicom_headers import header_of
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
    named = {c.name: patient_key(known_patient(p)) for p, c in cases if known and not c.group}
    groups = dict[str, str]()
    for names in _patients(known, named):
        if any(name in known for name in names):
            first = min(headers[name][1] or name for name in names)
            groups |= dict.fromkeys(names, f"patient-{short_hash(first)}")
    return [(place, replace(c, group=groups.get(c.name, c.group))) for place, c in cases]


def without_headers_of(images: Dataset, held: Dataset, others: Iterable[Case] = ()) -> Dataset:
    """The images without those of the patients whom DICOM headers of held-out cases name, whatever else names them.

    Each folder names the patients in its headers in its own way, so names alone do not show it. One word for all of
    several images says nothing, as in ``with_patients``; ``others`` are further cases of the set of those held out.
    """

    def known(case: Case) -> str:
        return patient_key(_identity(case)[0])

    said = {case.name: known(case) for case in held}
    theirs = {*said.values()} - {""}
    if not theirs:
        return images
    said |= {case.name: known(case) for case in others if case.name not in said}
    words = [word for word in said.values() if word]
    if len({*words}) == 1 < len(words):
        return images
    groups = {case.group for case in images if known(case) in theirs}
    return images.filter(lambda case: case.group not in groups)


def _patients(known: Mapping[str, str], named: Mapping[str, str]) -> Iterator[list[str]]:
    """The images of each patient, where header and name of a file may each say whose it is; '' says nothing."""
    from scipy.cluster.hierarchy import DisjointSet

    same: Any = DisjointSet(named)
    first: dict[tuple[str, str], str] = {}
    for source, said in (("header", known), ("name", named)):
        for image, patient in said.items():
            if patient:
                same.merge(image, first.setdefault((source, patient), image))
    return map(list, same.subsets())


def _identity(case: Case) -> tuple[str, str]:
    """What tells the patient of an image from others, and the UID of the image; '' where the file does not say."""
    path = (case.series or case.images)[0]
    if not case.series and not is_dicom(path):
        return "", ""
    try:
        found = header_of(path, TAGS)
        patient, study, series, image = (found[tag].strip() for tag in TAGS)
    except InputError:  # whoever reads the image says what is wrong
        return "", ""
    except Exception:  # pydicom raises many kinds for damaged headers
        return "", ""
    return patient or study, f"{series}/{image}" if series or image else ""
