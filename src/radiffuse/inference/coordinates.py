"""Body coordinates of whole scans, and points mapped from one scan to another by them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import IGNORE
from ..config.values import from_dict, plain
from ..data.arrays import write_arrays
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes
from ..data.issues import Issues, say
from ..data.plan import Plan
from ..data.scan import Array
from ..data.transform import image_to_plan, label_to_plan
from ..errors import InputError
from ..nets.coordinates import CoordinateRegressor
from ..system.files import read_json, write_json
from .windows import slide

QUALITY = "quality.json"


@torch.no_grad()
def coordinate_map(regressor: CoordinateRegressor, image: Tensor, size: Sequence[int]) -> Tensor:
    """Coordinates of every voxel of a scan on the plan's grid.

    Args:
        regressor: Trained, in evaluation mode.
        image: ``(C, *S)`` in [-1, 1].
        size: Of a film, or of a patch of a volume; patches overlap by half and are averaged.

    Returns:
        ``(dims, *S)`` float32 on the CPU, in units of ``regressor.scale``.
    """
    if image.ndim == 3:
        return regressor(image[None])[0].float().cpu()  # type: ignore[no-any-return]
    return torch.cat([slab for _, slab in slide(image, size, regressor, overlap=0.5)], dim=1)


def carry(point: Sequence[int], source: Tensor, target: Tensor, scale: Tensor) -> tuple[int, ...]:
    """The voxel of another scan whose coordinates are nearest to those of a voxel.

    Args:
        point: Voxel of the source.
        source: Its map, ``(dims, *S)``.
        target: The other map, ``(dims, *S')``.
        scale: ``CoordinateRegressor.scale``, so that nearness is measured in lengths.
    """
    wanted = source.flatten(1)[:, int(np.ravel_multi_index(tuple(point), source.shape[1:]))]
    units = scale.reshape(-1, *[1] * (target.ndim - 1))
    gap = (((target - wanted.reshape(units.shape)) * units) ** 2).sum(0)
    place = torch.unravel_index(gap.argmin(), gap.shape)
    return tuple(int(axis) for axis in place)


def carried_landmarks(
    regressor: CoordinateRegressor, plan: Plan, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """Map the center of every class from each labelled scan to the next, and from the last to the first.

    Args:
        regressor: Trained, in evaluation mode.
        plan: How it sees scans.
        dataset: Labelled scans, two or more.

    Yields:
        ``source``, ``target``, ``class``; ``error``, the distance from the mapped point to the center of the class in
        the target; and ``same_place``, that of the point at the same fraction of the extent, which ignores the image.
        In millimeters (2D: pixels of the plan's grid). A class that either scan lacks is left out.
    """
    known = plan.with_classes(find_classes(dataset))
    spacing = np.asarray(plan.spacing or (1.0,) * plan.spatial_dims)
    scans = (_scan(regressor, known, case) for case in dataset)
    first = next(scans)
    for source, target in itertools.pairwise(itertools.chain([first], scans, [first])):
        yield from _between(source, target, known, spacing, regressor)


_Located = tuple[str, torch.Tensor, dict[int, Array]]


def _scan(regressor: CoordinateRegressor, plan: Plan, case: Case) -> _Located:
    scan = read_case_image(case)
    image, undo = image_to_plan(scan, plan)
    label = label_to_plan(read_case_label(case, scan), plan, undo)
    maps = coordinate_map(regressor, torch.from_numpy(image), plan.size)
    return case.name, maps, centers(label)


def centers(label: Array) -> dict[int, Array]:
    """Mean place of the voxels of each class but the background, in voxels."""
    values = [int(value) for value in np.unique(label) if value not in (0, IGNORE)]
    return {value: np.argwhere(label == value).mean(0) for value in values}


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


@dataclass(frozen=True)
class RegressorErrors:
    """Errors of a regressor, and of what looks at no image, on so many scans."""

    error: float
    trivial: float
    scans: int


@dataclass(frozen=True)
class Quality:
    """What a regressor can do, see ``write_quality``.

    Attributes:
        unit: ``mm``, or ``px`` for films.
        places: Median error of where a voxel lies from one in another crop of the same held-out scan; trivial: by their
            places in the crops alone.
        landmarks: Mean error of centers of classes that are carried to another scan; trivial: to the same place in it.
    """

    unit: str
    places: RegressorErrors | None = None
    landmarks: RegressorErrors | None = None

    def faults(self) -> Iterator[str]:
        """Where it is no better than what looks at no image, in words."""
        for name, found in (("places", self.places), ("landmarks", self.landmarks)):
            if found is not None and not found.error < found.trivial:
                yield f"{name} {found.error:.3g} {self.unit} off, {found.trivial:.3g} without the image"


def write_quality(folder: Path, quality: Quality) -> None:
    """Print what a regressor can do, and keep it in ``quality.json``; warn where it is no better than chance."""
    write_json(folder / QUALITY, plain(quality))
    for found, what in (
        (quality.places, "held-out scans, places within a scan are {} off (median)"),
        (quality.landmarks, "labelled scans, landmarks carried to another scan are {} off (mean)"),
    ):
        if found is not None:
            one, other = (f"{v:.3g} {quality.unit}" for v in (found.error, found.trivial))
            said = f"on {found.scans} {what.format(one)}, {other} without the image"
            print(f"radiffuse: {said}", file=sys.stderr)
    warn_of_guide(folder)


def warn_of_guide(folder: Path) -> None:
    """Say that the regressor of a run is no better than what looks at no image, where it was measured so."""
    if not (folder / QUALITY).is_file():
        return
    content = read_json(folder / QUALITY, dict[str, Any])
    try:
        quality = from_dict(Quality, content, strict=True)
    except (ValueError, TypeError) as error:
        problem = f"is damaged ({error})"
        raise InputError(folder / QUALITY, problem, "Train the regressor again") from None
    issues = Issues()
    for fault in quality.faults():
        problem = f"finds its way no better than chance: {fault}"
        remedy = "Train the regressor for longer or on more scans before it guides anything"
        issues.warning(folder, problem, remedy)
    say(issues)


def write_coordinate_maps(
    path: Path, names: Sequence[str], images: Sequence[Array], maps: Sequence[Array]
) -> None:
    """Write what the report shows: the middle planes of scans ``(C, *S)`` and of their coordinates ``(dims, *S)``."""
    arrays: dict[str, Array] = {"names": np.array(list(names))}
    for i, (image, coordinates) in enumerate(zip(images, maps, strict=True)):
        planes = middle_planes(np.concatenate([image[:1], coordinates]))
        for plane, values in planes.items():
            arrays[f"{i}-{plane}"] = values.astype(np.float32)
    write_arrays(path, arrays)


def middle_planes(array: Array) -> dict[str, Array]:
    """Middle planes of ``(C, *S)`` as ``(C, rows, columns)``, head up and the patient's right on the left."""
    if array.ndim == 3:
        return {"film": array}
    x, y, z = (n // 2 for n in array.shape[1:])
    return {
        "axial": array[:, :, :, z].swapaxes(1, 2)[:, ::-1, ::-1],
        "coronal": array[:, :, y].swapaxes(1, 2)[:, ::-1, ::-1],
        "sagittal": array[:, x].swapaxes(1, 2)[:, ::-1],
    }
