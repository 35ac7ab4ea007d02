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
from torch.nn import functional

from ..config import IGNORE, Augmentation
from ..errors import InputError
from .augment import Change, apply_changes, draw_change
from .cutmix import giver, pasted
from .prepared import Prepared
from .scan import Array
from .shading import shaded
from .streams import Stream
from .transform import resize_image

FOREGROUND_SHARE = 0.5
"""Probability that a patch is centered on a voxel of the foreground [related: vox2vec]."""


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

    @property
    def seen(self) -> int:
        """How many images a network sees in a step on this batch."""
        return len(self)

    def part(self, start: int, stop: int) -> Self:
        """The images from ``start`` to ``stop``."""
        return self._each(lambda v: v[start:stop] if isinstance(v, Tensor | tuple) else v)

    def halved(self, place: int) -> Self:
        """The batch at half the resolution: of an image the mean of 2 x 2 (x 2) voxels, of a label map one of them.

        Args:
            place: Which one, counted along the axes, modulo their number; the sides are even.
        """
        if self.labels is None:
            return dataclasses.replace(self, images=halved(self.images))
        first = (slice(place >> axis & 1, None, 2) for axis in range(self.images.ndim - 2))
        labels = self.labels[(slice(None), *first)]
        return dataclasses.replace(self, images=halved(self.images), labels=labels)

    def to(self, device: torch.device) -> Self:
        """The batch on another device."""
        return self._each(lambda v: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v)

    def _each(self, function: Callable[[Any], Any]) -> Self:
        values = {f.name: function(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **values)


def halved(images: Tensor) -> Tensor:
    """Images ``(B, C, *S)`` at half the resolution: means of 2 x 2 (x 2) voxels."""
    mean = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
    return mean(images, 2)


Sample = TypeVar("Sample")
SomeBatch = TypeVar("SomeBatch", bound=Batch)


class BatchSource(ABC, Generic[Sample, SomeBatch]):
    """Batches by step. Each epoch visits every case once, in a new order; a batch may span two epochs.

    A subclass says what one sample is, and how samples become a batch. ``batch_size`` counts the
    samples of all ranks.
    """

    streams: ClassVar[tuple[Stream, Stream]] = (Stream.ORDER, Stream.CASE)
    """What the order and the samples are drawn from."""
    device = torch.device("cpu")
    """Where images are changed, and given."""

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
    """Whole films or patches, of all cases or of ``indices``, with label maps if there are any.

    A patch of a labelled image is centered on the foreground half the time: a class of the image is drawn first, then a
    voxel of it, so that small structures are seen as often as large ones [related: vox2vec, nnU-Net].

    Args:
        prepared: The arrays.
        batch_size: Images per step over all ranks.
        seed: Seed of order, patches and changes.
        augmentation: Changes of the patches; flips that are None are those of the plan.
        indices: Which cases to use; None: all.
        zoom: Without labels: patches are cut at up to this many times the network's and shrunk to it, uniformly
            in the logarithm, so that it learns both anatomy and edges; None: up to the whole image [ours].
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        indices: Sequence[int] | None = None,
        zoom: float | None = 1.0,
    ) -> None:
        assert zoom == 1.0 or not prepared.labelled
        chosen = range(len(prepared)) if indices is None else indices
        super().__init__(chosen, batch_size=batch_size, seed=seed)
        self.prepared = prepared
        plan, flip = prepared.plan, augmentation.flip or ()
        self.augmentation, self.zoom = shaded(augmentation, plan.intensity), zoom
        self.mirrored = plan.mirror if augmentation.flip is None else None
        self.around = self.mirrored is not None and prepared.labelled
        dims = plan.spatial_dims
        if any(not 0 <= axis < dims for axis in flip):
            where = f"--augmentation.flip {','.join(map(str, flip))}"
            problem = f"the images have the axes 0 to {dims - 1}"
            raise InputError(where, problem, "Leave the other axes out")

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rank's part of the batch of a step, with boxes of other images pasted in, be they of another rank."""
        if not self.augmentation.cutmix:
            return super().__call__(step, rank, world)
        total, size = self.batch_size, self.batch_size // world
        first = step * total
        samples = {n: self._sample_at(first + n) for n in range(rank * size, (rank + 1) * size)}
        boxes = [change.box for _, _, change, _ in samples.values()]
        givers = [giver(box, n, total) for box, n in zip(boxes, samples, strict=True)]
        for n in sorted({*givers} - samples.keys()):
            samples[n] = self._sample_at(first + n)
        batch = self.collate(list(samples.values()))
        assert batch.labels is not None
        places = [list(samples).index(n) for n in givers]
        images, labels = pasted(batch.images, batch.labels, boxes, places)
        return Batch(images, labels, batch.cases[:size])

    def sample(self, index: int, rng: np.random.Generator) -> Patch:
        """A whole film, or a random patch, with as much around it as its change brings into it."""
        image = self.prepared.image(index)
        window = self._window(index, image.shape[1:], rng)
        plan = self.prepared.plan
        change = draw_change(self.augmentation, plan.spatial_dims, rng, plan.mirror, plan.spacing)
        if window is not None and self.around:
            window = widened(window, change.reach(plan.size))
        # numpy converts float16 number by number, torch in vectors.
        part = torch.from_numpy(np.array(cut(image, window, -1.0))).float()
        if self.zoom != 1.0:
            part = _shrunk(part, self.prepared.plan.size)
        label = None
        if self.prepared.labelled:
            whole = self.prepared.label(index)[None]
            label = torch.from_numpy(cut(whole, window, IGNORE)[0].copy())
        return part, label, change, self.prepared.cases[index].name

    def collate(self, samples: Sequence[Patch]) -> Batch:
        """All images changed together, or each by itself where they come with different surroundings."""
        images, labels, changes, names = zip(*samples, strict=True)
        labelled = self.prepared.labelled
        if len({image.shape for image in images}) > 1:
            parts = [self.collate([sample]) for sample in samples]
            label = (
                torch.cat([p.labels for p in parts if p.labels is not None]) if labelled else None
            )
            return Batch(torch.cat([part.images for part in parts]), label, names)
        label = torch.stack(labels).to(self.device) if labelled else None
        image = torch.stack(images).to(self.device)
        image, label = apply_changes(changes, image, label, self.mirrored, self.prepared.plan.size)
        return Batch(image, None if label is None else label.long(), names)

    def _window(
        self, index: int, shape: Sequence[int], rng: np.random.Generator
    ) -> tuple[int, ...] | None:
        """Start of the patch, which may be outside the image, and its size; None for a whole film."""
        if self.prepared.plan.whole:
            return None
        size = self._size(shape, rng)
        room = [max(0, n - p) for n, p in zip(shape, size, strict=True)]
        start = [int(rng.integers(r + 1)) for r in room]
        if self.prepared.labelled and rng.random() < FOREGROUND_SHARE:
            points = self.prepared.foreground(index)
            if len(points):
                places = points[points[:, 0] == rng.choice(np.unique(points[:, 0])), 1:]
                sides = zip(places[rng.integers(len(places))], size, room, strict=True)
                start = [int(np.clip(c - p // 2, 0, r)) for c, p, r in sides]
        # An image smaller than the patch is centered in it.
        sides = zip(start, shape, size, strict=True)
        return (*(s if n >= p else -((p - n) // 2) for s, n, p in sides), *size)

    def _size(self, shape: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
        """Size of the patch to cut, before it is shrunk to that of the network."""
        size = self.prepared.plan.size
        largest = max(n / p for n, p in zip(shape, size, strict=True))
        if self.zoom is not None:
            largest = min(largest, self.zoom)
        if largest <= 1:
            return size
        factor = float(np.exp(rng.uniform(0, np.log(largest))))
        return tuple(round(n * factor) for n in size)


def _shrunk(part: Tensor, size: Sequence[int]) -> Tensor:
    """``(C, *S)`` at a size no larger; volumes by means of whole voxels first, which is much faster."""
    if part.ndim == 4:
        steps = [max(1, n // p) for n, p in zip(part.shape[1:], size, strict=True)]
        part = functional.avg_pool3d(part[None], steps)[0]
    return resize_image(part, tuple(size))


@dataclasses.dataclass(frozen=True)
class ClassifiedFilm:
    """A film, image ``row`` of a prepared set, and the number of its class."""

    prepared: Prepared
    row: int
    target: int


class ClassBatches(BatchSource[tuple[Tensor, Change, ClassifiedFilm], Batch]):
    """Batches of films whose ``labels`` are classes, int64 ``(B,)``."""

    def __init__(
        self,
        items: Sequence[ClassifiedFilm],
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        super().__init__(range(len(items)), batch_size=batch_size, seed=seed)
        self.items = tuple(items)
        self.augmentation = shaded(augmentation, items[0].prepared.plan.intensity)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Change, ClassifiedFilm]:
        """A film, the change to apply, and its item."""
        item = self.items[index]
        film = torch.from_numpy(np.asarray(item.prepared.image(item.row), np.float32))
        return film, draw_change(self.augmentation, 2, rng), item

    def collate(self, samples: Sequence[tuple[Tensor, Change, ClassifiedFilm]]) -> Batch:
        """All films changed together."""
        films, changes, items = zip(*samples, strict=True)
        images, _ = apply_changes(changes, torch.stack(films).to(self.device), None)
        targets = torch.tensor([item.target for item in items])
        return Batch(images, targets, tuple(i.prepared.cases[i.row].name for i in items))


def widened(window: tuple[int, ...], margin: Sequence[int]) -> tuple[int, ...]:
    """A window given as (starts, sizes), with a margin along each axis on both sides."""
    starts, sizes = window[: len(margin)], window[len(margin) :]
    return (
        *(s - m for s, m in zip(starts, margin, strict=True)),
        *(p + 2 * m for p, m in zip(sizes, margin, strict=True)),
    )


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
