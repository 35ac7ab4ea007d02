"""The rule that finds the lungs among segments, [ours], fixed before any label was looked at.

Lungs are two large regions, darker than the rest of the body, side by side and roughly mirror images of each other;
neither covers much of the film's border.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..data.scan import Array

SMALLEST, LARGEST = 0.03, 0.4
"""Area of one lung, as a fraction of the film."""
MOST_BORDER = 0.25
"""Largest fraction of the film's border that a lung covers: the air around a body covers more."""


def name_lungs(regions: Array, film: Array) -> Array:
    """The two regions that look most like lungs: bool ``(rows, columns)``, all false where no two regions fit.

    Args:
        regions: ``(rows, columns)`` integers, one value per segment.
        film: ``(rows, columns)``, dark is low.
    """
    candidates = [region for region in _pieces(regions) if _possible(region)]
    middle = float(film.mean())
    std = float(film.std()) or 1.0
    best, chosen = 0.0, np.zeros(film.shape, bool)
    for i, first in enumerate(candidates):
        for second in candidates[i + 1 :]:
            darkness = (middle - float(film[first | second].mean())) / std
            score = _mirrored(first, second) * max(0.0, darkness) * _balance(first, second)
            if score > best:
                best, chosen = score, first | second
    return chosen


def _pieces(regions: Array) -> list[Array]:
    """Each segment's connected pieces, and its halves on either side of the film's middle."""
    pieces: list[Array] = []
    middle = regions.shape[1] // 2
    for value in np.unique(regions):
        segment = regions == value
        halves = [segment.copy(), segment.copy()]
        halves[0][:, middle:] = False
        halves[1][:, :middle] = False
        for mask in (segment, *halves):
            labels, count = ndimage.label(mask)
            pieces += [ndimage.binary_fill_holes(labels == n) for n in range(1, count + 1)]
    unique = {piece.tobytes(): piece for piece in pieces}
    return list(unique.values())


def _possible(region: Array) -> bool:
    border = np.concatenate([region[0], region[-1], region[:, 0], region[:, -1]])
    area = region.mean()
    return bool(SMALLEST <= area <= LARGEST and border.mean() <= MOST_BORDER)


def _mirrored(first: Array, second: Array) -> float:
    """Intersection over union of a region and the mirror image of the other; 0 if they are not side by side.

    The mirror axis lies midway between both centers.
    """
    centers = [np.array(ndimage.center_of_mass(r)) for r in (first, second)]
    width = first.shape[1]
    if abs(centers[0][1] - centers[1][1]) < 0.15 * width or (first & second).any():
        return 0.0
    axis = (centers[0][1] + centers[1][1]) / 2
    if abs(axis - (width - 1) / 2) > 0.15 * width:
        return 0.0
    mirror = (
        ndimage.shift(second[:, ::-1].astype(float), (0, 2 * axis - (width - 1)), order=0) > 0.5
    )
    return float((first & mirror).sum() / max(1, (first | mirror).sum()))


def _balance(first: Array, second: Array) -> float:
    small, large = sorted((float(first.sum()), float(second.sum())))
    return small / large
