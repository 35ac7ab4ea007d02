"""``batches(step)`` is a pure function of (seed, step, rank): which cases, which patches, which augmentation.

So a run that is stopped anywhere goes on bit for bit, and any batch can be looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..config import IGNORE, Augmentation
from ..errors import InputError
from .augment import apply, draw
from .prepared import Prepared
from .scan import Array

FOREGROUND_SHARE = 0.5
"""3D: how often a patch is centered on a labelled voxel [related: vox2vec]."""


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    Attributes:
        images: float32 ``(B, C, *S)`` in [-1, 1].
        labels: int64 ``(B, *S)``, 255 is ignore; None for unlabelled data.
        cases: Names of the cases, for error messages.
    """

    images: Tensor
    labels: Tensor | None
    cases: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int) -> Batch:
        """The images from ``start`` to ``stop``."""
        labels = None if self.labels is None else self.labels[start:stop]
        return Batch(self.images[start:stop], labels, self.cases[start:stop])

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        return Batch(self.images.to(device, non_blocking=True), labels, self.cases)


class Batches:
    """Training batches by step.

    Each epoch visits every case once, in an order of its own; a batch may span two epochs.

    Args:
        prepared: The arrays.
        batch_size: Images per step over all ranks.
        seed: Seed of order, patches and augmentation.
        augmentation: What may be changed.
        indices: Which cases to use; None: all.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.prepared = prepared
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.indices = tuple(range(len(prepared))) if indices is None else tuple(indices)
        if not self.indices:
            raise ValueError("a batch needs at least one case")
        dims = prepared.plan.spatial_dims
        if any(not 0 <= axis < dims for axis in augmentation.flip):
            raise InputError(
                f"--augmentation.flip {','.join(map(str, augmentation.flip))}",
                f"the images have the axes 0 to {dims - 1}",
                "Leave the other axes out",
            )
        self._order = lru_cache(maxsize=4)(self._shuffle)

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a step; with several ranks, the rank's share of it."""
        share = self.batch_size // world
        first = step * self.batch_size + rank * share
        return self._collect(range(first, first + share))

    def _collect(self, positions: range) -> Batch:
        images, labels, names, changes = [], [], [], []
        dims = self.prepared.plan.spatial_dims
        for position in positions:
            epoch, place = divmod(position, len(self.indices))
            index = self.indices[self._order(epoch)[place]]
            # Keyed by position, not by rank: two ranks see together what one rank would see.
            rng = np.random.default_rng((self.seed, 1, position))
            image = self.prepared.image(index)
            window = self._window(index, image.shape[1:], rng)
            # numpy converts float16 number by number, torch in vectors.
            part = np.array(cut(image, window, -1.0))
            images.append(torch.from_numpy(part).float())
            if self.prepared.labelled:
                labels.append(
                    cut(self.prepared.label(index)[None], window, IGNORE)[0].astype(np.int64)
                )
            changes.append(draw(self.augmentation, dims, rng))
            names.append(self.prepared.cases[index].name)
        label = torch.from_numpy(np.stack(labels)) if labels else None
        augmented, label = apply(changes, torch.stack(images), label)
        return Batch(augmented, label, tuple(names))

    def _shuffle(self, epoch: int) -> Array:
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.indices))

    def _window(
        self, index: int, shape: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, ...] | None:
        """Where the patch starts, which may be before the volume; None for a whole film."""
        plan = self.prepared.plan
        if plan.spatial_dims == 2:
            return None
        room = [max(0, n - p) for n, p in zip(shape, plan.size, strict=True)]
        start = [int(rng.integers(r + 1)) for r in room]
        if self.prepared.labelled and rng.random() < FOREGROUND_SHARE:
            points = self.prepared.foreground(index)
            if len(points):
                center = points[rng.integers(len(points))]
                start = [
                    int(np.clip(c - p // 2, 0, r))
                    for c, p, r in zip(center, plan.size, room, strict=True)
                ]
        # A volume smaller than the patch is centered in it.
        return (
            tuple(
                s if n >= p else -((p - n) // 2)
                for s, n, p in zip(start, shape, plan.size, strict=True)
            )
            + plan.size
        )


def center_cut(array: Array, size: Sequence[int]) -> Array:
    """The middle of ``(C, *S)`` at the given size, filled with -1 where it is smaller."""
    starts = tuple((n - p) // 2 for n, p in zip(array.shape[1:], size, strict=True))
    return cut(array, starts + tuple(size), -1.0)


def cut(array: Array, window: tuple[int, ...] | None, fill: float) -> Array:
    """Cut ``(C, *S)`` to a window given as (starts, sizes), filling what lies outside."""
    if window is None:
        return array
    dims = array.ndim - 1
    starts, sizes = window[:dims], window[dims:]
    inside = tuple(
        slice(max(0, s), min(n, s + p))
        for s, p, n in zip(starts, sizes, array.shape[1:], strict=True)
    )
    part = array[(slice(None), *inside)]
    if part.shape[1:] == tuple(sizes):
        return part
    result = np.full((array.shape[0], *sizes), fill, array.dtype)
    target = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, starts, strict=True))
    result[(slice(None), *target)] = part
    return result
