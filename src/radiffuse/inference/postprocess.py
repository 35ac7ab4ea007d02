"""Postprocessing of masks: the steps that the plan names, applied to each class separately."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..data.components import pieces_of
from ..data.scan import Array
from ..data.steps import split_step


def postprocess(mask: Array, steps: Sequence[str], spacing: Sequence[float] | None = None) -> Array:
    """Apply the steps to each class of ``(*spatial)`` labels; where classes then overlap, the higher label wins.

    ``spacing`` is in mm; None: volumes are counted in pixels.
    """
    todo = [split_step(step) for step in steps if step != "none"]
    if not todo:
        return mask
    result = np.zeros_like(mask)
    for value in np.unique(mask[mask > 0]):
        region = mask == value
        for wanted, name, numbers in todo:
            if wanted in (None, value):
                if name == "drop":
                    numbers = [numbers[0] / math.prod(spacing or (1.0,))]
                elif name == "islands":
                    numbers = [numbers[0] * mask.size]
                region = STEPS[name](region, *numbers)
        result[region] = value
    return result


def structure(dims: int, side: float, cut: float = 0) -> Array:
    """A square or cube of odd side, its corners cut off: in 2D MATLAB's disk of 5 is (9, 2), that of 10 (19, 4)."""
    reach = int(side) // 2
    corner = np.abs(np.indices((2 * reach + 1,) * dims) - reach).sum(0)
    inside: Array = corner <= dims * reach - cut
    return inside


# ------------------------------------------------------------------------------------------------ internal


def _keep(region: Array, count: float = 1) -> Array:
    """The largest pieces."""
    pieces, sizes = pieces_of(region)
    kept: Array = np.isin(pieces, np.argsort(-sizes, kind="stable")[: int(count)] + 1)
    return kept


def _drop(region: Array, voxels: float) -> Array:
    """Pieces of at least so many voxels."""
    pieces, sizes = pieces_of(region)
    kept: Array = np.isin(pieces, np.nonzero(sizes >= voxels)[0] + 1)
    return kept


def _topmost(region: Array, alike: float) -> Array:
    """The largest piece, or the second where it is more than ``alike`` times as large and begins nearer to the top."""
    pieces, sizes = pieces_of(region)
    if len(sizes) < 2:
        return region
    second, first = np.argsort(sizes, kind="stable")[-2:] + 1
    tops = {piece: int(np.nonzero(pieces == piece)[0].min()) for piece in (first, second)}
    higher = sizes[second - 1] > alike * sizes[first - 1] and tops[second] < tops[first]
    chosen: Array = pieces == (second if higher else first)
    return chosen


def _fill(region: Array) -> Array:
    from scipy import ndimage

    filled: Array = ndimage.binary_fill_holes(region)
    return filled


def _erode(region: Array, *size: float) -> Array:
    """Outside the image is neither mask nor background."""
    from scipy import ndimage

    eroded: Array = ndimage.binary_erosion(region, structure(region.ndim, *size), border_value=1)
    return eroded


def _dilate(region: Array, *size: float) -> Array:
    from scipy import ndimage

    dilated: Array = ndimage.binary_dilation(region, structure(region.ndim, *size))
    return dilated


def _open(region: Array, *size: float) -> Array:
    return _dilate(_erode(region, *size), *size)


STEPS: Mapping[str, Callable[..., Array]] = {
    "largest": _keep,
    "keep": _keep,
    "drop": _drop,
    "islands": _drop,
    "topmost": _topmost,
    "fill": _fill,
    "erode": _erode,
    "dilate": _dilate,
    "open": _open,
}
"""By the name of the step; it takes the region of a class, and numbers."""
