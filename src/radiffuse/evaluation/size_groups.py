"""Classes by size: small and large structures are found, and lost, for different reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..config import IGNORE
from ..data.scan import Array

GROUPS = ("small", "medium", "big")


def class_sizes(maps: Iterable[Array], classes: Sequence[str]) -> dict[str, float]:
    """Mean number of voxels of each foreground class, over the maps that have it; 0 where none has.

    Args:
        maps: Label maps, values by ``classes``.
        classes: Names, the background first.
    """
    total, present = np.zeros(len(classes)), np.zeros(len(classes))
    for label in maps:
        values = np.asarray(label).ravel()
        counts = np.bincount(values[values != IGNORE], minlength=len(classes))
        total += counts
        present += counts > 0
    sizes = total / np.maximum(present, 1)
    return dict(zip(classes[1:], sizes[1:].tolist(), strict=True))


def size_groups(sizes: Mapping[str, float]) -> dict[str, str]:
    """Parts classes into small, medium and big thirds by size; fewer than three classes are all ``big``.

    Args:
        sizes: Voxels by class.
    """
    ordered = sorted(sizes, key=lambda name: (sizes[name], name))
    if len(ordered) < 3:
        return dict.fromkeys(ordered, "big")
    return {name: GROUPS[i * 3 // len(ordered)] for i, name in enumerate(ordered)}
