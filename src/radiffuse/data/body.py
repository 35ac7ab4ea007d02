"""Where the body is in a scan, or its content."""

from __future__ import annotations

import numpy as np

from ..config import IGNORE
from .scan import Array

BODY_HU = -500.0
"""Denser voxels are body, table or clothes [related: vox2vec]."""
NOT_DARK = -0.98
"""Without HU, voxels above this, of [-1, 1], count as the body."""
BODY_GRID = 96
"""Voxels along an axis, about, of the grid on which the body is searched."""
PIECE = 0.05
"""Pieces of at least this share of the largest belong to the body: a second leg, an arm [ours]."""

Box = tuple[slice, ...]
"""First and last + 1 along each axis."""


def content_box(array: Array, crop: str, upward: int = -1) -> Box | None:
    """The box to which ``(C, *spatial)`` is cropped, see ``Plan.crop``; None where nothing is found.

    ``upward`` is the spatial axis of a volume across its axial planes.
    """
    return _body(array[0], upward) if crop == "body" else around((array != 0).any(0))


def _body(array: Array, upward: int) -> Box | None:
    """The box of large pieces above ``BODY_HU``, without what is thin in axial planes: table, tubes."""
    from scipy import ndimage

    steps = [max(1, n // BODY_GRID) for n in array.shape]
    dense = array[tuple(slice(None, None, step) for step in steps)] > BODY_HU
    plane = ndimage.generate_binary_structure(array.ndim, 1)
    if array.ndim == 3:
        np.moveaxis(plane, upward, -1)[..., [0, 2]] = False
    # Outside the scan, whose edge may cut the body, everything counts as body.
    eroded = ndimage.binary_erosion(dense, plane, border_value=1)
    pieces, count = ndimage.label(ndimage.binary_dilation(eroded, plane) & dense)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    found = around((sizes >= PIECE * sizes.max())[pieces])
    assert found is not None
    return tuple(
        # The body ends anywhere between the outermost voxel of the grid in it and the next one.
        slice(max(0, (side.start - 1) * step + 1), min(n, side.stop * step))
        for side, step, n in zip(found, steps, array.shape, strict=True)
    )


def around(content: Array) -> Box | None:
    """The box of true values."""
    from scipy import ndimage

    found: list[Box] = ndimage.find_objects(content.astype(np.int8))
    return found[0] if found else None


def boxes(label: Array) -> dict[int, Box]:
    """The box around each class of a label map, values 1 to 254 in their order, in one pass."""
    from scipy import ndimage

    found = ndimage.find_objects(label, IGNORE - 1)
    return {value: box for value, box in enumerate(found, start=1) if box}
