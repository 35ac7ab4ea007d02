"""What the probabilities of a segmentation say of its quality, and what to expect of the next mask.

The Dice that the probabilities themselves expect is too high, more so for a network of few labels. By how much is
learned from cases that the network did not see: the logarithm of the true loss over the expected one. An interval for
the next case follows with no assumption but that it could as well have been one of these (conformal prediction; Vovk et
al. 2005).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.scan import Array

Floats = NDArray[np.float64]

LEVEL = 0.9
"""Share of masks whose Dice is to lie in the interval [ours]."""
LEAST = 0.01
"""Added to every loss of Dice, so that a perfect mask has a logarithm [ours]."""


@dataclass(frozen=True)
class Expected:
    """The Dice to expect of a mask.

    Attributes:
        dice: Expected Dice, 0 to 1.
        low: Lower end of the interval.
        high: Upper end.
        level: Share of masks that such intervals hold at least; less than ``LEVEL`` where the cases are too few.
    """

    dice: float
    low: float
    high: float
    level: float


def expected_dice(probabilities: Array) -> Floats:
    """The Dice that the probabilities expect of the mask of the most probable classes.

    Args:
        probabilities: ``(K, *S)``, which sum to 1 over K; read plane by plane.

    Returns:
        ``(K - 1,)``, for the foreground classes; NaN where the mask lacks the class.
    """
    classes = len(probabilities)
    inside, mask, volume = np.zeros((3, classes))
    for p in _planes(probabilities):
        best = p.argmax(0)
        inside += np.bincount(best, p[best, np.arange(p.shape[1])], classes)
        mask += np.bincount(best, minlength=classes)
        volume += p.sum(1)
    dice = 2 * inside / np.where(mask > 0, mask + volume, np.nan)
    return np.asarray(dice[1:])


def uncertainty_of(probabilities: Array) -> tuple[Floats, Floats]:
    """How uncertain a segmentation is, by class.

    Args:
        probabilities: ``(K, *S)``, which sum to 1 over K; read plane by plane.

    Returns:
        ``(K - 1,)`` each, for the foreground classes: the sum over voxels of the class's probability times the entropy
        over all classes (0 to 1, as a fraction of the largest possible), and the sum of its probability.
    """
    classes = len(probabilities)
    entropy, volume = np.zeros((2, classes - 1))
    for p in _planes(probabilities):
        h = -(p * np.log(np.maximum(p, 1e-12))).sum(0) / np.log(classes)
        entropy += p[1:] @ h
        volume += p[1:].sum(1)
    return entropy, volume


def strain(expected: ArrayLike, dice: ArrayLike) -> Floats:
    """By how much masks are worse than their probabilities expect: log of the true loss over the expected one."""
    true, own = (1 - np.asarray(values, np.float64) + LEAST for values in (dice, expected))
    return np.asarray(np.log(true / own))


def expect(expected: float, strains: Sequence[float]) -> Expected | None:
    """What to expect of a mask.

    Args:
        expected: What its probabilities expect, see ``expected_dice``.
        strains: Of cases that the network did not see, one of each patient, see ``strain``.

    Returns:
        None where the expected Dice is not known, or there are fewer than two cases.
    """
    values = np.asarray([s for s in strains if math.isfinite(s)])
    if len(values) < 2 or not math.isfinite(expected):
        return None
    low, high, reached = conformal(values)
    loss = (1 - expected + LEAST) * np.exp([values.mean(), high, low])
    dice, least, most = np.clip(1 + LEAST - loss, 0, 1)
    return Expected(float(dice), float(least), float(most), reached)


def conformal(values: ArrayLike, level: float = LEVEL) -> tuple[float, float, float]:
    """An interval for the next of exchangeable values, by full conformal prediction.

    A candidate belongs to it unless its distance from the mean of all n + 1 values, itself among them, is one of the
    largest. The j values that lie farthest out are excluded, where (n + 1 - j) / (n + 1) is the smallest share not
    below ``level``; one has to be left, so that with n values no more than n / (n + 1) can be promised.

    With the sum S of the values, ``|x_i - m| >= |x - m|`` for the mean m of all holds between ``x_i`` and its
    reflection ``(2 S - (n + 1) x_i) / (n - 1)``, and the candidate has to lie between j of these pairs.

    Args:
        values: ``(n,)``, at least two, all finite.
        level: Share that is asked for, 0 to 1.

    Returns:
        Both ends, and the share that is promised.
    """
    x = np.asarray(values, np.float64)
    n = len(x)
    kept = min(math.ceil((n + 1) * level - 1e-9), n)
    mirrored = (2 * x.sum() - (n + 1) * x) / (n - 1)
    place = n - kept  # of the (n + 1 - kept)-th
    low = np.sort(np.minimum(x, mirrored))[place]
    high = np.sort(np.maximum(x, mirrored))[::-1][place]
    return float(low), float(high), kept / (n + 1)


# ------------------------------------------------------------------------------------------------ internal


def _planes(probabilities: Array) -> Iterator[Floats]:
    """``(K, voxels)`` of each plane, so that memory does not grow with the volume."""
    for plane in np.moveaxis(probabilities, 1, 0):
        yield np.asarray(plane, np.float64).reshape(len(probabilities), -1)
