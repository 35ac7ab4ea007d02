"""AUROC of classifiers of whole images, per class and on average, with intervals over draws and patients.

A class is scored against all others. Training draws and test patients are crossed, as in ``statistics``: every draw is
tested on the same patients, and intervals are for new ones of both.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .statistics import Interval, clustered_mean

Floats = NDArray[np.float64]
TAKEN = ("case", "group", "class", "pool", "arm", "draw")
"""Columns that tables of probabilities have beside those of the classes."""


def columns_of(classes: Sequence[str]) -> list[str]:
    """The columns of the probabilities of classes: their names, ``p(case)`` of a class named as another column."""
    return [f"p({name})" if name in TAKEN else name for name in classes]


def weighted_auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve, the probability that a positive scores above a negative; ties count half.

    Args:
        scores: ``(n,)``, higher for positives.
        positive: ``(n,)``.
        weights: ``(B, n)``, how often each image counts.

    Returns:
        ``(B,)``; NaN where no positive or no negative counts.
    """
    order = np.argsort(scores, kind="stable")
    ranked, found = scores[order], positive[order]
    first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of each run of equal scores
    counted = weights[:, order]
    above, below = (np.add.reduceat(counted * own, first, axis=1) for own in (found, ~found))
    lower = np.cumsum(below, axis=1) - below / 2
    pairs = above.sum(1) * below.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area: Floats = (above * lower).sum(1) / pairs
    return area


def auroc_by_class(
    probabilities: Floats, truth: NDArray[np.integer], weights: Floats | None = None
) -> Floats:
    """AUROC of each class against the others, and their mean in the last column, ``(B, K + 1)``.

    Args:
        probabilities: ``(n, K)``.
        truth: ``(n,)``, 0 to K - 1.
        weights: ``(B, n)``; None: each image once.
    """
    each = np.ones((1, len(truth))) if weights is None else weights
    columns = [
        weighted_auroc(probabilities[:, k], truth == k, each) for k in range(probabilities.shape[1])
    ]
    return np.column_stack([*columns, np.mean(columns, axis=0)])


class CrossedAreas:
    """Intervals of AUROC over training draws and patients, by the jackknife.

    A draw without a patient has an area too; what the patient is worth to the draw's area is the pseudo-value
    ``C * area - (C - 1) * area without the patient`` (Efron and Tibshirani 1993, chapter 11). The pseudo-values of
    draws and patients are a table like one of scores, and ``statistics.clustered_mean`` gives the interval of its mean.

    Args:
        truth: ``(n,)`` classes of the test images.
        groups: ``(n,)`` patients.
    """

    def __init__(self, truth: NDArray[np.integer], groups: Sequence[Hashable]) -> None:
        names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
        codes = np.array([names[name] for name in groups])
        self.truth, self.patients = truth, len(names)
        self.weights = (codes[None] != np.arange(len(names))[:, None]).astype(np.float64)

    def intervals(self, probabilities: Sequence[Floats]) -> list[Interval]:
        """AUROC of each class and their mean, from ``(n, K)`` of each draw."""
        return self._intervals(*self._areas(probabilities), (0.0, 1.0))

    def differences(self, a: Sequence[Floats], b: Sequence[Floats]) -> list[Interval]:
        """AUROC of ``a`` minus that of ``b``, of each class and their mean; draw i of both had the same pool."""
        (first, one), (second, two) = self._areas(a), self._areas(b)
        return self._intervals(first - second, one - two, (-1.0, 1.0))

    def _areas(self, probabilities: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Areas ``(draws, K + 1)``, and those without each patient ``(draws, C, K + 1)``."""
        whole = np.stack([auroc_by_class(p, self.truth)[0] for p in probabilities])
        return whole, np.stack([auroc_by_class(p, self.truth, self.weights) for p in probabilities])

    def _intervals(
        self, whole: Floats, without: Floats, bounds: tuple[float, float]
    ) -> list[Interval]:
        c, n = self.patients, len(self.truth)
        pseudo = np.moveaxis(c * whole[:, None] - (c - 1) * without, -1, 0)
        draw, patient = (axis.ravel().tolist() for axis in np.indices(pseudo.shape[1:]))
        found = []
        for mean, values in zip(whole.mean(axis=0).tolist(), pseudo, strict=True):
            low = high = math.nan  # a patient whose class would be missing has no pseudo-value
            if not np.isnan(values).any():
                one = clustered_mean(values, draw=draw, group=patient)
                # The mean of pseudo-values corrects for bias that an area does not have.
                low, high = np.clip(
                    [mean + one.low - one.mean, mean + one.high - one.mean], *bounds
                )
            found.append(Interval(mean, float(low), float(high), n))
        return found
