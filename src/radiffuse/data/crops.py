"""Pairs of crops of the same scan with their places, from which the body-part regressor learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import Augmentation
from ..config.groups import MOVES
from ..errors import InputError
from .augment import augmented
from .batches import Batch, BatchSource, cut
from .body import NOT_DARK
from .plan import Plan
from .prepared import Prepared
from .shading import shaded
from .streams import Stream


@dataclass(frozen=True)
class CropPairs(Batch):
    """A batch whose ``images`` are first crops.

    Attributes:
        others: float32 ``(B, C, *S)``, a second crop of each scan, changed on its own.
        places: float32 ``(B, 2, dims)``, first voxel of both crops in the plan's grid.
        body: Voxels above this, of [-1, 1], count as the body, see ``Plan.body``.
    """

    others: Tensor
    places: Tensor
    body: float = NOT_DARK

    @property
    def seen(self) -> int:
        """Both crops of every pair."""
        return 2 * len(self)


Pair = tuple[list[Tensor], tuple[tuple[int, ...], tuple[int, ...]], str]
"""Both crops ``(C, *S)``, the first voxel of each, and the name of the case."""


class CropPairBatches(BatchSource[Pair, CropPairs]):
    """Batches of crop pairs.

    Args:
        prepared: The arrays.
        size: Voxels of a crop along each axis.
        batch_size: Pairs per step over all ranks.
        seed: Seed of order, crops and changes.
        augmentation: Changes of intensity alone, since places are learned.
        indices: Which cases to use.
        nearby: The second crop starts within half a crop of the first, so that they overlap.

    Raises:
        InputError: The augmentation moves voxels.
    """

    streams = (Stream.PAIR_ORDER, Stream.PAIR)

    def __init__(
        self,
        prepared: Prepared,
        size: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        indices: Sequence[int],
        nearby: bool = False,
    ) -> None:
        for name in MOVES.split():
            if getattr(augmentation, name):
                where = f"--augmentation.{name} {getattr(augmentation, name)}"
                problem = "moves voxels, whose places are learned"
                raise InputError(where, problem, "Use changes of intensity alone")
        super().__init__(indices, batch_size=batch_size, seed=seed)
        self.prepared = prepared
        self.size = tuple(size)
        self.augmentation = shaded(augmentation, prepared.plan.intensity)
        self.nearby = nearby

    def sample(self, index: int, rng: np.random.Generator) -> Pair:
        """Two crops of a scan, each with its own change."""
        image = self.prepared.image(index)
        corners = self._corners(image.shape[1:], rng)
        cuts = [cut(image, (*corner, *self.size), -1.0).astype(np.float32) for corner in corners]
        crops = [augmented(torch.from_numpy(part), self.augmentation, rng) for part in cuts]
        return crops, corners, self.prepared.cases[index].name

    def collate(self, samples: Sequence[Pair]) -> CropPairs:
        """First crops together, and second ones."""
        crops, corners, names = zip(*samples, strict=True)
        first, second = (torch.stack(side) for side in zip(*crops, strict=True))
        places = torch.tensor(corners, dtype=torch.float32)
        return CropPairs(first, None, names, second, places, self.prepared.plan.body)

    def _corners(
        self, shape: Sequence[int], rng: np.random.Generator
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Random first voxels of both crops; before the scan where the crop is larger."""
        first, second = [], []
        for n, p in zip(shape, self.size, strict=True):
            if n < p:
                first.append(-((p - n) // 2))
                second.append(-((p - n) // 2))
                continue
            first.append(int(rng.integers(n - p + 1)))
            low = max(0, first[-1] - p // 2) if self.nearby else 0
            high = min(n - p, first[-1] + p // 2) if self.nearby else n - p
            second.append(int(rng.integers(low, high + 1)))
        return tuple(first), tuple(second)


def crop_size(plan: Plan, fraction: float, multiple: Sequence[int]) -> tuple[int, ...]:
    """Voxels of a crop: a fraction of each side of the film or patch, rounded down to a multiple for each axis."""
    sides = zip(plan.size, multiple, strict=True)
    return tuple(max(m, int(n * fraction) // m * m) for n, m in sides)


def choose_voxels(images: Tensor, keys: Tensor, count: int, body: float) -> Tensor:
    """Flat indices ``(B, count)`` of random voxels of the body, of others where it has too few.

    ``images`` are ``(B, C, *S)``, ``keys`` uniform numbers ``(B, N)``, one per voxel.
    """
    inside = (images.amax(1) > body).flatten(1)
    return (keys + ~inside).topk(min(count, keys.shape[1]), dim=1, largest=False).indices


def unravel(indices: Tensor, grid: Sequence[int]) -> Tensor:
    """Flat indices ``(B, P)`` as voxels ``(B, dims, P)``."""
    return torch.stack(torch.unravel_index(indices, tuple(grid)), dim=1).float()


def same_voxels(indices: Tensor, shift: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Flat indices of the same voxels in the other crop, and whether they lie in it."""
    places = unravel(indices, grid).long() + shift[:, :, None]
    limits = torch.tensor(list(grid), device=indices.device)[None, :, None]
    inside = ((places >= 0) & (places < limits)).all(1)
    clamped = torch.minimum(places.clamp(min=0), limits - 1)
    flat = torch.zeros_like(indices)
    for axis, extent in enumerate(grid):
        flat = flat * extent + clamped[:, axis]
    return flat, inside
