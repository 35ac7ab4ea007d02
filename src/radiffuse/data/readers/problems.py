"""What is suspicious about a sound file: lines for ``check``, not errors of reading."""

from __future__ import annotations

import math

import numpy as np

from ..scan import Scan
from .common import count_non_finite


def problems(scan: Scan) -> list[str]:
    """Reasons why an image teaches nothing, without a final period; [] for a usual one.

    Args:
        scan: Any scan; label maps may well be constant, so ask this of images only.
    """
    found = []
    count = count_non_finite(scan.array)
    if count:
        found.append(f"has {count:,} of {scan.array.size:,} values that are not finite numbers")
    if math.prod(scan.spatial_shape) == 1:
        found.append("is a single pixel")
    elif not count and scan.array.size:
        for channel, values in enumerate(scan.array):
            if np.min(values) == np.max(values):
                name = f"channel {channel} is" if len(scan.array) > 1 else "is"
                found.append(f"{name} constant: every value is {values.flat[0]:g}")
    return found
