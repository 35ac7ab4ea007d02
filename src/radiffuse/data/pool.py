"""Batches of unlabelled images, the pool, beside the labelled ones: a second stream of the same kind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ..config import Augmentation
from ..config.groups import MOVES
from .augment import Change
from .batches import Batch, Batches, BatchSource, Patch, halved
from .prepared import Prepared
from .streams import Stream


@dataclasses.dataclass(frozen=True)
class PoolBatch(Batch):
    """A batch of unlabelled images as they are; ``changes`` says how each is to be changed."""

    changes: tuple[Change, ...]


@dataclasses.dataclass(frozen=True)
class PooledBatch(Batch):
    """A batch of labelled images, each with one of the pool.

    Attributes:
        pool: float32 ``(B, C, *S)`` in [-1, 1], as they are.
        changes: How each is to be changed.
        strength: How much the pool counts at this step, from 0 to 1.
    """

    pool: Tensor
    changes: tuple[Change, ...]
    strength: float

    def halved(self, place: int) -> Self:
        """Images of the pool as well; what changes them moves shares of an image, and blurs pixels of this one."""
        return dataclasses.replace(super().halved(place), pool=halved(self.pool))


class PoolBatches(BatchSource[Patch, PoolBatch]):
    """Whole films or patches of several pools.

    Each image of the largest pool comes once in an epoch, those of another one so often that its share grows with the
    square root of its images, as nearly as whole times allow: 88 beside 2,100 are 17 % of what is seen, not 4 %
    [related: sampling of languages with few texts, Conneau et al. 2019, arXiv 1911.02116]. Equal shares would let a
    handful of images be learned by heart.

    Args:
        pools: Arrays of each pool, and which cases to use.
        batch_size: Images per step over all ranks.
        seed: Seed of order, patches and changes.
        augmentation: How images are moved.
        strong: How their intensities change.
    """

    streams = (Stream.POOL_ORDER, Stream.POOL)

    def __init__(
        self,
        pools: Sequence[tuple[Prepared, Sequence[int]]],
        *,
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        strong: Augmentation,
    ) -> None:
        moves = {name: getattr(augmentation, name) for name in MOVES.split()}
        changes = dataclasses.replace(strong, **moves)
        self.places: list[tuple[Batches, int]] = []
        largest = max(len(indices) for _, indices in pools)
        for prepared, indices in pools:
            source = Batches(prepared, batch_size=batch_size, seed=seed, augmentation=changes)
            times = round(math.sqrt(largest / len(indices)))
            self.places += times * [(source, index) for index in indices]
        super().__init__(range(len(self.places)), batch_size=batch_size, seed=seed)

    def sample(self, index: int, rng: np.random.Generator) -> Patch:
        """A whole film, or a random patch."""
        source, place = self.places[index]
        return source.sample(place, rng)

    def collate(self, samples: Sequence[Patch]) -> PoolBatch:
        """The images with their changes, which are yet to be applied."""
        images, _, changes, names = zip(*samples, strict=True)
        return PoolBatch(torch.stack(images), None, names, changes)


class WithPool:
    """``batches(step, rank, world)`` of labelled images, each with one of the pool from the step on at which it counts.

    Args:
        labelled: The labelled batches.
        pool: The pool's, of the same size.
        strength: How much the pool counts at a step, from 0 to 1.
    """

    def __init__(
        self,
        labelled: Callable[[int, int, int], Batch],
        pool: PoolBatches,
        strength: Callable[[int], float],
    ) -> None:
        self.labelled, self.pool, self.strength = labelled, pool, strength

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rank's part of the batch of a step."""
        batch, strength = self.labelled(step, rank, world), self.strength(step)
        if not strength:
            return batch
        pool = self.pool(step, rank, world)
        cases = tuple(f"{a} with {b}" for a, b in zip(batch.cases, pool.cases, strict=True))
        return PooledBatch(batch.images, batch.labels, cases, pool.images, pool.changes, strength)
