"""Scores of one predicted label map against the truth: overlap, and distance between surfaces.

The surface of a mask is the set of its voxels with a face neighbor outside the mask; the border of the image counts as
outside. Distances run between voxel centers and honor anisotropic spacing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..config import IGNORE
from ..data.surfaces import Floats, Mask, near_surfaces, surface_distances

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in one case.

    Attributes:
        class_name: Name of the class.
        dice: 2 |P and T| / (|P| + |T|), 0 to 1.
        iou: |P and T| / |P or T|, 0 to 1.
        hd95: 95% Hausdorff distance: the larger of the 95th percentiles of the two directed surface distances, in
            ``unit`` (Huttenlocher et al. 1993, with a percentile for the maximum).
        nsd: Normalized surface Dice, 0 to 1: the fraction of both surfaces that lies within the tolerance of the other
            one (Nikolov et al. 2018, arXiv 1809.04430; surfaces counted in voxels).
        truth_voxels: Voxels of the class in the truth.
        predicted_voxels: Voxels of the class in the prediction, outside ignored ones.
        counted: False if truth and prediction are both empty; then all four scores are NaN.
        unit: Of ``hd95`` and of the tolerance: ``"mm"``, or ``"px"`` if the spacing is unknown.
    """

    class_name: str
    dice: float
    iou: float
    hd95: float
    nsd: float
    truth_voxels: int
    predicted_voxels: int
    counted: bool
    unit: str


def score(
    prediction: Labels,
    truth: Labels,
    classes: Sequence[str],
    spacing: Sequence[float] | None,
    tolerance: float = 2.0,
) -> list[ClassScore]:
    """Scores of every foreground class of one case: K - 1 of them, in the order of ``classes``.

    Voxels whose truth is 255 belong to no mask, in the truth or in the prediction. The empty-mask rule: if both masks
    are empty, the class is not counted; if one is, Dice, IoU and surface Dice are 0 and the distance is the diagonal of
    the image.

    Args:
        prediction: ``(*S)``, label values 0 to K - 1.
        truth: ``(*S)``, label values 0 to K - 1, or 255 for "ignore".
        classes: K names by label value, background first; the background is not scored.
        spacing: Millimeters per voxel along each axis, or None if unknown (distances in pixels).
        tolerance: Distance up to which surfaces agree, in mm (in pixels if the spacing is unknown).

    Raises:
        ValueError: Shapes or the length of ``spacing`` differ, or spacing or tolerance is not positive.
    """
    if prediction.shape != truth.shape:
        shapes = f"prediction is {prediction.shape}, truth is {truth.shape}"
        raise ValueError(f"{shapes}; equal shapes needed")
    if spacing is not None and (len(spacing) != truth.ndim or min(spacing) <= 0):
        raise ValueError(f"spacing needs {truth.ndim} positive numbers, got {tuple(spacing)}")
    if tolerance <= 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    unit = "px" if spacing is None else "mm"
    step = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    diagonal = float(np.linalg.norm(np.asarray(truth.shape) * step))
    valid = truth != IGNORE
    return [
        _score_class(
            (prediction == value) & valid, truth == value, name, step, unit, tolerance, diagonal
        )
        for value, name in enumerate(classes)
        if value > 0
    ]


def _score_class(
    predicted: Mask,
    true: Mask,
    name: str,
    step: Floats,
    unit: str,
    tolerance: float,
    diagonal: float,
) -> ClassScore:
    n_predicted, n_true = int(predicted.sum()), int(true.sum())
    if n_predicted == 0 and n_true == 0:
        nan = math.nan
        return ClassScore(name, nan, nan, nan, nan, 0, 0, False, unit)
    if n_predicted == 0 or n_true == 0:
        return ClassScore(name, 0.0, 0.0, diagonal, 0.0, n_true, n_predicted, True, unit)
    shared = int((predicted & true).sum())
    to_truth, to_prediction = surface_distances(predicted, true, step)
    hd95 = max(float(np.quantile(to_truth, 0.95)), float(np.quantile(to_prediction, 0.95)))
    return ClassScore(
        class_name=name,
        dice=2 * shared / (n_predicted + n_true),
        iou=shared / (n_predicted + n_true - shared),
        hd95=hd95,
        nsd=near_surfaces((to_truth, to_prediction), tolerance),
        truth_voxels=n_true,
        predicted_voxels=n_predicted,
        counted=True,
        unit=unit,
    )
