"""What one case says: its shape, where its body is, and how large, thick and bright its structures are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..config import IGNORE
from .body import BODY_GRID, BODY_HU, NOT_DARK, Box, around, boxes, content_box
from .components import pieces_of
from .scan import Array, Scan, canonical_shape, canonical_spacing, orientation

SAMPLES = 10_000
"""Most voxels of the body, and of each class, whose values are kept per case [related: nnU-Net]."""


@dataclass(frozen=True)
class Structure:
    """A class in one case.

    Attributes:
        voxels: Their number.
        volume: In mm^3; of films in mm^2; in voxels where the spacing is unknown.
        components: Pieces; what touches by sides, edges or corners is one.
        thickness: See ``thickness``, in mm or voxels.
        values: ``(C, N)``, a sample of its values.
        side: How far its center is from the middle of the body toward the right of a volume, or the last column of a
            film, as a fraction of the body's width, about -.5 to .5.
        smallest: Volume of its smallest piece.
        smallest_share: The part of the image's voxels that this piece has.
    """

    voxels: int
    volume: float
    components: int
    thickness: float
    values: Array
    side: float = 0.0
    smallest: float = 0.0
    smallest_share: float = 0.0


@dataclass(frozen=True)
class CaseFacts:
    """One decoded case.

    Attributes:
        shape: Voxels along (right, anterior, superior); of films (rows, columns).
        spacing: In mm along the same axes; None where unknown.
        body: Voxels that the body spans along the same axes.
        ct: Whether the values are HU, those of the first channel.
        mixed: Whether it is CT and has channels that are none, such as PET.
        values: ``(C, N)``, a sample of the values inside the body.
        counted: Voxels that are labelled and not ignored.
        structures: By label value, background left out.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    body: tuple[int, ...]
    ct: bool
    mixed: bool
    values: Array
    counted: int
    structures: Mapping[int, Structure]


def measure_case(scan: Scan, label: Scan | None) -> CaseFacts:
    """Measure a case; a ``label`` of another shape than the scan counts as none."""
    first = scan.array[0]
    hu = [scan.unit == "HU" or _like_ct(channel) for channel in scan.array]
    ct = hu[0]
    array = scan.array
    if ct:
        box = content_box(array, "body", orientation(scan)[0][-1])
        array, inside = _filled(scan)
    else:
        low, high = np.percentile(first, (0.5, 99.5))
        inside = first > low + (NOT_DARK + 1) / 2 * (high - low)
        box = around(inside)
    extent = scan.spatial_shape if box is None else tuple(s.stop - s.start for s in box)
    known = scan.spacing is not None
    structures, counted = {}, 0
    if label is not None and label.spatial_shape == scan.spatial_shape:
        mask = label.array[0]
        counted = int((mask != IGNORE).sum())
        step = np.asarray(scan.spacing or (1.0,) * scan.spatial_dims)
        width = _width(scan, box)
        structures = {
            value: _structure(mask, value, box, scan.array, step, width)
            for value, box in boxes(mask).items()
        }
    return CaseFacts(
        canonical_shape(scan),
        canonical_spacing(scan) if known else None,
        tuple(extent[axis] for axis in orientation(scan)[0]),
        ct,
        ct and not all(hu),
        _sample(array, inside if inside.any() else np.ones_like(inside)),
        counted,
        structures,
    )


def thickness(mask: Array, step: Array) -> float:
    """How thick a mask ``(*S)`` is: the median over its voxels of the shortest run through each along an axis.

    Exact for boxes along the axes, and the wall's of a hollow one; ``step`` is the extent of a voxel.
    """
    shortest = np.full(mask.shape, np.inf)
    for axis in range(mask.ndim):
        lines = np.moveaxis(mask, axis, -1)
        edges = np.diff(np.pad(lines, [(0, 0)] * (mask.ndim - 1) + [(1, 1)]).astype(np.int8))
        lengths = np.nonzero(edges < 0)[-1] - np.nonzero(edges > 0)[-1]
        runs = np.full(lines.shape, np.inf)
        runs[lines] = np.repeat(lengths, lengths) * step[axis]
        np.minimum(shortest, np.moveaxis(runs, -1, axis), out=shortest)
    return float(np.median(shortest[mask]))


# ------------------------------------------------------------------------------------------------ internal


def _like_ct(channel: Array) -> bool:
    """Whether a channel ``(*spatial)`` of no stated unit, as in NIfTI, is a volume of which 1 % or more is like air."""
    return channel.ndim == 3 and bool(np.percentile(channel, 1) < -500)


def _filled(scan: Scan) -> tuple[Array, Array]:
    """A coarser CT, and where it is body: dense, or enclosed by what is dense in an axial plane, as lungs are."""
    from scipy import ndimage

    steps = [max(1, n // BODY_GRID) for n in scan.spatial_shape]
    array = scan.array[(slice(None), *(slice(None, None, step) for step in steps))]
    planes = np.moveaxis(array[0] > BODY_HU, orientation(scan)[0][-1], 0)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in planes])
    return array, np.moveaxis(filled, 0, orientation(scan)[0][-1])


def _width(scan: Scan, body: Box | None) -> tuple[int, float, float]:
    """The axis from side to side, where its middle is, and how many voxels the body is wide; negative if reversed."""
    order, reversed_ = orientation(scan)
    axis = 1 if scan.spatial_dims == 2 else order[0]
    side = slice(0, scan.spatial_shape[axis]) if body is None else body[axis]
    sign = -1 if scan.spatial_dims == 3 and reversed_[0] else 1
    return axis, (side.start + side.stop - 1) / 2, sign * (side.stop - side.start)


def _structure(
    label: Array,
    value: int,
    box: Box,
    array: Array,
    step: Array,
    width: tuple[int, float, float],
) -> Structure:
    mask = label[box] == value
    voxels = int(mask.sum())
    pieces = pieces_of(mask)[1]
    values = _sample(array[(slice(None), *box)], mask)
    axis, middle, extent = width
    along = mask.sum(tuple(a for a in range(mask.ndim) if a != axis))
    center = box[axis].start + float(along @ np.arange(len(along))) / voxels
    voxel, smallest = float(step.prod()), int(pieces.min())
    return Structure(
        voxels,
        voxels * voxel,
        len(pieces),
        thickness(mask, step),
        values,
        (center - middle) / extent,
        smallest * voxel,
        smallest / label.size,
    )


def _sample(array: Array, mask: Array) -> Array:
    """Values ``(C, N)`` of evenly chosen voxels of a mask."""
    places = np.flatnonzero(mask)
    if len(places) > SAMPLES:
        places = places[np.linspace(0, len(places) - 1, SAMPLES).astype(np.int64)]
    return np.stack([channel.ravel()[places] for channel in array]).astype(np.float32)
