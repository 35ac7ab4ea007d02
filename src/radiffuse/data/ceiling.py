"""The resolution ceiling: the best scores that a perfect network could reach on a grid.

Label maps are brought to each candidate grid and back by the functions that training and prediction use.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..config import IGNORE, fitting_size
from ..errors import InputError
from .body import boxes
from .cases import read_case_image, read_case_label
from .dataset import Case, Dataset
from .fingerprint import Fingerprint, evenly, threads_within_memory
from .plan import Plan, target_spacing
from .scan import Array, Scan, canonical_spacing, orientation
from .surfaces import near_surfaces, surface_distances
from .transform import label_to_plan, scores_to_scan, undo_of
from .workers import each

CASES = 8
"""Label maps that are tried, evenly chosen."""
VOXELS = 24_000_000
"""Most voxels, of all boxes around structures together, that are brought to a grid and back [ours]."""
MARGIN = 4
"""Voxels of the candidate grid around a structure; what is farther away has no part in its outline."""
SIDES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072)
"""Longer sides of candidate grids of films; each pixel has half or two thirds of the area of the one before [ours]."""
COARSER = (4.0, 2.83, 2.0, 1.41, 1.0)
"""Finest voxel side of candidate grids of volumes, in units of that of the target spacing [ours]."""
TOLERANCE = 2.0
"""Distance up to which surfaces agree, in mm (px where the spacing is unknown), as in ``radiffuse evaluate``."""
TARGET = (0.99, 0.95)
"""Dice and surface Dice that a grid should allow for every class."""

Grid = tuple[float, ...]
"""2D: rows and columns in which films are fitted. 3D: spacing in mm."""


@dataclass(frozen=True)
class Ceiling:
    """What a grid allows; classes in the order of ``Fingerprint.classes``, NaN where none of the tried cases has it.

    Attributes:
        grid: See ``Grid``.
        dice: The best Dice of each class, mean over cases.
        surface: The best surface Dice, within ``TOLERANCE``.
    """

    grid: Grid
    dice: tuple[float, ...]
    surface: tuple[float, ...]

    def row(self, names: Sequence[str]) -> dict[str, Any]:
        """The ceiling as plain values: the grid, and Dice and surface Dice of each class that a case has."""
        scores = zip(names, self.dice, self.surface, strict=True)
        return {
            "grid": self.grid,
            "classes": {n: (round(d, 4), round(s, 4)) for n, d, s in scores if not math.isnan(d)},
        }

    def reaches(self, target: tuple[float, float] = TARGET) -> bool:
        """Whether every class can reach the Dice and surface Dice of the target."""
        return all(
            not score < wanted
            for scores, wanted in zip((self.dice, self.surface), target, strict=True)
            for score in scores
        )


def sufficient(ceilings: Sequence[Ceiling], target: tuple[float, float] = TARGET) -> Ceiling | None:
    """That of the coarsest grid that reaches the target; ``ceilings`` are from the coarsest on."""
    return next((ceiling for ceiling in ceilings if ceiling.reaches(target)), None)


def candidates(found: Fingerprint) -> list[Grid]:
    """Grids from the coarsest to the finest: of films with their median aspect, of volumes to the target spacing."""
    if found.spatial_dims == 3:
        finest = target_spacing(found)
        sides = [min(finest) * factor for factor in COARSER]
        return [tuple(round(max(mm, side), 4) for mm in finest) for side in sides]
    shape = np.median(found.shapes, axis=0)
    longest = float(max(shape))
    grids = [
        tuple(map(float, fitting_size([math.ceil(n * side / longest) for n in shape])))
        for side in (*(side for side in SIDES if side < 0.9 * longest), longest)
    ]
    return list(dict.fromkeys(grids))


def find_ceilings(
    dataset: Dataset,
    found: Fingerprint,
    grids: Sequence[Grid],
    *,
    target: tuple[float, float] = TARGET,
    workers: int | None = None,
) -> tuple[Ceiling, ...]:
    """The ceilings of grids from the coarsest on, up to the first that reaches the target; () without labels.

    ``found`` is the fingerprint of the data set, with classes; ``grids`` are in the order of ``candidates``.
    """
    cases = dataset.labelled.cases
    chosen = [cases[i] for i in evenly(len(cases), CASES)] if cases and found.classes else []
    workers = threads_within_memory(chosen, workers)
    pieces: list[_Piece] = []
    room = VOXELS
    for _, scan in each(_placed_label, chosen, workers=workers):
        if isinstance(scan, InputError):
            continue
        of_case = list(_pieces(scan, grids[0]))
        size = sum(piece.mask.size for piece in of_case)
        if not pieces or size <= room:
            pieces, room = pieces + of_case, room - size
    results: list[Ceiling] = []
    for grid in grids if pieces else ():
        scores: dict[int, list[tuple[float, float]]] = {}
        for piece, score in each(partial(_score, grid=grid), pieces, workers=workers):
            assert not isinstance(score, InputError)
            scores.setdefault(piece.value, []).append(score)
        nothing = [(math.nan, math.nan)]
        means = [np.mean(scores.get(v + 1, nothing), axis=0) for v in range(len(found.classes))]
        dice, surface = (tuple(float(mean[k]) for mean in means) for k in (0, 1))
        results.append(Ceiling(grid, dice, surface))
        if results[-1].reaches(target):
            break
    return tuple(results)


# ------------------------------------------------------------------------------------------------ internal


def _placed_label(case: Case) -> Scan:
    """The label map; one that does not say the size of a pixel has the geometry of its image, which is read for it."""
    label = read_case_label(case)
    return read_case_label(case, read_case_image(case)) if label.spacing is None else label


@dataclass(frozen=True, eq=False)
class _Piece:
    """The box around a class in a case, on the axes of the plan: 1 inside, 0 outside, 255 ignored."""

    value: int
    mask: Array
    spacing: tuple[float, ...] | None
    shape: tuple[int, ...]


def _pieces(scan: Scan, coarsest: Grid) -> Iterator[_Piece]:
    axes = orientation(scan)[0]
    label = scan.array[0].transpose(axes)
    spacing = canonical_spacing(scan) if scan.spacing is not None else None
    if scan.spatial_dims == 2:
        factor = min(side / n for side, n in zip(coarsest, label.shape, strict=True))
        reach = [math.ceil(MARGIN / factor)] * 2
    else:
        steps = zip(coarsest, canonical_spacing(scan), strict=True)
        reach = [math.ceil(MARGIN * max(1.0, mm / own)) for mm, own in steps]
    for value, box in boxes(label).items():
        sides = [
            [max(0, side.start - r), min(n, side.stop + r)]
            for side, r, n in zip(box, reach, label.shape, strict=True)
        ]
        while math.prod(last - first for first, last in sides) > VOXELS // 4:
            side = max(sides, key=lambda ends: ends[1] - ends[0])
            quarter = (side[1] - side[0]) // 4
            side[:] = side[0] + quarter, side[1] - quarter
        part = label[tuple(slice(*ends) for ends in sides)]
        mask = np.where(part == IGNORE, IGNORE, part == value).astype(np.uint8)
        yield _Piece(value, mask, spacing, label.shape)


def _score(piece: _Piece, grid: Grid) -> tuple[float, float]:
    """Dice and surface Dice of the mask that comes back."""
    scan = Scan(piece.mask[None], piece.spacing)
    if scan.spatial_dims == 2:
        factor = min(side / n for side, n in zip(grid, piece.shape, strict=True))
        size = tuple(max(1, round(n * factor)) for n in piece.mask.shape)
        plan = Plan(2, ("label",), (), size)
    else:
        plan = Plan(3, ("label",), (), (8, 8, 8), spacing=grid)
    there = torch.from_numpy(label_to_plan(scan, plan))
    scores = torch.stack([there != 1, there == 1]).float()
    back, _ = scores_to_scan(scores, undo_of(scan, plan))
    true, predicted = piece.mask == 1, (back == 1) & (piece.mask != IGNORE)
    if not predicted.any():
        return 0.0, 0.0
    dice = 2 * int((true & predicted).sum()) / (int(true.sum()) + int(predicted.sum()))
    step = np.asarray(piece.spacing or (1.0,) * true.ndim)
    return dice, near_surfaces(surface_distances(predicted, true, step), TOLERANCE)
