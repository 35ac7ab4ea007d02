"""What is done to a mask after the network: nothing, the largest piece of each class, or a published recipe."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..data.scan import Array

SECOND_COUNTS = 0.75
"""A second piece this large, as a share of the largest, is weighed by depth instead (Marzola et al. 2021)."""


def postprocess(mask: Array, kind: Literal["none", "largest", "muscle-ultrasound"]) -> Array:
    """Apply what the plan names.

    Args:
        mask: ``(*spatial)`` labels.
        kind: See ``config.PlanSettings``.
    """
    if kind == "largest":
        return largest_pieces(mask)
    return muscle_ultrasound(mask) if kind == "muscle-ultrasound" else mask


def largest_pieces(mask: Array) -> Array:
    """The largest connected piece of each class; pieces touch by sides, edges or corners."""
    from scipy import ndimage

    result = np.zeros_like(mask)
    for value in np.unique(mask[mask > 0]):
        pieces, count = ndimage.label(mask == value, np.ones((3,) * mask.ndim, bool))
        if count:
            result[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1] = value
    return result


def muscle_ultrasound(mask: Array) -> Array:
    """One smooth muscle without holes, of a transverse ultrasound image with the skin at the top.

    Marzola et al. 2021 (doi 10.1016/j.compbiomed.2021.104623), as Fu et al. 2023 use it: fill holes; erode by 5 x 5,
    dilate by an octagon of 9, open by one of 19; keep the largest piece, or of two alike the more superficial one; fill
    holes. The released code takes the leftmost for the most superficial; here it is the topmost, as the article says.

    Args:
        mask: ``(rows, columns)``, 0 or 1.
    """
    from scipy import ndimage

    found = ndimage.binary_fill_holes(mask > 0)
    # Outside the image is neither muscle nor background.
    found = ndimage.binary_erosion(found, np.ones((5, 5), bool), border_value=1)
    found = ndimage.binary_dilation(found, octagon(9, 2))
    found = ndimage.binary_erosion(found, octagon(19, 4), border_value=1)
    found = ndimage.binary_dilation(found, octagon(19, 4))
    pieces, count = ndimage.label(found, np.ones((3, 3), bool))
    if count > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        second, first = np.argsort(sizes, kind="stable")[-2:] + 1
        tops = {piece: int(np.nonzero(pieces == piece)[0].min()) for piece in (first, second)}
        alike = sizes[second - 1] > SECOND_COUNTS * sizes[first - 1]
        chosen = second if alike and tops[second] < tops[first] else first
        found = pieces == chosen
    return ndimage.binary_fill_holes(found).astype(mask.dtype)


def octagon(side: int, cut: int) -> Array:
    """A square of odd side whose corners are cut off by so many pixels: MATLAB's disk of 5 is (9, 2), of 10 (19, 4)."""
    reach = side // 2
    offset = np.abs(np.arange(side) - reach)
    return offset[:, None] + offset[None] <= 2 * reach - cut
