"""Calibration: how often a segmenter is right, by its confidence (Guo et al. 2017).

Only pixels that are foreground in the truth or the mask count; the background is easy and would dominate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..config import IGNORE
from ..data.scan import Array

if TYPE_CHECKING:
    import pandas as pd

BINS = 15


class Calibration:
    """Adds up cases one by one, in bins of confidence."""

    def __init__(self, bins: int = BINS) -> None:
        self.bins = bins
        self.pixels, self.confidence, self.right = np.zeros((3, bins))

    @classmethod
    def sum(cls, parts: Iterable[Calibration]) -> Calibration:
        """All cases of several, of the usual bins."""
        whole = cls()
        for part in parts:
            whole.pixels += part.pixels
            whole.confidence += part.confidence
            whole.right += part.right
        return whole

    def add(self, confidence: Array, mask: Array, truth: Array) -> None:
        """Count a case.

        Args:
            confidence: ``(*S)``, probability of the class in the mask, 0 to 1.
            mask: ``(*S)``, predicted labels.
            truth: ``(*S)``, true labels; 255 is left out.
        """
        counted = (truth != IGNORE) & ((truth > 0) | (mask > 0))
        sure = np.clip(confidence[counted], 0, 1)
        place = np.minimum((sure * self.bins).astype(np.int64), self.bins - 1)
        right = (mask[counted] == truth[counted]).astype(np.float64)
        self.pixels += np.bincount(place, minlength=self.bins)
        self.confidence += np.bincount(place, weights=sure, minlength=self.bins)
        self.right += np.bincount(place, weights=right, minlength=self.bins)

    def table(self) -> pd.DataFrame:
        """Columns low, high (of the bin), pixels, confidence (mean) and accuracy; empty bins are left out."""
        import pandas as pd

        edges = np.linspace(0, 1, self.bins + 1)
        some = self.pixels > 0
        return pd.DataFrame(
            {
                "low": edges[:-1][some],
                "high": edges[1:][some],
                "pixels": self.pixels[some].astype(np.int64),
                "confidence": self.confidence[some] / self.pixels[some],
                "accuracy": self.right[some] / self.pixels[some],
            }
        )


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance of confidence and accuracy over pixels, 0 to 1 (Guo et al. 2017, eq. 3); NaN without pixels."""
    total = table["pixels"].sum()
    gap = (table["confidence"] - table["accuracy"]).abs() * table["pixels"]
    return float(gap.sum() / total) if total else float("nan")
