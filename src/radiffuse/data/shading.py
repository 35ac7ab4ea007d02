"""The shading of images that the settings leave open; without torch, since plans and their records are made of it."""

from __future__ import annotations

from dataclasses import replace

from ..config import Augmentation
from .plan import Intensity

SHADING = 0.8
"""Most of it where the settings leave it open, of images that have no fixed window [ours]."""


def shaded(settings: Augmentation, intensity: Intensity) -> Augmentation:
    """The settings with the shading that they leave open: none where an intensity means the same in every image."""
    if settings.shading is not None:
        return settings
    return replace(settings, shading=SHADING if intensity == "percentiles" else 0.0)
