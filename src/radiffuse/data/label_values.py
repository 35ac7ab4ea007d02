"""What the values of label maps give away: soft edges, a foreground of 255, numbers that no class has."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..config import IGNORE
from ..errors import InputError
from .issues import Issues
from .scan import Array

LOWEST_TOP = 50
"""Soft masks are scaled to 100, 255 or 65535; below this highest value numbers are classes [ours]."""
STRAY_VALUES = 3
"""So few values between 0 and the highest can be the steps of an edge; one or two may be classes of outlines [ours]."""
MANY_VALUES = 10
"""Below it, all values in between must be steps, from it on half of them [ours]."""


def refuse_soft_edges(path: Path, array: Array) -> None:
    """Refuse a label map ``(1, *spatial)`` whose values come from interpolation or lossy compression.

    Between 0 and the highest value such a map has dozens of values, or three to nine where it was
    made small by a factor of two. Most (of so few: all) have no solid block of 2 pixels a side, and
    nearly each of their pixels lies between a lower and a higher neighbor, on the way to a plateau.
    Real classes, however many and small, fail at least one of these.

    Raises:
        InputError: It is such a map.
    """
    from scipy import ndimage

    values = array.squeeze()
    low, top = int(values.min()), int(values.max())
    if low < 0 or not LOWEST_TOP <= top < 2**20:
        return
    counts = np.bincount(values.ravel().astype(np.int64), minlength=top + 1)
    inner = np.flatnonzero(counts[1:top]) + 1
    plateau = counts[-(-9 * top // 10) :].sum() / counts[-(-top // 2) :].sum()
    if len(inner) < STRAY_VALUES or plateau < 0.25:
        return
    corner, solid = values[(slice(-1),) * values.ndim], np.True_
    for shift in itertools.product((0, 1), repeat=values.ndim):
        place = tuple(slice(i, n - 1 + i) for i, n in zip(shift, values.shape, strict=True))
        solid = solid & (values[place] == corner)
    blocks = np.bincount(corner[solid].astype(np.int64), minlength=top + 1)
    stray = inner[blocks[inner] == 0]
    # Small classes beside 255 (ignore) end below the middle; the steps of an edge do not.
    wanted = max(MANY_VALUES, len(inner) / 2) if len(inner) >= MANY_VALUES else len(inner)
    if len(stray) < wanted or 2 * stray[-1] <= top:
        return
    edge = np.isin(values, stray)
    lower = ndimage.minimum_filter(values, 3)[edge] < values[edge]
    higher = ndimage.maximum_filter(values, 3)[edge] > values[edge]
    if (lower & higher).mean() < 0.5:
        return
    problem = (
        f"has soft edges: {len(inner)} values between 0 and {top} with tiny shares, which come from "
        "interpolation or compression and are no classes"
    )
    remedy = (
        f"Say from which value on a pixel is foreground (--label-threshold {(top + 1) // 2}), or "
        "export it again without smoothing; if they are classes, name them with --label-values"
    )
    raise InputError(path, problem, remedy)


def judge_values(root: Path, maps: Sequence[Mapping[int, int]], *, declared: bool) -> Issues:
    """Doubts about a data set from the pixels by value of each of its label maps.

    Args:
        root: The data set, for messages.
        maps: Pixels by value of each label map whose values the user has said nothing about.
        declared: The data set names its classes.
    """
    issues = Issues()
    found = {value for counts in maps for value in counts}
    used = sorted(found - {0, IGNORE})
    shown = [sum(counts.get(value, 0) for value in used) for counts in maps]
    swallowed = [_swallowed(counts, n) for counts, n in zip(maps, shown, strict=True)]
    lost, all_values = sum(swallowed), ",".join(map(str, sorted(found | {0})))
    say_so = f"If {IGNORE} is the foreground, say so with --label-values 0,{IGNORE}"
    if maps and IGNORE in found and not used:
        problem = f"has label maps of nothing but 0 and {IGNORE}, which means ignore"
        issues.error(root, problem, say_so)
    elif maps and not used:
        problem = "has no foreground in any label map"
        issues.error(root, problem, "Give labels that show something")
    elif 2 * lost > sum(np.logical_or(shown, swallowed)):
        problem = (
            f"has {lost} label maps of {len(maps)} whose foreground is {IGNORE}, which means ignore"
        )
        kept = ",".join(map(str, [0, *used]))
        remedy = f"{say_so} (or {all_values}, see --class-names); if not, with {kept}"
        issues.warning(root, problem, remedy)
    if used and not declared and 4 * len(used) < used[-1]:
        problem = f"uses {len(used)} of the {used[-1]} class numbers from 1 on"
        remedy = "Make sure that its values are numbers of classes"
        if len(found) < 20:
            remedy = f"If these are all, say so with --label-values {all_values}"
        issues.warning(root, problem, remedy)
    return issues


def _swallowed(counts: Mapping[int, int], foreground: int) -> bool:
    """Whether what a label map shows is nearly all 255: more than nine tenths, and less than the background."""
    ignored, background = counts.get(IGNORE, 0), counts.get(0, 0)
    if not ignored or not background:
        return False
    return not foreground or 9 * foreground < ignored < background
