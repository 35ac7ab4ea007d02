"""``batches(step)`` is a pure function of (seed, step, rank): cases, patches, augmentation.

So an interrupted run continues bit for bit, and any batch can be reproduced.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..config import IGNORE, Augmentation
from ..errors import InputError
from .augment import Change, apply, draw
from .prepared import Prepared
from .scan import Array
from .streams import Stream

FOREGROUND_SHARE = 0.5
"""3D: probability that a patch is centered on a labelled voxel [related: vox2vec]."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one training step sees. Every tensor and tuple, of subclasses too, has an entry per image.

    Attributes:
        images: float32 ``(B, C, *S)`` in [-1, 1].
        labels: int64 ``(B, *S)``, 255 is ignore; None for unlabelled data.
        cases: Names of the cases.
    """

    images: Tensor
    labels: Tensor | None
    cases: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def part(self, start: int, stop: int) -> Self:
        """The images from ``start`` to ``stop``."""
        return self._each(lambda v: v[start:stop] if isinstance(v, Tensor | tuple) else v)

    def to(self, device: torch.device) -> Self:
        """The batch on another device."""
        return self._each(lambda v: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v)

    def _each(self, function: Callable[[Any], Any]) -> Self:
        values = {f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **values)


Sample = TypeVar("Sample")
SomeBatch = TypeVar("SomeBatch", bound=Batch)


class BatchSource(ABC, Generic[Sample, SomeBatch]):
    """Batches by step. Each epoch visits every case once, in a new order; a batch may span two epochs.

    A subclass says what one sample is, and how samples become a batch. ``batch_size`` counts the
    samples of all ranks.
    """

    streams: ClassVar[tuple[Stream, Stream]] = (Stream.ORDER, Stream.CASE)
    """What the order and the samples are drawn from."""

    def __init__(self, indices: Sequence[int], *, batch_size: int, seed: int) -> None:
        if not len(indices):
            raise ValueError("a batch needs at least one case")
        self.indices = tuple(int(index) for index in indices)
        self.batch_size = batch_size
        self.seed = seed

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> SomeBatch:
        """The batch of a step; with several ranks, the part of it that is the rank's."""
        size = self.batch_size // world
        first = step * self.batch_size + rank * size
        return self.collate([self._sample_at(position) for position in range(first, first + size)])

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """One sample of a case."""

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> SomeBatch:
        """Samples as a batch."""

    def _sample_at(self, position: int) -> Sample:
        epoch, place = divmod(position, len(self.indices))
        order = _order(self.streams[0], self.seed, epoch, len(self.indices))
        # Keyed by position, not by rank: two ranks together see what one would see.
        rng = self.streams[1].rng(self.seed, position)
        return self.sample(self.indices[order[place]], rng)


@lru_cache(maxsize=16)
def _order(stream: Stream, seed: int, epoch: int, count: int) -> Array:
    return stream.rng(seed, epoch).permutation(count)


Patch = tuple[Tensor, Tensor | None, Change, str]
"""Image ``(C, *S)``, label map ``(*S)`` or None, the change to apply, and name of the case."""


class Batches(BatchSource[Patch, Batch]):
    """Whole films, or patches of volumes, of all cases or of ``indices``, with label maps if there are any."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        indices: Sequence[int] | None = None,
    ) -> None:
        chosen = range(len(prepared)) if indices is None else indices
        super().__init__(chosen, batch_size=batch_size, seed=seed)
        self.prepared = prepared
        self.augmentation = augmentation
        dims = prepared.plan.spatial_dims
        if any(not 0 <= axis < dims for axis in augmentation.flip):
            where = f"--augmentation.flip {','.join(map(str, augmentation.flip))}"
            problem = f"the images have the axes 0 to {dims - 1}"
            raise InputError(where, problem, "Leave the other axes out")

    def sample(self, index: int, rng: np.random.Generator) -> Patch:
        """A film, or a random patch of a volume."""
        image = self.prepared.image(index)
        window = self._window(index, image.shape[1:], rng)
        # numpy converts float16 number by number, torch in vectors.
        part = torch.from_numpy(np.array(cut(image, window, -1.0))).float()
        label = None
        if self.prepared.labelled:
            whole = self.prepared.label(index)[None]
            label = torch.from_numpy(cut(whole, window, IGNORE)[0].astype(np.int64))
        change = draw(self.augmentation, self.prepared.plan.spatial_dims, rng)
        return part, label, change, self.prepared.cases[index].name

    def collate(self, samples: Sequence[Patch]) -> Batch:
        """All images changed together."""
        images, labels, changes, names = zip(*samples, strict=True)
        label = torch.stack(labels) if self.prepared.labelled else None
        changed, label = apply(changes, torch.stack(images), label)
        return Batch(changed, label, names)

    def _window(
        self, index: int, shape: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, ...] | None:
        """Start of the patch, which may be outside the volume, and its size; None for a whole film."""
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
        sides = zip(start, shape, plan.size, strict=True)
        return (*(s if n >= p else -((p - n) // 2) for s, n, p in sides), *plan.size)


@dataclasses.dataclass(frozen=True)
class Item:
    """A film, image ``row`` of a prepared set, and the number of its class."""

    prepared: Prepared
    row: int
    target: int


class ClassBatches(BatchSource[tuple[Tensor, Change, Item], Batch]):
    """Batches of films whose ``labels`` are classes, int64 ``(B,)``."""

    def __init__(
        self, items: Sequence[Item], *, batch_size: int, seed: int, augmentation: Augmentation
    ) -> None:
        super().__init__(range(len(items)), batch_size=batch_size, seed=seed)
        self.items = tuple(items)
        self.augmentation = augmentation

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Change, Item]:
        """A film, the change to apply, and its item."""
        item = self.items[index]
        film = torch.from_numpy(np.asarray(item.prepared.image(item.row), np.float32))
        return film, draw(self.augmentation, 2, rng), item

    def collate(self, samples: Sequence[tuple[Tensor, Change, Item]]) -> Batch:
        """All films changed together."""
        films, changes, items = zip(*samples, strict=True)
        images, _ = apply(changes, torch.stack(films), None)
        targets = torch.tensor([item.target for item in items])
        return Batch(images, targets, tuple(i.prepared.cases[i.row].name for i in items))


def center_cut(array: Array, size: Sequence[int]) -> Array:
    """The center of ``(C, *S)`` at the given size, padded with -1."""
    starts = tuple((n - p) // 2 for n, p in zip(array.shape[1:], size, strict=True))
    return cut(array, starts + tuple(size), -1.0)


def cut(array: Array, window: tuple[int, ...] | None, fill: float) -> Array:
    """Cut ``(C, *S)`` to a window given as (starts, sizes), padded with ``fill``."""
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
