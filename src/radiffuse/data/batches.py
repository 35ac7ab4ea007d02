"""``batches(step)`` is a pure function of (seed, step, rank): which cases, which patches, which augmentation.

So a run that is stopped anywhere goes on bit for bit, and any batch can be looked at again.
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
"""3D: how often a patch is centered on a labelled voxel [related: vox2vec]."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one training step sees. Every tensor and tuple of it has one entry per image, subclasses' too.

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
    """Batches by step. Each epoch visits every case once, in an order of its own; a batch may span two epochs.

    A subclass says what one sample is, and how samples become a batch.

    Args:
        indices: Which cases to use.
        batch_size: Samples per step over all ranks.
        seed: Seed of the order and of all that is random in a sample.
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
        """One sample of a case.

        Args:
            index: The case.
            rng: Where every draw comes from.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Sample]) -> SomeBatch:
        """Samples as a batch."""

    def _sample_at(self, position: int) -> Sample:
        epoch, place = divmod(position, len(self.indices))
        order = _order(self.streams[0], self.seed, epoch, len(self.indices))
        # Keyed by position, not by rank: two ranks see together what one rank would see.
        rng = self.streams[1].rng(self.seed, position)
        return self.sample(self.indices[order[place]], rng)


@lru_cache(maxsize=16)
def _order(stream: Stream, seed: int, epoch: int, count: int) -> Array:
    return stream.rng(seed, epoch).permutation(count)


Patch = tuple[Tensor, Tensor | None, Change, str]
"""Image ``(C, *S)``, label map ``(*S)`` or None, both unchanged; their change; name of the case."""


class Batches(BatchSource[Patch, Batch]):
    """Whole films, or patches of volumes, with their label maps where there are any.

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
        chosen = range(len(prepared)) if indices is None else indices
        super().__init__(chosen, batch_size=batch_size, seed=seed)
        self.prepared = prepared
        self.augmentation = augmentation
        dims = prepared.plan.spatial_dims
        if any(not 0 <= axis < dims for axis in augmentation.flip):
            raise InputError(
                f"--augmentation.flip {','.join(map(str, augmentation.flip))}",
                f"the images have the axes 0 to {dims - 1}",
                "Leave the other axes out",
            )

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
        """Where the patch starts, which may be before the volume, and its size; None for a whole film."""
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


@dataclasses.dataclass(frozen=True)
class Item:
    """A film and its class.

    Attributes:
        prepared: The set it is in.
        row: Its place there.
        target: Number of its class.
    """

    prepared: Prepared
    row: int
    target: int


class ClassBatches(BatchSource[tuple[Tensor, Change, Item], Batch]):
    """Batches whose ``labels`` are the classes, int64 ``(B,)``.

    Args:
        items: The films.
        batch_size: Films per step over all ranks.
        seed: Seed of order and augmentation.
        augmentation: What may be changed.
    """

    def __init__(
        self, items: Sequence[Item], *, batch_size: int, seed: int, augmentation: Augmentation
    ) -> None:
        super().__init__(range(len(items)), batch_size=batch_size, seed=seed)
        self.items = tuple(items)
        self.augmentation = augmentation

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Change, Item]:
        """A film as it is, its change, and what it is."""
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
