"""What more labels would bring: the loss of Dice falls as a power of their number, which is read from nested budgets.

Power laws describe learning curves of many kinds (Hestness et al. 2017, arXiv 1712.00409); that they go on beyond what
was measured is an assumption, and the farther, the bolder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST = 0.001
"""Least loss of Dice, so that it has a logarithm."""
FEWEST = 3
"""Folds below which nothing is said of their spread."""
FARTHEST = 4.0
"""How many times the largest measured budget may be looked ahead [ours]."""


@dataclass(frozen=True)
class Gain:
    """What a number of further labels would bring.

    Attributes:
        labels: Labels that are there.
        more: Further ones.
        dice: Expected gain of mean Dice; NaN where nothing can be said.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    labels: int
    more: int
    dice: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval is on one side of 0."""
        return bool(self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        about = f"{self.more} labels beyond these {self.labels}"
        if np.isnan(self.dice):
            return (
                f"What {about} would bring is not known: it was not measured, or is too far ahead."
            )
        spread = f"{self.low:+.3f} to {self.high:+.3f}"
        if not self.decided:
            return f"What {about} would bring is not decided: {spread} Dice."
        return f"{about} would bring about {self.dice:+.3f} Dice ({spread}), if the curve goes on."


def curve(
    folds: Sequence[Mapping[int, float]], at: Sequence[int]
) -> list[tuple[int, float, float, float]]:
    """Mean Dice by number of labels, with its 95 % interval over folds.

    Args:
        folds: Of each fold, the mean Dice of its cases by the number of labels that was learned from, two or more.
        at: Numbers of labels.

    Returns:
        Labels, Dice and both ends; [] with fewer than ``FEWEST`` folds.
    """
    losses = _losses(folds, at)
    if len(losses) < FEWEST:
        return []
    return [
        (n, mean, max(low, 0.0), min(high, 1.0))
        for n, (mean, low, high) in zip(at, map(_interval, 1 - losses.T), strict=True)
    ]


def gain(folds: Sequence[Mapping[int, float]], labels: int, more: int) -> Gain:
    """What ``more`` labels beside the ``labels`` that are there would bring, or fewer, as far as may be looked ahead.

    ``folds`` are those of ``curve``.
    """
    known = [max(fold) for fold in folds if len(fold) > 1]
    within = min(more, int(FARTHEST * min(known, default=0)) - labels)
    if len(known) < FEWEST or within < 1:
        return Gain(labels, more, np.nan, np.nan, np.nan)
    more = within
    losses = _losses(folds, (labels, labels + more))
    return Gain(labels, more, *_interval(losses[:, 0] - losses[:, 1]))


# ------------------------------------------------------------------------------------------------ internal


def _losses(folds: Sequence[Mapping[int, float]], at: Sequence[int]) -> Floats:
    """Loss of Dice ``(folds, at)`` by the power law of each fold, fitted to the logarithms; at most 1."""
    rows = []
    for fold in folds:
        if len(fold) > 1:
            loss = np.maximum(1 - np.array([*fold.values()], np.float64), LEAST)
            slope, level = np.polyfit(np.log([*fold]), np.log(loss), 1)
            rows.append(np.minimum(np.exp(level + slope * np.log(at)), 1.0))
    return np.array(rows).reshape(-1, len(at))


def _interval(values: Floats) -> tuple[float, float, float]:
    """Mean of the folds and the ends of its 95 % interval by Student's t, since folds are few."""
    from scipy import stats

    mean, n = float(values.mean()), len(values)
    reach = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean, mean - reach, mean + reach
