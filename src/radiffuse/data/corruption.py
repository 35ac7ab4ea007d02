"""Corruption that a network learns to undo: Models Genesis (Zhou et al. 2021, arXiv 2004.07882, 3).

Intensities go through a monotone curve, pixels are shuffled inside small windows, and windows are
painted over: small ones (in-painting), or everything around a few large ones (out-painting).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batches import Batch, Batches
from .scan import Array
from .streams import CORRUPTION, Stream

BEND, SHUFFLE, PAINT = 0.9, 0.5, 0.9
"""Probability of each corruption [related]."""
REVERSED = 0.5
"""Probability that the curve falls instead of rising [related]."""
WINDOWS_PER_PIXEL = 10_000 / (64 * 64 * 32)
"""Windows to shuffle in, per pixel [related: 10,000 in 64 x 64 x 32]."""
OUTER = 0.8
"""Probability that everything around the windows is painted over, not the windows [related]."""
PAINTED = 5
"""Most windows; each further one comes with a probability of 0.95 [related]."""


@dataclass(frozen=True)
class Corrupted(Batch):
    """Originals as ``images``, and corrupted copies, float32 ``(B, C, *S)`` in [-1, 1]."""

    corrupted: Tensor


class CorruptedBatches(Batches):
    """Whole films, or patches of volumes, with a corrupted copy of each."""

    def __call__(self, step: int, rank: int = 0, world: int = 1) -> Corrupted:
        """The batch of a step; with several ranks, the rank's part of it."""
        batch = super().__call__(step, rank, world)
        keys = torch.rand((self.batch_size, 1), generator=Stream.STEP.torch(self.seed, step))
        keys = keys[rank * len(batch) : (rank + 1) * len(batch)]
        copies = corrupt_all(batch.images, keys)
        return Corrupted(batch.images, batch.labels, batch.cases, copies)


def corrupt_all(images: Tensor, keys: Tensor) -> Tensor:
    """Corrupted copies, on the CPU, of ``(B, C, *S)``, wherever they are; ``keys`` are uniform seeds ``(B, 1)``."""
    seeds = (keys.flatten().double() * 2**24).long().tolist()
    pairs = zip(images.cpu().numpy(), seeds, strict=True)
    copies = [corrupt(image, CORRUPTION.rng(seed)) for image, seed in pairs]
    return torch.from_numpy(np.stack(copies))


def corrupt(image: Array, rng: np.random.Generator) -> Array:
    """A corrupted float32 copy of ``(C, *S)`` in [-1, 1]."""
    result = (image.astype(np.float32) + 1) / 2
    if rng.random() < BEND:
        result = bend(result, rng)
    if rng.random() < SHUFFLE:
        result = shuffle(result, rng)
    if rng.random() < PAINT:
        result = paint_outside(result, rng) if rng.random() < OUTER else paint_inside(result, rng)
    return np.clip(result * 2 - 1, -1, 1).astype(np.float32)


def bend(image: Array, rng: np.random.Generator) -> Array:
    """Intensities in [0, 1] through a monotone cubic Bezier curve from 0 to 1, or from 1 to 0."""
    (x1, y1), (x2, y2) = rng.random((2, 2))
    t = np.linspace(0, 1, 1000)
    x = 3 * (1 - t) ** 2 * t * x1 + 3 * (1 - t) * t**2 * x2 + t**3
    y = 3 * (1 - t) ** 2 * t * y1 + 3 * (1 - t) * t**2 * y2 + t**3
    x, y = np.sort(x), np.sort(y)
    if rng.random() < REVERSED:
        y = y[::-1]
    bent: Array = np.interp(image, x, y).astype(np.float32)
    return bent


def shuffle(image: Array, rng: np.random.Generator) -> Array:
    """Pixels shuffled inside many windows, up to a tenth of the image along each axis."""
    result = image.copy()
    shape = image.shape[1:]
    for _ in range(max(1, round(WINDOWS_PER_PIXEL * float(np.prod(shape))))):
        window = _window(shape, [int(rng.integers(1, max(2, n // 10) + 1)) for n in shape], rng)
        # From the original image, as published: windows may overlap.
        part = image[(slice(None), *window)]
        order = rng.permutation(int(np.prod(part.shape[1:])))
        result[(slice(None), *window)] = part.reshape(len(part), -1)[:, order].reshape(part.shape)
    return result


def paint_inside(image: Array, rng: np.random.Generator) -> Array:
    """A few windows, a sixth to a third of the image along each axis, become noise."""
    result, shape = image.copy(), image.shape[1:]
    for _ in _times(rng):
        window = _window(shape, [_between(n / 6, n / 3, rng) for n in shape], rng)
        place = (slice(None), *window)
        result[place] = rng.random(result[place].shape)
    return result


def paint_outside(image: Array, rng: np.random.Generator) -> Array:
    """All becomes noise but a few windows, 3/7 to 4/7 of the image along each axis."""
    result, shape = rng.random(image.shape).astype(np.float32), image.shape[1:]
    for _ in _times(rng):
        window = _window(shape, [n - _between(3 * n / 7, 4 * n / 7, rng) for n in shape], rng)
        place = (slice(None), *window)
        result[place] = image[place]
    return result


# ------------------------------------------------------------------------------------------------ internal


def _times(rng: np.random.Generator) -> Iterator[None]:
    """One to ``PAINTED`` times."""
    for turn in range(PAINTED):
        if turn and rng.random() >= 0.95:
            return
        yield None


def _between(low: float, high: float, rng: np.random.Generator) -> int:
    first = max(1, int(low))
    return int(rng.integers(first, max(first, int(high)) + 1))


def _window(
    shape: Sequence[int], size: Sequence[int], rng: np.random.Generator
) -> tuple[slice, ...]:
    starts = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
    return tuple(slice(a, a + s) for a, s in zip(starts, size, strict=True))
