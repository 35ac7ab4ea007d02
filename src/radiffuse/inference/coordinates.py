"""Body coordinates of a whole scan, and points carried from one scan to another by them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..nets.coordinates import CoordinateRegressor
from .windows import slide


@torch.no_grad()
def coordinate_map(
    regressor: CoordinateRegressor, image: Tensor, size: Sequence[int], overlap: float = 0.5
) -> Tensor:
    """Coordinates of every voxel of a scan on the plan's grid.

    Args:
        regressor: Trained, in evaluation mode.
        image: ``(C, *S)`` in [-1, 1].
        size: Of a film, or of a patch of a volume, whose overlapping answers are averaged.
        overlap: Share by which windows overlap.

    Returns:
        ``(dims, *S)`` float32 on the CPU, in units of ``regressor.scale``.
    """
    if image.ndim == 3:
        return regressor(image[None])[0].float().cpu()  # type: ignore[no-any-return]
    return torch.cat([slab for _, slab in slide(image, size, regressor, overlap=overlap)], dim=1)


def carry(point: Sequence[int], source: Tensor, target: Tensor, scale: Tensor) -> tuple[int, ...]:
    """The voxel of another scan whose coordinates are nearest to those of a voxel.

    Args:
        point: Voxel of the source.
        source: Its map, ``(dims, *S)``.
        target: The other map, ``(dims, *S')``.
        scale: ``CoordinateRegressor.scale``, so that nearness is measured in lengths.
    """
    wanted = source.flatten(1)[:, _flat(point, source.shape[1:])]
    units = scale.reshape(-1, *[1] * (target.ndim - 1))
    gap = (((target - wanted.reshape(units.shape)) * units) ** 2).sum(0)
    place = torch.unravel_index(gap.argmin(), gap.shape)
    return tuple(int(axis) for axis in place)


def _flat(point: Sequence[int], shape: Sequence[int]) -> int:
    place = 0
    for axis, extent in zip(point, shape, strict=True):
        place = place * extent + axis
    return place
