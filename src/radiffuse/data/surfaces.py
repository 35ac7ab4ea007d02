"""Distances between the surfaces of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def surface_distances(predicted: Mask, true: Mask, step: Floats) -> tuple[Floats, Floats]:
    """Distances from each surface voxel of one mask to the nearest of the other: of the prediction, then of the truth.

    Both masks ``(*S)`` have voxels; ``step`` is the extent of a voxel along each axis, whose unit the distances have.
    """
    from scipy.spatial import KDTree

    edge_predicted, edge_true = (np.argwhere(_surface(mask)) * step for mask in (predicted, true))
    to_true, _ = KDTree(edge_true).query(edge_predicted)
    to_predicted, _ = KDTree(edge_predicted).query(edge_true)
    return np.asarray(to_true), np.asarray(to_predicted)


def near_surfaces(distances: tuple[Floats, Floats], tolerance: float) -> float:
    """Fraction of both surfaces within the tolerance of the other one (Nikolov et al. 2018)."""
    # The slack absorbs rounding: a distance of 3 x 0.7 mm must count as within 2.1 mm.
    within = tolerance * (1 + 1e-9)
    near = sum(int((values <= within).sum()) for values in distances)
    return near / sum(values.size for values in distances)


def _surface(mask: Mask) -> Mask:
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask)
