"""Training batches of images with their class, out of several prepared sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..config import Augmentation
from .augment import apply, draw
from .batches import Batch
from .prepared import Prepared
from .scan import Array


@dataclass(frozen=True)
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


class ClassBatches:
    """Batches by step, a pure function of (seed, step, rank); each epoch visits every film once.

    ``Batch.labels`` are the classes, int64 ``(B,)``.

    Args:
        items: The films.
        batch_size: Films per step over all ranks.
        seed: Seed of order and augmentation.
        augmentation: What may be changed.
    """

    def __init__(
        self, items: Sequence[Item], *, batch_size: int, seed: int, augmentation: Augmentation
    ) -> None:
        if not items:
            raise ValueError("a batch needs at least one film")
        self.items = tuple(items)
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self._order = lru_cache(maxsize=4)(self._shuffle)

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The batch of a step; with several ranks, the rank's share of it."""
        share = self.batch_size // world
        first = step * self.batch_size + rank * share
        images, targets, names, changes = [], [], [], []
        for position in range(first, first + share):
            epoch, place = divmod(position, len(self.items))
            item = self.items[self._order(epoch)[place]]
            images.append(np.asarray(item.prepared.image(item.row), np.float32))
            targets.append(item.target)
            names.append(item.prepared.cases[item.row].name)
            # Keyed by position, not by rank: two ranks see together what one rank would see.
            rng = np.random.default_rng((self.seed, 1, position))
            changes.append(draw(self.augmentation, 2, rng))
        films, _ = apply(changes, torch.from_numpy(np.stack(images)), None)
        return Batch(films, torch.tensor(targets), tuple(names))

    def _shuffle(self, epoch: int) -> Array:
        return np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.items))
