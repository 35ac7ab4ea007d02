"""Post-processing chosen class by class on cases that the networks did not see: pieces kept by number, or by size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..config import IGNORE
from ..data.components import pieces_of
from ..data.dataset import Case
from ..data.issues import some
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..data.steps import split_step, step_in_words, steps_in_words
from ..evaluation.segmentation import score
from ..evaluation.statistics import clustered_difference
from ..inference.postprocess import postprocess
from .scores import OutOfFold

KEPT = (3, 2, 1)
"""Numbers of pieces that are tried, the mildest first."""
DROPPED = (0.1, 0.25, 0.5)
"""Sizes below which pieces are dropped, as shares of the smallest true piece [ours]."""
LEAST_GAIN = 0.001
"""Mean Dice that a step has to gain."""
LEAST_CASES = 3


def refine(found: OutOfFold, cases: Sequence[Case], plan: Plan) -> tuple[list[str], list[str]]:
    """The steps that gain, and a sentence for the classes of each.

    The usual step of a class is taken unless mean Dice falls by it: a few cases say less than what all label maps have.
    Without one a step is taken where mean Dice gains at least ``LEAST_GAIN``, and either no case loses or the interval
    of the paired difference lies above 0; of several the best, and of equal ones the mildest.

    Args:
        found: Segments the cases.
        cases: Of the folds.
        plan: Of what segments them; steps that it has from a run to start from may be of any kind, and then stay.
    """
    usual, classes, dims = plan.postprocess, plan.classes, plan.spatial_dims
    expected = {split_step(step)[:2]: step for step in usual}
    if len(cases) < LEAST_CASES or not expected.keys() <= {
        (v, "keep") for v in range(1, len(classes))
    }:
        words = steps_in_words(usual, classes, dims)
        return [*usual], [f"{words}; which was not tried"] if words != "none" else []
    name, smallest = _smallest_pieces(found, cases, len(classes))
    options = {
        value: _options(value, name, smallest.get(value, 0.0), usual)
        for value in range(1, len(classes))
    }
    scores: dict[str, list[tuple[float, float]]] = {}
    for mask, truth in _masks(found, cases):
        for value, steps in options.items():
            plain = _score(mask, truth, value)
            scores.setdefault(f"{value}=none", []).append(plain)
            for step in steps:
                changed = mask.with_array(postprocess(mask.array[0], (step,), mask.spacing)[None])
                same = np.array_equal(changed.array, mask.array)
                scores.setdefault(step, []).append(plain if same else _score(changed, truth, value))
    groups = [case.group for case in cases]
    chosen, why = list[str](), dict[str, list[str]]()
    for value, steps in options.items():
        before, kept = scores[f"{value}=none"], expected.get((value, "keep"))
        if kept and (by := _difference(scores[kept], before)) >= 0:
            chosen.append(kept)
            what = f"{step_in_words(kept, dims)}, as in the label maps (Dice {by:+.3f})"
            why.setdefault(what, []).append(classes[value])
            continue
        gains = {step: _gain(scores[step], before, groups) for step in steps}
        good = [step for step in steps if gains[step] is not None]
        if good:
            best = max(good, key=lambda step: _mean(scores[step]))
            chosen.append(best)
            what = f"{step_in_words(best, dims)} (Dice {gains[best]:+.3f})"
            why.setdefault(what, []).append(classes[value])
    return chosen, [f"{some(names)}: {what}" for what, names in why.items()]


# ------------------------------------------------------------------------------------------------ internal


def _options(value: int, name: str, smallest: float, usual: Sequence[str]) -> list[str]:
    """Steps for a class, the mildest first; the step ``name`` drops by size."""
    sizes = [share * smallest for share in DROPPED if smallest]
    texts = [np.format_float_positional(n, 6, fractional=False, trim="-") for n in sizes]
    dropped = [f"{value}={name}:{text}" for text in texts]
    kept = [f"{value}=keep:{count}" for count in KEPT]
    more = [step for step in usual if step.startswith(f"{value}=") and step not in kept]
    return dropped + more + kept


def _smallest_pieces(
    found: OutOfFold, cases: Sequence[Case], classes: int
) -> tuple[str, Mapping[int, float]]:
    """The step that drops pieces by size, and the size of the smallest true piece of each class.

    In mm³ (2D: mm²), or where a spacing is unknown as a share of the image: pixels of unknown size say nothing about
    images of another size.
    """
    pieces = []
    for case in cases:
        image, truth = found.read(case)
        voxel = math.prod(image.spacing) if image.spacing else math.nan
        for value in range(1, classes):
            sizes = pieces_of(truth.array[0] == value)[1]
            if len(sizes):
                pieces.append((value, float(sizes.min()), voxel, truth.array.size))
    unknown = any(math.isnan(voxel) for _, _, voxel, _ in pieces)
    smallest: dict[int, float] = {}
    for value, count, voxel, whole in pieces:
        size = count / whole if unknown else count * voxel
        smallest[value] = min(smallest.get(value, math.inf), size)
    return "islands" if unknown else "drop", smallest


def _masks(found: OutOfFold, cases: Sequence[Case]) -> Iterator[tuple[Scan, Scan]]:
    """Mask and truth of each case."""
    for case in cases:
        image, truth = found.read(case)
        yield image.with_array(found.mask(case, image)[None]), truth


def _score(mask: Scan, truth: Scan, value: int) -> tuple[float, float]:
    """Dice and surface Dice of one class; 1 where both lack it."""
    ignored: Array = truth.array[0] == IGNORE
    true = np.where(ignored, IGNORE, truth.array[0] == value).astype(np.uint8)
    predicted = (mask.array[0] == value).astype(np.uint8)
    one = score(predicted, true, ("", "one"), truth.spacing or mask.spacing)[0]
    return (one.dice, one.nsd) if one.counted else (1.0, 1.0)


def _mean(scores: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean Dice and surface Dice, to three decimals."""
    dice, surface = np.mean(np.asarray(scores), axis=0)
    return round(float(dice), 3), round(float(surface), 3)


def _gain(
    scores: Sequence[tuple[float, float]],
    plain: Sequence[tuple[float, float]],
    groups: Sequence[str],
) -> float | None:
    """By how much the mean Dice gains; None where that is too little or not sure."""
    after, before = _dice(scores), _dice(plain)
    paired = clustered_difference(after, before, group=groups)
    sure = paired.low > 0 or (after >= before).all()
    return paired.difference if paired.difference >= LEAST_GAIN and sure else None


def _difference(
    scores: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]
) -> float:
    """Of mean Dice, to three decimals."""
    return round(float(np.mean(_dice(scores) - _dice(plain))), 3)


def _dice(scores: Sequence[tuple[float, float]]) -> Array:
    return np.asarray(scores)[:, 0]
