"""Multi-crop: several views of each film, two large and some small (Caron et al. 2020), pure functions of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import Augmentation
from ..data.augment import apply, draw
from ..data.batches import Batch
from ..data.prepared import Prepared
from ..data.scan import Array

ASPECT = 4 / 3
"""Largest ratio of a crop's sides. [related]"""
LARGE = 2


@dataclass(frozen=True)
class Views(Batch):
    """A batch whose ``images`` are the large crops, float32 ``(B, 2, C, S, S)``.

    Attributes:
        small: float32 ``(B, L, C, S / 2, S / 2)``.
    """

    small: Tensor

    def part(self, start: int, stop: int) -> Views:
        """The images from ``start`` to ``stop``."""
        rows = slice(start, stop)
        return Views(self.images[rows], None, self.cases[rows], self.small[rows])

    def to(self, device: torch.device) -> Views:
        """The batch on another device."""
        images, small = (t.to(device, non_blocking=True) for t in (self.images, self.small))
        return Views(images, None, self.cases, small)


class ViewBatches:
    """Batches of views by step.

    Args:
        prepared: The arrays, of films.
        size: Pixels of a large crop along each axis; a small one has half.
        local_crops: Small crops per film.
        global_scale: Lowest and highest share of the area in a large crop.
        local_scale: The same for a small one.
        batch_size: Films per step over all ranks.
        seed: Seed of order, crops and changes.
        augmentation: Changes of intensity, drawn for each crop; a flip is drawn too.
        indices: Which cases to use.
    """

    def __init__(
        self,
        prepared: Prepared,
        size: int,
        *,
        local_crops: int,
        global_scale: Sequence[float],
        local_scale: Sequence[float],
        batch_size: int,
        seed: int,
        augmentation: Augmentation,
        indices: Sequence[int],
    ) -> None:
        self.prepared = prepared
        self.size = size
        self.scales = [tuple(global_scale)] * LARGE + [tuple(local_scale)] * local_crops
        self.batch_size = batch_size
        self.seed = seed
        self.augmentation = augmentation
        self.indices = tuple(indices)
        self._order = lru_cache(maxsize=4)(self._shuffle)

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Views:
        """The batch of a step; with several ranks, the rank's share of it."""
        share = self.batch_size // world
        first = step * self.batch_size + rank * share
        large, small, names = [], [], []
        for position in range(first, first + share):
            epoch, place = divmod(position, len(self.indices))
            index = self.indices[self._order(epoch)[place]]
            rng = np.random.default_rng((self.seed, 10, position))
            image = torch.from_numpy(np.asarray(self.prepared.image(index), np.float32))
            views = [
                self._view(image, scale, i < LARGE, rng) for i, scale in enumerate(self.scales)
            ]
            large.append(torch.stack(views[:LARGE]))
            half = self.size // 2
            empty = torch.zeros((0, image.shape[0], half, half))
            small.append(torch.stack(views[LARGE:]) if views[LARGE:] else empty)
            names.append(self.prepared.cases[index].name)
        return Views(torch.stack(large), None, tuple(names), torch.stack(small))

    def _shuffle(self, epoch: int) -> Array:
        return np.random.default_rng((self.seed, 9, epoch)).permutation(len(self.indices))

    def _view(
        self, image: Tensor, scale: Sequence[float], large: bool, rng: np.random.Generator
    ) -> Tensor:
        """A random crop, resized, with its intensities changed."""
        pixels = self.size if large else self.size // 2
        theta = torch.from_numpy(_crop(scale, rng).astype(np.float32))[None]
        grid = functional.affine_grid(
            theta, [1, image.shape[0], pixels, pixels], align_corners=False
        )
        crop = functional.grid_sample(image[None], grid, "bilinear", "border", align_corners=False)
        return apply([draw(self.augmentation, 2, rng)], crop, None)[0][0]


def _crop(scale: Sequence[float], rng: np.random.Generator) -> Array:
    """The affine map ``(2, 3)``, last axis first, of a crop of random area, shape and place."""
    area = rng.uniform(scale[0], scale[1])
    aspect = np.exp(rng.uniform(-np.log(ASPECT), np.log(ASPECT)))
    height, width = min(1.0, np.sqrt(area / aspect)), min(1.0, np.sqrt(area * aspect))
    y, x = rng.uniform(-1, 1, 2) * (1 - np.array([height, width]))
    return np.array([[width, 0, x], [0, height, y]])
