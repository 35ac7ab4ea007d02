"""What of an image is looked at: the box around its content."""

from __future__ import annotations

import numpy as np

from .scan import Array

BODY_HU = -500.0
"""What is denser belongs to the body, the table or clothes [related: vox2vec]."""
BODY_GRID = 96
"""The body is looked for on every n-th voxel, so that about so many remain along an axis."""
PIECE = 0.05
"""Pieces of at least this share of the largest belong to the body: a second leg, an arm [ours]."""

Box = tuple[tuple[int, int], ...]


def content_box(array: Array, crop: str) -> Box | None:
    """The box of what is looked at.

    Args:
        array: ``(C, *spatial)``, axes in the order of the plan.
        crop: ``nonzero``: pixels that are not 0 in all channels; ``body``: what is denser than air, of a CT
            in HU, but for small and thin pieces.

    Returns:
        First and last + 1 pixel along each axis; None where there is nothing to be found.
    """
    return _body(array[0]) if crop == "body" else _around((array != 0).any(0))


def _body(array: Array) -> Box | None:
    """The box of the large pieces above ``BODY_HU``, once what is thin in axial planes is gone: table, tubes."""
    from scipy import ndimage

    steps = [max(1, n // BODY_GRID) for n in array.shape]
    dense = array[tuple(slice(None, None, step) for step in steps)] > BODY_HU
    plane = ndimage.generate_binary_structure(array.ndim, 1)
    if array.ndim == 3:
        plane[..., [0, 2]] = False
    eroded = ndimage.binary_erosion(
        dense, plane, border_value=1
    )  # the edge of the scan cuts the body
    pieces, count = ndimage.label(ndimage.binary_dilation(eroded, plane) & dense)
    if not count:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    found = _around((sizes >= PIECE * sizes.max())[pieces])
    assert found is not None
    return tuple(
        # Between the outermost voxels seen in it and the next ones seen outside, the body may end anywhere.
        (max(0, (first - 1) * step + 1), min(n, last * step))
        for (first, last), step, n in zip(found, steps, array.shape, strict=True)
    )


def _around(content: Array) -> Box | None:
    if not content.any():
        return None
    box = []
    for axis in range(content.ndim):
        others = tuple(a for a in range(content.ndim) if a != axis)
        places = np.flatnonzero(content.any(others))
        box.append((int(places[0]), int(places[-1]) + 1))
    return tuple(box)
