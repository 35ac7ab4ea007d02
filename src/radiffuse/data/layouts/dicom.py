"""A tree of DICOM files. Series are found by headers; the identity of patients stays in the files."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Case, Dataset
from ..issues import Issues
from ..names import short_hash
from .build import build
from .listing import is_dicom, walk

EXPECTED = "a tree of DICOM files and nothing else"
SLICES = {"CT", "MR", "PT", "NM"}
"""Modalities (0008,0060) whose files are slices of one volume."""
NO_IMAGES = {"SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "RWV", "SEG", "DOC", "PLAN"}
"""Modalities without images: reports, contours, plans, segmentations."""

_TAGS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Modality"),
    *("ImagePositionPatient", "NumberOfFrames", "Rows"),
)


@dataclass(frozen=True)
class _Header:
    path: Path
    instance: str
    series: str
    patient: str
    is_slice: bool


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """A series of slices is a case, as is a film or a multi-frame file.

    Recognized where every image is DICOM. Cases are named by hashes of their UIDs, patients after
    their first case. Folder and file names, which may contain a patient's name, are not used.
    """
    listing = walk(root)
    scans = [path for path in listing.images if is_dicom(root / path)]
    if not scans or (data.layout == "auto" and len(scans) < len(listing.images)):
        return None
    issues += listing.issues
    headers = [header for path in scans if (header := _header(root, path, issues))]
    instances: dict[str, _Header] = {}
    for header in headers:
        first = instances.setdefault(header.instance, header)
        if first is not header:  # a copied slice would be in its volume twice
            problem = f"is the same image as {first.path.relative_to(root)} (SOPInstanceUID)"
            issues.error(header.path, problem, "Remove one of the two")
    series: dict[str, list[_Header]] = defaultdict(list)
    for header in instances.values():
        identity = header.series if header.is_slice else f"{header.series}/{header.instance}"
        series[identity].append(header)
    cases = [_case(identity, members) for identity, members in series.items()]
    places = [members[0].path for members in series.values()]
    return _named_patients(build(root, "dicom", cases, data, issues, places=places))


def _header(root: Path, relative: PurePosixPath, issues: Issues) -> _Header | None:
    from pydicom import dcmread

    path = root / relative
    if os.path.getsize(path) == 0:
        issues.error(path, "is empty (0 bytes)", "Copy it again or remove it")
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote the patient
            found = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            values = {tag: str(found.get(tag) or "") for tag in _TAGS}
    except Exception as error:  # pydicom raises many kinds; their text may quote the patient
        problem = f"is no readable DICOM file ({type(error).__name__})"
        issues.error(path, problem, "Export it again or remove it")
        return None
    if values["Modality"] in NO_IMAGES or not values["Rows"]:
        return None
    frames = values["NumberOfFrames"]
    many = frames.isdecimal() and int(frames) > 1
    position = bool(values["ImagePositionPatient"])
    return _Header(
        path,
        instance=values["SOPInstanceUID"] or relative.as_posix(),
        series=values["SeriesInstanceUID"] or relative.parent.as_posix(),
        patient=values["PatientID"] or values["StudyInstanceUID"],
        is_slice=not many and (position or values["Modality"] in SLICES),
    )


def _case(identity: str, members: list[_Header]) -> Case:
    paths = tuple(header.path for header in members)
    several = len(paths) > 1
    patient = members[0].patient
    return Case(
        name=f"{'series' if several else 'image'}-{short_hash(identity)}",
        images=(Path(os.path.commonpath([p.parent for p in paths])),) if several else paths,
        group=short_hash(patient) if patient else "",
        series=paths if several else (),
    )


def _named_patients(dataset: Dataset) -> Dataset:
    """Patients named after the first of their cases.

    A hash of the few digits of a PatientID, even a salted one whose salt is stored, could be reversed
    by trying all of them. UIDs are long, and give the same names on every machine.
    """
    first: dict[str, str] = {}
    for case in dataset:  # sorted by name
        first.setdefault(case.group, case.name)
    cases = (replace(case, group=f"patient-{short_hash(first[case.group])}") for case in dataset)
    return replace(dataset, cases=tuple(cases))
