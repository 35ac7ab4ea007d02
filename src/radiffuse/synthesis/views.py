"""Multi-crop: several views of each film, two large and some small (Caron et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import DinoSettings
from ..data.augment import augmented
from ..data.batches import Batch, BatchSource
from ..data.prepared import Prepared
from ..data.scan import Array
from ..data.shading import shaded
from ..data.streams import Stream

ASPECT = 4 / 3
"""Largest ratio of a crop's sides. [related]"""
LARGE = 2


@dataclass(frozen=True)
class Views(Batch):
    """A batch of large crops ``(B, 2, C, S, S)`` and ``small`` ones ``(B, L, C, S / 2, S / 2)``, float32."""

    small: Tensor


class ViewBatches(BatchSource[tuple[list[Tensor], str], Views]):
    """Batches of views; a small crop has half the ``size``, in pixels along each axis, of a large one."""

    streams = (Stream.VIEW_ORDER, Stream.VIEW)

    def __init__(
        self,
        prepared: Prepared,
        size: int,
        dino: DinoSettings,
        *,
        batch_size: int,
        seed: int,
        indices: Sequence[int],
    ) -> None:
        super().__init__(indices, batch_size=batch_size, seed=seed)
        self.prepared, self.size = prepared, size
        self.augmentation = shaded(dino.augmentation, prepared.plan.intensity)
        large, small = tuple(dino.global_scale), tuple(dino.local_scale)
        self.scales = [large] * LARGE + [small] * dino.local_crops

    def sample(self, index: int, rng: np.random.Generator) -> tuple[list[Tensor], str]:
        """The views of a film, large ones first, and its name."""
        image = torch.from_numpy(np.asarray(self.prepared.image(index), np.float32))
        views = [self._view(image, scale, i < LARGE, rng) for i, scale in enumerate(self.scales)]
        return views, self.prepared.cases[index].name

    def collate(self, samples: Sequence[tuple[list[Tensor], str]]) -> Views:
        """Large views together, and small ones."""
        views, names = zip(*samples, strict=True)
        large = torch.stack([torch.stack(of_film[:LARGE]) for of_film in views])
        half = self.size // 2
        small = large.new_zeros((len(views), 0, large.shape[2], half, half))
        if len(self.scales) > LARGE:
            small = torch.stack([torch.stack(of_film[LARGE:]) for of_film in views])
        return Views(large, None, names, small)

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
        return augmented(crop[0], self.augmentation, rng)


def _crop(scale: Sequence[float], rng: np.random.Generator) -> Array:
    """The affine map ``(2, 3)``, last axis first, of a crop of random area, shape and place."""
    area = rng.uniform(scale[0], scale[1])
    aspect = np.exp(rng.uniform(-np.log(ASPECT), np.log(ASPECT)))
    height, width = min(1.0, np.sqrt(area / aspect)), min(1.0, np.sqrt(area * aspect))
    y, x = rng.uniform(-1, 1, 2) * (1 - np.array([height, width]))
    return np.array([[width, 0, x], [0, height, y]])
