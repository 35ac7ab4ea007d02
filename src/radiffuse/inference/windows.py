"""Slide a window over a volume and yield finished slabs, so that memory does not grow with the volume.

Overlapping windows are blended with a Gaussian weight, as nnU-Net and MONAI do. Windows run along the first axis; a
plane is finished as soon as no further window reaches it.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..nets.frozen import at_voxels
from ..system.files import reserve

SIGMA = 0.125
"""Standard deviation of the blending weight, as a fraction of the window [related: nnU-Net]."""
SMALLEST = 1e-3
"""Lowest blending weight, so that a corner covered by a single window is not divided by almost zero."""
OUTSIDE = -1.0
"""Value outside the volume: that of air."""

Window = Callable[[Tensor], Tensor]
"""``(B, C, *window)`` to ``(B, C', *window)``."""


def slide(
    volume: Tensor, size: Sequence[int], function: Window, *, overlap: float
) -> Iterator[tuple[int, Tensor]]:
    """Apply a function to every window and blend the results.

    Args:
        volume: ``(C, *S)``; if it is smaller than the window it is padded on both sides with ``OUTSIDE``.
        size: The window.
        function: Called with one window at a time, on ``volume``'s device.
        overlap: Fraction by which neighboring windows overlap, 0 to below 1.

    Yields:
        First plane along the first axis, and the blended slab ``(C', planes, *S[1:])`` float32 on the CPU; slabs come
        in order and together cover the volume once.
    """
    shape = tuple(volume.shape[1:])
    padded, before = _padded(volume, size)
    rows, *columns = (starts(n, p, overlap) for n, p in zip(padded.shape[1:], size, strict=True))
    weight = blending(size)
    total = norm = torch.empty(0)
    inner = tuple(slice(b, b + n) for b, n in zip(before[1:], shape[1:], strict=True))
    for place, row in enumerate(rows):
        for corner in itertools.product(*columns):
            at = (row, *corner)
            window = padded[
                (slice(None), *(slice(a, a + p) for a, p in zip(at, size, strict=True)))
            ]
            result = function(window[None])[0].float().cpu()
            if not total.numel():
                total = torch.zeros(len(result), size[0], *padded.shape[2:])
                norm = torch.zeros(size[0], *padded.shape[2:])
            area = tuple(slice(a, a + p) for a, p in zip(corner, size[1:], strict=True))
            total[(slice(None), slice(None), *area)].addcmul_(result, weight)
            norm[(slice(None), *area)] += weight
        done = (rows[place + 1] if place + 1 < len(rows) else padded.shape[1]) - row
        slab = total[:, :done] / norm[:done]
        yield from _inside(slab, row, before[0], shape[0], inner)
        total = torch.cat([total[:, done:], torch.zeros_like(total[:, :done])], dim=1)
        norm = torch.cat([norm[done:], torch.zeros_like(norm[:done])])


def slide_at(
    volume: Tensor,
    size: Sequence[int],
    function: Window,
    voxels: Tensor,
    *,
    overlap: float,
) -> Tensor:
    """What ``slide`` would give at some voxels, which alone are held in memory; windows without any are not run.

    Args:
        volume: As for ``slide``.
        size: The window.
        function: As for ``slide``, but its result may lie on a coarser grid of the window, and is interpolated.
        voxels: ``(n,)`` int64 indices into the flattened ``S``.
        overlap: As for ``slide``.

    Returns:
        ``(n, C')`` float32 on the CPU; ``(0, 0)`` without voxels.
    """
    shape = tuple(volume.shape[1:])
    padded, before = _padded(volume, size)
    places = torch.stack(torch.unravel_index(voxels, shape), 1) + torch.tensor(before)
    weight = blending(size).flatten()
    total, norm = torch.empty(0, 0), torch.zeros(len(voxels), 1)
    axes = (starts(n, p, overlap) for n, p in zip(padded.shape[1:], size, strict=True))
    for corner in itertools.product(*axes):
        own = places - torch.tensor(corner)
        mine = ((own >= 0) & (own < torch.tensor(tuple(size)))).all(1).nonzero()[:, 0]
        if not len(mine):
            continue
        area = tuple(slice(a, a + p) for a, p in zip(corner, size, strict=True))
        result = function(padded[(slice(None), *area)][None]).float().cpu()
        flat = torch.zeros(len(mine), dtype=torch.int64)
        for axis, n in enumerate(size):
            flat = flat * n + own[mine, axis]
        if not total.numel():
            total = torch.zeros(len(voxels), result.shape[1])
        total.index_add_(
            0, mine, weight[flat, None] * at_voxels(result, flat[None], tuple(size))[0]
        )
        norm.index_add_(0, mine, weight[flat, None])
    return total / norm if len(voxels) else total


def zeros(shape: Sequence[int]) -> NDArray[np.float32]:
    """Zeros ``(C, *S)`` for what windows give: of a film in memory, of a volume in an unnamed file on disk."""
    if len(shape) == 3:
        return np.zeros(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        reserve(file, Path(tempfile.gettempdir()), 4 * math.prod(shape))
        return np.memmap(file, np.float32, "r+", shape=tuple(shape))


def starts(length: int, window: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis: evenly spaced, the last window flush with the end."""
    step = max(1, int(window * (1 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(i * step, length - window) for i in range(count)]


def blending(size: Sequence[int]) -> Tensor:
    """The weight of each voxel of a window, 1 in the middle of an odd one: ``(*size)`` float32."""
    weight = torch.ones(())
    for n in size:
        x = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-(x**2) / (2 * (SIGMA * n) ** 2))
    return weight.clamp(min=max(float(weight.min()), SMALLEST))


def _padded(volume: Tensor, size: Sequence[int]) -> tuple[Tensor, list[int]]:
    """At least as large as the window, and what was put before it along each axis."""
    shape = volume.shape[1:]
    before = [max(0, p - n) // 2 for n, p in zip(shape, size, strict=True)]
    widths = []
    for n, p, b in reversed(list(zip(shape, size, before, strict=True))):
        widths += [b, max(0, p - n) - b]
    padded = torch.nn.functional.pad(volume, widths, value=OUTSIDE) if any(widths) else volume
    return padded, before


def _inside(
    slab: Tensor, row: int, before: int, planes: int, inner: tuple[slice, ...]
) -> Iterator[tuple[int, Tensor]]:
    """The part of a slab that is not padding, with its first plane in the volume."""
    first, last = max(row - before, 0), min(row - before + slab.shape[1], planes)
    if first < last:
        start = first + before - row
        yield first, slab[(slice(None), slice(start, start + last - first), *inner)]
