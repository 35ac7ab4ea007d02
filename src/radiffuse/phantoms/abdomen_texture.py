"""Flesh and noise as in real CT: how much they vary in HU, and over what length.

Measured on the two abdominal scans of TotalSegmentator (Wasserthal et al. 2023; ``benchmarks/texture.py``): within
an organ, noise of 11 to 20 HU that has died away after 3 mm, a slow drift over many centimeters of a fifth of the
variance in the liver, and coarser structure where there is fat in between, in the pancreas and in muscles.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from .abdomen_organs import CLASSES
from .drawing import Floats, waves
from .solids import Canvas

DRIFT = 5.0
"""Standard deviation in HU of what changes slowly within soft tissue."""
LOBES = {"background": 9.0, "pancreas": 18.0, "stomach": 8.0, "spleen": 3.0, "liver": 3.0}
"""Standard deviation in HU of the structure of some centimeters or less, where it is not ``OTHER``."""
OTHER = 4.0
NOISE = (9.0, 17.0)
"""Standard deviation of the noise in HU, from scan to scan."""
LENGTH = (0.9, 0.9, 1.2)
"""Standard deviation in mm of the kernel that correlates it, along each axis."""


def flesh(noise: np.random.Generator, canvas: Canvas) -> Floats:
    """What the organs' structure adds in HU, ``(R, A, S)``: the same at every resolution."""
    drift, lobes = (waves(noise, 3, n, length)(*canvas.grid) for n, length in _PARTS)
    amount = np.array([LOBES.get(name, OTHER) for name in CLASSES], np.float32)
    return np.asarray(DRIFT * drift + amount[canvas.label] * lobes, np.float32)


def quantum_noise(noise: np.random.Generator, size: Sequence[int], step: Sequence[float]) -> Floats:
    """Noise in HU, ``size``, correlated over millimeters: between voxels of 3 mm or more there is hardly any left."""
    level = np.exp(noise.uniform(*np.log(NOISE)))
    sigma = [length / s for length, s in zip(LENGTH, step, strict=True)]
    grains = ndimage.gaussian_filter(noise.standard_normal(size, dtype=np.float32), sigma)
    return np.asarray(level * grains / grains.std(), np.float32)


_PARTS = ((12, (120.0, 400.0)), (24, (6.0, 30.0)))
"""Waves and their shortest and longest length in mm: of the drift, and of lobes and vessels."""
