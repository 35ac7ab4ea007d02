"""Whether synthetic images are copies: their distance to the nearest real image, against that between real patients.

A synthetic image is suspected where it is nearer to a real one than (by default) 95 % of real images are to any image
of another patient. So 5 % of new, real patients would be suspected too; only clearly more than that indicates copying.
The threshold by held-out images follows Dar et al. 2024 (arXiv 2402.01054).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from .fidelity import pairwise_distances

Floats = NDArray[np.float64]


Nearest = tuple[Floats, NDArray[np.intp]]
"""Distance of every query to its nearest reference, ``(n,)``, and the row of that reference, ``(n,)``."""


class Ruler:
    """Distances in features that are scaled to mean 0 and standard deviation 1 over the references ``(m, d)``.

    Raises:
        ValueError: The groups, a patient for each reference, hold fewer than two patients.
    """

    def __init__(self, reference: Floats, groups: Sequence[Hashable]) -> None:
        if len(set(groups)) < 2:
            raise ValueError("distances between patients need two patients")
        self.mean = reference.mean(0)
        std = reference.std(0)
        self.std = np.where(std > 1e-6 * max(float(std.max()), 1e-12), std, np.inf)
        self.reference = self._scaled(reference)
        self.groups = np.array([hash(group) for group in groups])

    def nearest(self, queries: Floats, groups: Sequence[Hashable] | None = None) -> Nearest:
        """Nearest reference of each query ``(n, d)``; not of the query's own patient, where ``groups`` names it."""
        distance, index = np.empty(len(queries)), np.empty(len(queries), np.intp)
        own = None if groups is None else np.array([hash(group) for group in groups])
        for start, block in pairwise_distances(self._scaled(queries), self.reference):
            rows = slice(start, start + len(block))
            if own is not None:
                block = np.where(own[rows, None] == self.groups[None], np.inf, block)
            index[rows] = block.argmin(1)
            distance[rows] = block.min(1)
        return distance, index

    def _scaled(self, features: Floats) -> Floats:
        scaled: Floats = (features - self.mean) / self.std
        return scaled


def threshold_of(real: Floats, percentile: float = 95.0) -> float:
    """The distance below which ``100 - percentile`` percent of the real-to-real distances ``(n,)`` lie."""
    return float(np.quantile(real, 1 - percentile / 100))


def correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson correlation of two images pixel by pixel, -1 to 1; NaN where one is flat."""
    x, y = (np.asarray(v, np.float64).ravel() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    length = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / length if length > 0 else float("nan")
