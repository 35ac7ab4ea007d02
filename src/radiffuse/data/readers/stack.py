"""DICOM frames in space: their order along the slice normal, and the affine of their volume.

DICOM PS3.3, C.7.6.2.1.1: the position of a frame is the center of its first pixel, its orientation
the direction of rows and columns, in LPS millimeters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..issues import some
from .geometry import affine_from_axes

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of direction cosines within a series: 0.06 degrees; headers round."""
TILT_TOLERANCE = 0.005
"""Largest sideways drift per slice, as a fraction of the gap: 0.3 degrees of gantry tilt."""

PACKAGE_TOLERANCE = 0.05
"""Largest difference, as a fraction of the gap, from the spacing or thickness that slices of one volume state."""

PARTED = "Convert the series to NIfTI with dcm2niix, which parts it"
"""What helps with several volumes under one SeriesInstanceUID, which folders do not part in a tree."""

KINDS = {
    "EchoNumbers": "(0018,0086)",
    "EchoTime": "(0018,0081)",
    "TemporalPositionIdentifier": "(0020,0100)",
    "DiffusionBValue": "(0018,9087)",
    "ImageType": "(0008,0008)",
    "AcquisitionNumber": "(0020,0012)",
}
"""Elements that tell volumes of one series apart; acquisitions may also be blocks of one volume, side by side, or
packages of it, whose slices lie between one another."""


@dataclass(frozen=True)
class Frame:
    """One plane: its geometry, None where not given, and the rescale of its values.

    Attributes:
        position: Center of the first pixel, LPS, mm.
        orientation: Direction along a row, then along a column.
        spacing: Millimeters between rows, then between columns.
        rescaled: Whether the file states slope and intercept.
        kinds: The values of ``KINDS``, '' where not given; () for none of them.
        thickness: Of the slice, in mm.
        between: Millimeters from the center of a slice to that of the next, as the scanner states it.
    """

    path: Path
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    slope: float
    intercept: float
    rescaled: bool
    kinds: tuple[str, ...] = ()
    thickness: float | None = None
    between: float | None = None


@dataclass(frozen=True)
class Stack:
    """How frames lie in their volume.

    Attributes:
        order: Indices of the frames from first to last.
        affine: ``(4, 4)``, ``(columns, rows, slices)`` to RAS+, mm.
        spacing: Of columns, rows and slices, mm.
        note: What was taken for one volume although it may be several, for ``check`` to say; or ''.
    """

    order: list[int]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    note: str = ""


def stack(where: Path | str, frames: Sequence[Frame]) -> Stack:
    """Sort two or more frames along the slice normal; errors of the whole series name ``where``.

    Raises:
        InputError: Frames lack geometry, differ in orientation or spacing, or share a place; slices of several
            volumes are mixed, missing or unevenly spaced; the gantry is tilted.
    """
    row, column, spacing = _common_plane(where, frames)
    normal = np.cross(row, column)
    positions = np.array([frame.position for frame in frames], np.float64)
    heights = positions @ normal
    order = [int(index) for index in np.argsort(heights, kind="stable")]
    note = _refuse_mixed(where, frames, heights)
    gap = _even_gap([frames[index] for index in order], where, heights[order])
    step = (positions[order[-1]] - positions[order[0]]) / (len(frames) - 1)
    drift = float(np.linalg.norm(step - (step @ normal) * normal))
    steps = np.diff(positions[order], axis=0)
    jitter = float(np.linalg.norm(steps - (steps @ normal)[:, None] * normal, axis=1).max())
    if drift > max(TILT_TOLERANCE * gap, 1e-3) or jitter > _allowed(gap):
        degrees = np.degrees(np.arctan2(max(drift, jitter), gap))
        problem = f"has slices that shift sideways ({degrees:.1f} degrees, a tilted gantry)"
        raise InputError(where, problem, "Resample the series to an upright volume first")
    axes = np.column_stack([row * spacing[1], column * spacing[0], gap * normal])
    affine = affine_from_axes(axes, positions[order[0]])
    return Stack(order, affine, (spacing[1], spacing[0], gap), note)


def _common_plane(
    where: Path | str, frames: Sequence[Frame]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, ...]]:
    """Directions of row and column, and (row, column) spacing, that all frames share."""
    first = frames[0]
    for frame in frames:
        if frame.position is None or frame.orientation is None or frame.spacing is None:
            alone = all(each.path == first.path for each in frames)
            problem = "has frames without a place in space (a film sequence, or stripped headers)"
            remedy = "Save each frame as a film, or convert it to NIfTI"
            raise InputError(where if alone else frame.path, problem, remedy)
    usual = _usual(frames)
    for frame in frames:
        if not _close(frame.orientation, usual.orientation, DIRECTION_TOLERANCE):
            if all(each.path == first.path for each in frames):
                problem = "has frames of several orientations (stacks)"
                raise InputError(
                    where, problem, "Convert it to NIfTI with dcm2niix, which parts it"
                )
            problem = "has another orientation than the rest of its series"
            raise InputError(frame.path, problem, "Leave scout images and other planes out")
        if not _close(frame.spacing, usual.spacing, 1e-3 * max(usual.spacing or (1.0,))):
            problem = "has another pixel spacing than the rest of its series"
            raise InputError(frame.path, problem, PARTED)
    spacing = first.spacing or ()
    axes = np.asarray(first.orientation, np.float64).reshape(2, 3)
    lengths = np.array([np.linalg.norm(axis) for axis in axes])
    if min(spacing) <= 0 or (abs(lengths - 1) > 0.01).any():
        raise InputError(where, "has a damaged pixel spacing or orientation", "Export it again")
    row, column = axes / lengths[:, None]
    if abs(float(row @ column)) > 1e-3:
        raise InputError(
            where, "has rows that are not at right angles to columns", "Export it again"
        )
    return row, column, spacing


def _usual(frames: Sequence[Frame]) -> Frame:
    """The first that lies as most of them do: a scout, which often comes first, is not what all others differ from."""
    lies = [
        tuple(round(value, 2) for value in (*(frame.orientation or ()), *(frame.spacing or ())))
        for frame in frames
    ]
    return frames[lies.index(Counter(lies).most_common(1)[0][0])]


def _allowed(gap: float) -> float:
    """Largest deviation of a slice gap, in mm: 0.1 mm or 2 % of it, whichever is more."""
    return max(0.1, 0.02 * gap)


def _close(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    return bool(np.allclose(np.asarray(a), np.asarray(b), rtol=0, atol=tolerance))


def _refuse_mixed(where: Path | str, frames: Sequence[Frame], heights: NDArray[np.float64]) -> str:
    """Refuse slices of several volumes that lie between one another, by the element that tells them apart.

    They may be evenly spaced, and would be read as one volume of twice the slices. Returns a line on acquisitions that
    are packages of one volume, or ''.
    """
    for number, (name, tag) in enumerate(KINDS.items()):
        groups: dict[str, list[float]] = defaultdict(list)
        for frame, height in zip(frames, heights, strict=True):
            groups[frame.kinds[number] if frame.kinds else ""].append(float(height))
        whole = sorted((min(h), max(h)) for h in groups.values() if len(h) > 1)
        if not any(last >= first - 1e-3 for (_, last), (first, _) in pairwise(whole)):
            continue
        found = some([f"{len(h)} of {value or 'none'}" for value, h in sorted(groups.items())])
        problem = f"mixes slices of several volumes, which {name} {tag} tells apart: {found}"
        remedy = "Keep the files of one value and remove the others, or convert the series to NIfTI with dcm2niix"
        if name == "AcquisitionNumber":
            fits, why = _fit_as_packages(frames, np.sort(heights))
            if fits:
                place = f"lie between one another ({name} {tag}: {found})"
                return f"has acquisitions that {place} and are stacked as one volume: {why}"
            problem += f" ({why})" if why else ""
        raise InputError(where, problem, remedy)
    return ""


def _fit_as_packages(frames: Sequence[Frame], heights: NDArray[np.float64]) -> tuple[bool, str]:
    """Whether acquisitions that lie between one another are packages of one volume, and what says so or not.

    Packages lie on one even grid, slices of which may be missing. Its step is the stated distance of slices, or where
    none is stated no less than their thickness. Two volumes half a slice apart state the distance within each, and
    overlap. ``heights`` are sorted.
    """
    gaps = np.diff(heights)
    gap = float(np.median(gaps))
    if gaps.min() < 1e-3 or np.abs(gaps - np.rint(gaps / gap) * gap).max() > _allowed(gap):
        return False, ""
    name, stated = "SpacingBetweenSlices", [frame.between or 0.0 for frame in frames]
    if not any(stated):
        name, stated = "SliceThickness", [frame.thickness or 0.0 for frame in frames]
    if not any(stated):
        return False, "neither SpacingBetweenSlices nor SliceThickness says whether they are one"
    least = (1 - PACKAGE_TOLERANCE) * gap if name == "SpacingBetweenSlices" else 1e-3
    fits = least <= min(stated) and max(stated) <= (1 + PACKAGE_TOLERANCE) * gap
    return fits, f"together they lie {gap:.3g} mm apart, and {name} is {max(stated):.3g} mm"


def _apart(frames: Sequence[Frame]) -> str:
    """The first element whose value differs between two frames, in parentheses, or ''."""
    for name, *values in zip(KINDS, *(frame.kinds for frame in frames), strict=False):
        if len({*values}) > 1:
            return f" ({name} {' and '.join(value or 'none' for value in values)})"
    return ""


def _even_gap(frames: Sequence[Frame], where: Path | str, heights: NDArray[np.float64]) -> float:
    """The distance between slices, in mm; ``heights`` are sorted, ``frames`` in the same order."""
    paths = [frame.path for frame in frames]
    gaps = np.diff(heights)
    lowest = int(np.argmin(gaps))
    if gaps[lowest] < 1e-3:
        first, second = paths[lowest : lowest + 2]
        name = first.name if first.parent == second.parent else first
        problem = f"lies in the same place as {name}"
        if first == second:
            problem = "has two frames in the same place"
        problem += _apart(frames[lowest : lowest + 2])
        remedy = f"{PARTED} by time point or echo, and leave copies out"
        raise InputError(second, problem, remedy)
    usual = float(np.median(gaps))
    widest = int(np.argmax(gaps))
    if np.abs(gaps - usual).max() <= _allowed(usual):
        return float((heights[-1] - heights[0]) / len(gaps))
    if gaps[widest] > 1.5 * usual and not _changes(gaps / usual):
        missing = max(1, round(gaps[widest] / usual) - 1)
        slices = f"{missing} slice{'s' if missing > 1 else ''}"
        problem = f"lacks about {slices} between {paths[widest].name} and {paths[widest + 1].name}"
        raise InputError(where, problem, "Copy the missing files, or leave the series out")
    problem = f"has uneven slices, {gaps.min():.3g} to {gaps.max():.3g} mm apart"
    raise InputError(where, problem, f"{PARTED}, or resample it to even slices")


def _changes(steps: NDArray[np.float64]) -> bool:
    """Whether gaps, in steps of the usual one, are those of another spacing rather than of missing slices.

    Where slices are missing, a gap has a whole number of steps, and seldom three neighbors have more than one.
    """
    wide = steps > 1.5
    row = bool((wide[:-2] & wide[1:-1] & wide[2:]).any())
    return row or float(np.abs(steps - np.rint(steps)).max()) > 0.2
