"""A tree of DICOM files. Series are found by headers; the identity of patients stays in the files."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..dataset import Case, Dataset
from ..issues import Issues, some
from ..names import patient_key, short_hash
from .build import build
from .dicom_headers import header_of
from .listing import is_dicom, walk

EXPECTED = "a tree of DICOM files and nothing else"
SLICES = {"CT", "MR", "PT", "NM"}
"""Modalities (0008,0060) whose files are slices of one volume."""
NO_IMAGES = {"SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "RWV", "SEG", "DOC", "PLAN"}
"""Modalities without images: reports, contours, plans, segmentations."""

LABELS = {"SEG", "RTSTRUCT"}
"""Those that may hold what is to be learned."""

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""Storage classes of secondary captures begin like this: screens, dose reports as pictures."""

_RAW = {"FOR PROCESSING": True, "FOR PRESENTATION": False}
"""PresentationIntentType (0008,0068)."""

_TAGS = (
    *("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID"),
    *("Modality", "ImageType", "ImagePositionPatient", "NumberOfFrames", "Rows"),
    "PresentationIntentType",
)


@dataclass(frozen=True)
class _Header:
    """What a file says; ``aside`` is what it is if it is never part of a volume, ``kind`` if it has no pixels.

    ``raw`` says that its values are those of the detector, not processed for the eye; None where it does not say.
    """

    path: Path
    instance: str
    series: str
    study: str
    patient: str
    is_slice: bool
    many: bool
    position: str
    aside: str
    kind: str
    raw: bool | None


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """A series of slices is a case, as is a film or a multi-frame file.

    Files without images are left out with a line. So are, where the tree holds volumes, localizers,
    secondary captures, and single slices of a study that has a volume; films are cases anywhere.

    Recognized where every image is DICOM. Cases are named by hashes of their UIDs, patients after
    their first case. Folder and file names, which may contain a patient's name, are not used.
    """
    listing = walk(root)
    scans = [path for path in listing.images if is_dicom(root / path)]
    if not scans or (data.layout == "auto" and len(scans) < len(listing.images)):
        return None
    issues += listing.issues
    headers = [header for path in scans if (header := _header(root, path, issues))]
    instances: dict[tuple[str, ...], _Header] = {}
    for header in headers:
        if header.kind:
            continue
        # some programs that remove names give all slices one UID
        patient = patient_key(header.patient)
        identity = (header.instance, header.series, header.position, patient)
        first = instances.setdefault(identity, header)
        if first is not header:  # a copied slice would be in its volume twice
            problem = f"is the same image as {first.path.relative_to(root)} (SOPInstanceUID)"
            issues.error(header.path, problem, "Remove one of the two")
    series = _by_series(instances.values())
    left = {h.path: h.kind for h in headers if h.kind} | _left_out(series)
    kept = {name: [h for h in members if h.path not in left] for name, members in series.items()}
    kept = {name: members for name, members in kept.items() if members}
    if left and kept:
        remedy = "Make sure that nothing is missing"
        if LABELS.intersection(left.values()):
            remedy += (
                "; outlines and segmentations become labels as docs/how-to/other-folders.md says"
            )
        issues.warning(root, _described(left, root), remedy)
    spellings: dict[str, set[str]] = defaultdict(set)
    for members in kept.values():
        spellings[patient_key(members[0].patient)].add(members[0].patient)
    if several := sum(len(ways) > 1 for ways in spellings.values()):
        problem = f"spells the PatientID of {several} patients in several ways (as 7 and 007)"
        issues.warning(root, problem, "Each is taken for one patient; spell different ones apart")
    _look_for_raw(kept.values(), root, issues)
    cases = [_case(identity, members) for identity, members in kept.items()]
    places = [members[0].path for members in kept.values()]
    dataset = build(root, "dicom", cases, data, issues, places=places)
    return _named_patients(replace(dataset, passed_over=dataset.passed_over.union(left)))


def _by_series(headers: Iterable[_Header]) -> dict[str, list[_Header]]:
    """The slices of each series, and each other image by itself, by what names the case.

    Programs that remove names may give one SeriesInstanceUID to all: patients part it. If all slices have one UID as
    well, cases are named by their order, since no name may tell a PatientID.
    """
    found: dict[tuple[str, str], list[_Header]] = defaultdict(list)
    patients: dict[str, set[str]] = defaultdict(set)
    for header in headers:
        single = "" if header.is_slice else f"/{header.instance}"
        found[header.series + single, patient_key(header.patient)].append(header)
        patients[header.series + single].add(patient_key(header.patient))
    series: dict[str, list[_Header]] = {}
    named = Counter[str]()
    for (identity, _), members in found.items():
        several = len(patients[identity]) > 1
        name = f"{identity}/{min(h.instance for h in members)}" if several else identity
        series[f"{name}/{named[name]}" if named[name] else name] = members
        named[name] += 1
    return series


def _look_for_raw(cases: Iterable[Sequence[_Header]], root: Path, issues: Issues) -> None:
    """Report films of the detector beside films processed for the eye, which are often the same exposures."""
    films = [members[0] for members in cases]
    raw = [str(h.path.relative_to(root)) for h in films if h.raw]
    if raw and (shown := sum(h.raw is False for h in films)):
        counts = f"{len(raw)} FOR PROCESSING and {shown} FOR PRESENTATION"
        problem = f"mixes raw and processed images: {counts} (PresentationIntentType); raw are {some(raw, 3)}"
        issues.warning(root, problem, "Keep one kind: they are often one exposure twice")


def _left_out(series: Mapping[str, Sequence[_Header]]) -> dict[Path, str]:
    """Files that are no part of a volume, and what they are; {} in a tree without volumes."""
    volumes = {name for name, members in series.items() if _is_volume(members)}
    studies = {header.study for name in volumes for header in series[name]} - {""}
    left = {}
    for name, members in series.items() if volumes else ():
        lone = name not in volumes and members[0].is_slice and members[0].study in studies
        for header in members:
            if kind := header.aside or ("single slice" if lone else ""):
                left[header.path] = kind
    return left


def _is_volume(members: Sequence[_Header]) -> bool:
    """Slices in several places, or in none that are stated, which reading will refuse; or many frames."""
    slices = [header for header in members if not header.aside]
    places = {header.position for header in slices}
    return any(h.many for h in slices) or (len(slices) > 1 and (len(places) > 1 or "" in places))


def _described(left: Mapping[Path, str], root: Path) -> str:
    """One line on all that is left out: nothing but kinds and paths."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for path, kind in left.items():
        by_kind[kind].append(str(path.relative_to(root)))
    parts = (f"{len(p)} of the kind {kind} ({some(p, 3)})" for kind, p in sorted(by_kind.items()))
    return f"holds files that are no scan and are left out: {', '.join(parts)}"


def _header(root: Path, relative: PurePosixPath, issues: Issues) -> _Header | None:
    path = root / relative
    if os.path.getsize(path) == 0:
        issues.error(path, "is empty (0 bytes)", "Copy it again or remove it")
        return None
    try:
        values = header_of(path, _TAGS)
    except InputError as error:
        issues.error(path, error.problem, error.remedy)
        return None
    except Exception as error:  # pydicom raises many kinds; their text may quote the patient
        problem = f"is no readable DICOM file ({type(error).__name__})"
        issues.error(path, problem, "Export it again or remove it")
        return None
    modality, frames = values["Modality"], values["NumberOfFrames"]
    many = frames.isdecimal() and int(frames) > 1
    position = values["ImagePositionPatient"]
    aside = kind = ""
    if modality in NO_IMAGES or not values["Rows"]:
        kind = modality if modality in NO_IMAGES else "DICOM object without an image"
    elif "LOCALIZER" in values["ImageType"].upper():
        aside = "localizer"
    elif values["SOPClassUID"].startswith(CAPTURE) and not position:
        aside = "secondary capture"
    return _Header(
        path,
        instance=values["SOPInstanceUID"] or relative.as_posix(),
        series=values["SeriesInstanceUID"] or relative.parent.as_posix(),
        study=values["StudyInstanceUID"],
        patient=values["PatientID"] or values["StudyInstanceUID"],
        is_slice=not many and (bool(position) or modality in SLICES),
        many=many,
        position=position,
        aside=aside,
        kind=kind,
        raw=_RAW.get(values["PresentationIntentType"].upper()),
    )


def _case(identity: str, members: list[_Header]) -> Case:
    paths = tuple(header.path for header in members)
    several = len(paths) > 1
    patient = members[0].patient
    return Case(
        name=f"{'series' if several else 'image'}-{short_hash(identity)}",
        images=(Path(os.path.commonpath([p.parent for p in paths])),) if several else paths,
        group=short_hash(patient_key(patient)) if patient else "",
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
