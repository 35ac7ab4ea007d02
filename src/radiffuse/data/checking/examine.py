"""The check of one case by itself. Runs in worker processes, without torch."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...config import IGNORE
from ...errors import InputError
from ..cases import label_place, read_case_image, read_case_label
from ..dataset import Case
from ..issues import Issue, Issues, some
from ..layouts.doubts import holds_few
from ..readers import Header, count_non_finite, inspect
from ..scan import Scan, canonical_shape, canonical_spacing, on_grid

SKEW_TOLERANCE = 1.0
"""Degrees off a right angle from which the axes of a volume are reported as skewed."""
_LEAVE_OUT = "Replace it or leave it out (--skip-bad)"


@dataclass(frozen=True)
class CaseRecord:
    """What the check finds about one case.

    Attributes:
        name: Of the case.
        issues: Its faults.
        spatial_shape: Voxels along each axis, of volumes (right, anterior, superior), whatever the order in the file;
            () where the image cannot be read.
        channels: As read; as stored where pixels were not decoded.
        spacing: Millimeters per voxel along the same axes, or None.
        unit: ``"HU"`` or ``"gray"``.
        intensity: Lowest, mean and highest value; None where pixels were not decoded.
        digest: Hash of pixels and shape (of the files' bytes where pixels were not decoded), '' for
            unreadable and constant images.
        label_counts: Voxels by label value; {} without a label or where it was not decoded.
        few: Its values are as few as those of a mask.
        as_color: Whether it is a gray film that was stored as RGB, of whose channels one is read.
    """

    name: str
    issues: tuple[Issue, ...] = ()
    spatial_shape: tuple[int, ...] = ()
    channels: int = 0
    spacing: tuple[float, ...] | None = None
    unit: str = "gray"
    intensity: tuple[float, float, float] | None = None
    digest: str = ""
    label_counts: dict[int, int] = field(default_factory=dict)
    few: bool = False
    as_color: bool = False


def examine(case: Case, classes: Sequence[str], decode: bool) -> CaseRecord:
    """Look at one case; never raises.

    ``classes`` are the declared names by label value; without ``decode`` only headers are read.
    """
    issues = Issues()
    where = label_place(case)
    try:
        scan, record = _decoded(case, issues) if decode else _header_only(case)
    except Exception as error:  # one bad file must not hide others
        _add(issues, error, (case.series or case.images)[0])
        if case.label is not None and case.label_item is None:
            try:  # the label of an unreadable image
                inspect(case.label_files[0])
            except Exception as label_error:
                _add(issues, label_error, case.label_files[0])
        return CaseRecord(case.name, tuple(issues))
    _look_at_axes(scan, case.images[0], issues)
    if scan.note:
        files = f" ({len(case.series)} files from {case.series[0].name})" if case.series else ""
        issues.warning(
            f"{case.images[0]}{files}", scan.note, "Part them if they are volumes of their own"
        )
    counts: dict[int, int] = {}
    if case.label is not None:
        try:
            counts = _look_at_label(case, scan, classes, decode, issues, where)
        except Exception as error:
            _add(issues, error, where)
    return replace(record, issues=tuple(issues), label_counts=counts)


def _add(issues: Issues, error: Exception, where: Path | str) -> None:
    if isinstance(error, InputError):
        issues.error(error.where, error.problem, error.remedy)
    elif isinstance(error, MemoryError):
        issues.error(where, "does not fit into memory", "Crop or resample it")
    else:  # the text of a decoder's error may quote the patient
        issues.error(where, f"cannot be read ({type(error).__name__})", _LEAVE_OUT)


def _look_at_axes(scan: Scan, where: Path, issues: Issues) -> None:
    """Warn if a volume has voxels of unknown size, or axes not at right angles, as from a tilted gantry."""
    if scan.spatial_dims != 3:
        return
    if scan.spacing is None:
        problem = "does not say how large its voxels are"
        issues.warning(where, problem, "Each is taken for 1 mm; write the sizes into the file")
    if scan.affine is None:
        return
    axes = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    degrees = np.degrees(np.arcsin(min(1.0, cosine)))
    if degrees >= SKEW_TOLERANCE:
        problem = f"has axes that are {degrees:.1f} degrees off a right angle (a tilted gantry)"
        remedy = "It is used as if they were upright, and masks fit it; resample it for true shapes"
        issues.warning(where, problem, remedy)


def _header_only(case: Case) -> tuple[Scan, CaseRecord]:
    several = case.file_channels if len(case.images) == 1 else 1
    headers = [inspect(path, case.series, several) for path in case.images]
    first = headers[0]
    digest = hashlib.blake2b(digest_size=16)
    for path in case.series or case.images:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    record = CaseRecord(
        case.name,
        **_extent(scan := _sized(first)),
        channels=sum(header.channels for header in headers),
        unit=first.unit,
        digest=digest.hexdigest(),
    )
    return scan, record


def _sized(header: Header) -> Scan:
    """A scan with the header's geometry that takes no memory."""
    empty = np.broadcast_to(np.uint8(0), (1, *header.spatial_shape))
    return header.scan(empty)


def _extent(scan: Scan) -> dict[str, Any]:
    """``spatial_shape`` and ``spacing`` of a record."""
    spacing = None if scan.spacing is None else canonical_spacing(scan)
    return {"spatial_shape": canonical_shape(scan), "spacing": spacing}


def _decoded(case: Case, issues: Issues) -> tuple[Scan, CaseRecord]:
    scan = read_case_image(case)
    found = problems(scan)
    for problem in found:
        issues.error(case.images[0], problem, _LEAVE_OUT)
    pixels = np.ascontiguousarray(scan.array)
    digest = hashlib.blake2b(f"{pixels.dtype}{pixels.shape}".encode(), digest_size=16)
    digest.update(pixels.data)
    ends = float(pixels.min()), float(pixels.mean(dtype=np.float64)), float(pixels.max())
    record = CaseRecord(
        case.name,
        **_extent(scan),
        channels=int(pixels.shape[0]),
        unit=scan.unit,
        intensity=ends if np.isfinite(ends[0] + ends[2]) else None,
        digest="" if found else digest.hexdigest(),
        few=holds_few(pixels),
        as_color=scan.as_color,
    )
    return scan, record


def problems(scan: Scan) -> list[str]:
    """Reasons why an image is useless for training; not for label maps, which may be constant."""
    found = []
    count = count_non_finite(scan.array)
    if count:
        found.append(f"has {count:,} of {scan.array.size:,} values that are not finite numbers")
    if math.prod(scan.spatial_shape) == 1:
        found.append("is a single pixel")
    elif not count and scan.array.size:
        for channel, values in enumerate(scan.array):
            if np.min(values) == np.max(values):
                name = f"channel {channel} is" if len(scan.array) > 1 else "is"
                found.append(f"{name} constant: every value is {values.flat[0]:g}")
    return found


def _look_at_label(
    case: Case, scan: Scan, classes: Sequence[str], decode: bool, issues: Issues, where: str
) -> dict[int, int]:
    """Compare a label map with its image and the declared classes; returns voxels by value."""
    if not decode and case.label_item is not None:
        return {}
    label = read_case_label(case) if decode else _sized(inspect(case.label_files[0]))
    with issues.collected():
        on_grid(label, scan, where, case.images[0].name)
        if label.guessed and scan.placed:
            problem = "does not say where it lies (sform_code and qform_code are 0), and is taken to lie as its image"
            remedy = "Make sure that it does, and save it with the affine of the image"
            issues.warning(where, problem, remedy)
    return _look_at_values(label, classes, issues, where) if decode else {}


def _look_at_values(
    label: Scan, classes: Sequence[str], issues: Issues, where: str
) -> dict[int, int]:
    values, numbers = np.unique(label.array, return_counts=True)
    counts = {int(v): int(n) for v, n in zip(values, numbers, strict=True)}
    legal = range(len(classes)) if classes else range(IGNORE)
    strange = [value for value in counts if value not in legal and value != IGNORE]
    if strange:
        voxels = sum(counts[value] for value in strange)
        shown = some([str(value) for value in strange])
        problem = f"has label values outside the classes ({shown}; {voxels:,} voxels)"
        known = f"0 to {len(classes) - 1} are declared" if classes else "0 to 254 are possible"
        remedy = f"{known}, 255 is ignored; correct one of the two"
        if not classes and min(strange) > 0:
            every = ",".join(map(str, sorted({0, *counts} - {IGNORE})))
            remedy = f"{known}, 255 is ignored; if these are classes, name all values, as in --label-values {every}"
        if set(counts) == {0, *strange} and (most := strange[0]) > 0 and len(strange) == 1:
            remedy = f"{known}; if {most} is the foreground, say --label-threshold {most}"
        issues.error(where, problem, remedy)
    if set(counts) == {IGNORE}:
        issues.warning(where, "is to be ignored everywhere", "Leave the label out")
    elif set(counts) <= {0, IGNORE}:
        rest = f" but for {IGNORE}, which is ignored" if IGNORE in counts else ""
        issues.warning(where, f"is all background{rest}", "Make sure that nothing is missing")
    return counts


def died(case: Case) -> CaseRecord:
    """The record of a case whose reading killed the process."""
    path = (case.series or case.images)[0]
    size = os.path.getsize(path) if path.exists() else 0
    problem = f"ended the process that read it ({size:,} bytes on disk)"
    remedy = "It is damaged, or needs more memory than there is: export it again or leave it out"
    return CaseRecord(case.name, (Issue("error", str(path), problem, remedy),))
