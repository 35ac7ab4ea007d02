"""Training batches of images with their class, out of several prepared sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import Augmentation
from .augment import Change, apply, draw
from .batches import Batch, BatchSource
from .prepared import Prepared


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
