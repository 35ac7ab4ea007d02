"""AUROC of classifiers of whole images, per class and on average, with intervals over draws and patients.

A class is scored against all others. Training draws and test patients are crossed, as in ``statistics``: every draw is
tested on the same patients, so draws and patients are resampled independently of each other, and both methods of a
difference are resampled with the same draws and patients.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.streams import Stream
from .statistics import LEVELS, Interval, group_weights

Floats = NDArray[np.float64]


def weighted_auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve, the probability that a positive scores above a negative; ties count half.

    Args:
        scores: ``(n,)``, higher for positives.
        positive: ``(n,)``.
        weights: ``(B, n)``, how often each image counts.

    Returns:
        ``(B,)``; NaN where no positive or no negative counts.
    """
    values, places = np.unique(scores, return_inverse=True)
    levels = np.zeros((len(scores), len(values)))
    levels[np.arange(len(scores)), places] = 1
    above = (weights * positive) @ levels
    below = (weights * ~positive) @ levels
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


class CrossedBootstrap:
    """Intervals of AUROC over training draws and patients.

    Args:
        truth: ``(n,)`` classes of the test images.
        groups: ``(n,)`` patients.
        draws: Number of training draws.
        samples: Bootstrap samples.
        seed: Seed of the resampling.
    """

    def __init__(
        self,
        truth: NDArray[np.integer],
        groups: Sequence[Hashable],
        draws: int,
        *,
        samples: int = 500,
        seed: int = 0,
    ) -> None:
        rng = Stream.AREAS.rng(seed)
        self.truth = truth
        self.weights = group_weights(groups, len(truth), samples, rng)
        picks = rng.integers(draws, size=(samples, draws))
        self.by_draw = np.stack([np.bincount(row, minlength=draws) for row in picks]) / draws

    def areas(self, probabilities: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Mean over draws, ``(K + 1,)``, and its bootstrap distribution, ``(samples, K + 1)``, from ``(n, K)`` each."""
        points = np.mean([auroc_by_class(p, self.truth)[0] for p in probabilities], axis=0)
        resampled = np.stack([auroc_by_class(p, self.truth, self.weights) for p in probabilities])
        return points, np.einsum("bd,dbk->bk", self.by_draw, resampled)

    def intervals(self, probabilities: Sequence[Floats]) -> list[Interval]:
        """AUROC of each class and their mean."""
        return self._intervals(*self.areas(probabilities))

    def differences(self, a: Sequence[Floats], b: Sequence[Floats]) -> list[Interval]:
        """AUROC of ``a`` minus that of ``b``, of each class and their mean; draw i of both had the same pool."""
        (first, one), (second, two) = self.areas(a), self.areas(b)
        return self._intervals(first - second, one - two)

    def _intervals(self, points: Floats, resampled: Floats) -> list[Interval]:
        low, high = np.nanquantile(resampled, LEVELS, axis=0)
        n = len(self.truth)
        return [
            Interval(float(p), float(x), float(y), n)
            for p, x, y in zip(points, low, high, strict=True)
        ]
