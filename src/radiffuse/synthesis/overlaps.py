"""Names for segments by their overlap with label maps of other scans.

Overlaps are ``(k + 1, C)``: how much of each segment lies in each class, in any unit of volume. Segment 0 is what lies
outside the body and class 0 is the background; neither is ever named.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..config import IGNORE
from ..data.scan import Array
from ..data.streams import Stream

Overlap = NDArray[np.float64]
Names = NDArray[np.int64]
"""Class of every segment, ``(k + 1,)``; 0: none."""


def overlap_of(
    segments: Array, label: Array, count: int, classes: int, voxel: float = 1
) -> Overlap:
    """The overlaps of one scan, ``(count + 1, classes)``.

    Args:
        segments: 0 to ``count``.
        label: Of the same shape; classes from ``classes`` on and what is to be ignored are left out.
        count: k, the number of clusters.
        classes: C, with the background.
        voxel: Volume of a voxel.
    """
    counted = (label < classes) & (label != IGNORE)
    pairs = segments[counted].astype(np.int64) * classes + label[counted]
    found = np.bincount(pairs.ravel(), minlength=(count + 1) * classes)
    return voxel * found.reshape(count + 1, classes).astype(np.float64)


def name_by_overlap(overlap: Overlap, least: float = 0.0) -> Names:
    """The class of every segment: each class gets the set of segments that has the greatest Dice with it.

    That set is exact: it consists of the segments with the largest share of the class, down to half of the Dice that
    they reach (Lipton et al. 2014, arXiv 1402.1892, theorem 1). A segment in the sets of several classes goes to the
    one of which it holds most [ours].

    Args:
        overlap: See the module.
        least: Dice that a set has to exceed; a class without such a set gets no segment.
    """
    sizes, totals = overlap.sum(1), overlap.sum(0)
    claims = np.zeros_like(overlap)
    for value in range(1, overlap.shape[1]):
        held = overlap[1:, value]
        share = np.divide(held, sizes[1:], out=np.zeros_like(held), where=sizes[1:] > 0)
        order = np.argsort(-share, kind="stable")
        both = sizes[1:][order].cumsum() + totals[value]
        dice = np.divide(2 * held[order].cumsum(), both, out=np.zeros_like(both), where=both > 0)
        best = int(dice.argmax())
        if dice[best] > least:
            chosen = 1 + order[: best + 1]
            claims[chosen, value] = overlap[chosen, value]
    return np.where(claims.max(1) > 0, claims.argmax(1), 0)


def dice_of_names(overlap: Overlap, names: Names) -> NDArray[np.float64]:
    """Dice ``(C - 1,)`` of every class but the background; NaN where a class is neither there nor named."""
    dice = np.full(overlap.shape[1] - 1, np.nan)
    for value in range(1, overlap.shape[1]):
        mine = overlap[names == value]
        total = mine.sum() + overlap[:, value].sum()
        if total:
            dice[value - 1] = 2 * mine[:, value].sum() / total
    return dice


def first_half(groups: ArrayLike) -> NDArray[np.bool_]:
    """Whether the patient of each case ``(n,)`` is in the first of two drawn halves; a single one is in the second."""
    patients = np.unique(groups)
    drawn = Stream.HALVES.rng(0).permutation(patients)
    return np.isin(groups, drawn[: len(patients) // 2])


def matched_across(overlaps: Sequence[Overlap], groups: ArrayLike) -> NDArray[np.float64]:
    """Dice ``(cases, C - 1)`` with the names that the labels of the other half of the patients give.

    No scan is scored with a name that its own labels gave. NaN with fewer than two patients.
    """
    each, inside = np.stack(overlaps), first_half(groups)
    dice = np.full((len(each), each.shape[2] - 1), np.nan)
    if not inside.any():
        return dice
    for half in (inside, ~inside):
        names = name_by_overlap(each[~half].sum(0))
        for case in np.flatnonzero(half):
            dice[case] = dice_of_names(each[case], names)
    return dice
