"""What masks are scored by at the size of their image; nothing to run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from radiffuse.data.scan import Scan
from radiffuse.evaluation.tables import evaluate_cases

METRICS = ("dice", "hd95", "nsd", "nsd_1pct")
"""The last is the surface Dice at 1 % of the longest side."""


def measured(
    image: Scan, mask: Scan, truth: Scan, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """``METRICS`` of a mask, by class."""
    one = 0.01 * max(np.multiply(image.array.shape[1:], image.spacing or 1.0))
    scores, wide = (evaluate_cases([("", mask, truth)], classes, *more) for more in ((), (one,)))
    pairs = zip(scores.to_dict("records"), wide.to_dict("records"), strict=True)
    return {
        of["class"]: {key: of[key] for key in METRICS[:-1]} | {"nsd_1pct": other["nsd"]}
        for of, other in pairs
    }
