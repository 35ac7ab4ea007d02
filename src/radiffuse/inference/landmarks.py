"""How far off points land that body coordinates carry from scan to scan; the points are the centers of classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ..config import IGNORE
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes
from ..data.plan import Plan
from ..data.scan import Array
from ..data.transform import image_to_plan, label_to_plan
from ..nets.coordinates import CoordinateRegressor
from .coordinates import carry, coordinate_map


def carried_landmarks(
    regressor: CoordinateRegressor, plan: Plan, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """Carry the center of every class from each labelled scan to the next, the last to the first.

    Args:
        regressor: Trained, in evaluation mode.
        plan: How it sees scans.
        dataset: Labelled scans, two or more.

    Yields:
        ``source``, ``target``, ``class``; ``error``, the distance from where the point landed to the center of the
        class in the target; and ``same_place``, that of the point at the same share of the scan's extent, which knows
        nothing of the body. In millimeters (2D: pixels of the plan's grid). A class that either scan lacks is left
        out.
    """
    known = plan.with_classes(find_classes(dataset))
    spacing = np.asarray(plan.spacing or (1.0,) * plan.spatial_dims)
    scans = (_scan(regressor, known, case) for case in dataset)
    first = before = next(scans)
    for target in itertools.chain(scans, [first]):
        yield from _between(before, target, known, spacing, regressor)
        before = target


_Located = tuple[str, torch.Tensor, dict[int, Array]]


def _scan(regressor: CoordinateRegressor, plan: Plan, case: Case) -> _Located:
    image, _ = image_to_plan(read_case_image(case), plan)
    label = label_to_plan(read_case_label(case), plan)
    maps = coordinate_map(regressor, torch.from_numpy(image), plan.size)
    return case.name, maps, centers(label)


def centers(label: Array) -> dict[int, Array]:
    """Mean place of the voxels of each class but the background, in voxels."""
    found = {}
    for value in np.unique(label):
        if value not in (0, IGNORE):
            found[int(value)] = np.argwhere(label == value).mean(0)
    return found


def _between(
    source: _Located, target: _Located, plan: Plan, spacing: Array, regressor: CoordinateRegressor
) -> Iterator[dict[str, Any]]:
    extents = [np.asarray(maps.shape[1:]) for maps in (source[1], target[1])]
    for value in sorted(source[2].keys() & target[2].keys()):
        point, true = source[2][value], target[2][value]
        voxel = tuple(int(v) for v in point.round())
        landed = np.asarray(carry(voxel, source[1], target[1], regressor.scale))
        naive = (point + 0.5) / extents[0] * extents[1] - 0.5
        yield {
            "source": source[0],
            "target": target[0],
            "class": plan.classes[value],
            "error": float(np.linalg.norm((landed - true) * spacing)),
            "same_place": float(np.linalg.norm((naive - true) * spacing)),
        }
