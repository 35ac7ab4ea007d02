"""Segments from self-attention: DiffSeg (Tian et al., CVPR 2024, arXiv 2308.12469).

A self-attention map says of each place how it attends to all places. Maps of several resolutions become one; places
whose maps are alike become a segment. No label and no text is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

ANCHORS = 16
"""Anchors along each axis [related]."""
SHARE = 0.5
"""Two maps are one segment where their symmetric KL divergence is below this share of the median between all maps.
[ours], chosen on films without labels; [related] an absolute 0.9, which suits the sharp maps of Stable Diffusion. The
maps of a small network are nearly uniform: all divergences are a thousandth of that, and all would be one segment."""
ROUNDING = 1e-5
"""Divergences below this are rounding, and the maps equal."""
ROUNDS = 3
"""Rounds of merging [related]."""


def aggregate(maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """One map for each place of the finest grid, weighted by resolution (DiffSeg, section 3.2).

    Args:
        maps: Each ``(Q, Q)``, heads averaged, rows sum to 1, on a grid of ``size`` or of a half, a quarter, ... of it.
        size: Rows and columns of the finest grid.

    Returns:
        ``(rows * columns, rows, columns)``, each map sums to 1.
    """
    total = torch.zeros((size[0] * size[1], *size))
    weights = [float(len(m)) ** 0.5 for m in maps]
    for weight, attention in zip(weights, maps, strict=True):
        grid = _grid(len(attention), size)
        keys = attention.float().cpu().reshape(-1, 1, *grid)
        keys = functional.interpolate(keys, size, mode="bilinear", align_corners=False)
        keys = keys / keys.sum((2, 3), keepdim=True)
        # A place of the finest grid has the queries of the coarse place that it lies in.
        queries = keys.reshape(*grid, *size)
        for axis in (0, 1):
            queries = queries.repeat_interleave(size[axis] // grid[axis], dim=axis)
        total += weight / sum(weights) * queries.reshape(-1, *size)
    return total / total.sum((1, 2), keepdim=True)


def segments(
    attention: Tensor,
    *,
    anchors: int = ANCHORS,
    threshold: float | None = None,
    rounds: int = ROUNDS,
) -> Tensor:
    """Soft segments from the map of each place (DiffSeg, section 3.3).

    Anchors, spread evenly, are merged with all maps that are like theirs; then proposals with each other, until the
    rounds are over.

    Args:
        attention: As of ``aggregate``.
        anchors: Anchors along each axis, at most one per place.
        threshold: Symmetric KL divergence below which two maps are one segment; None: ``SHARE`` of the median.
        rounds: Rounds of merging, the first with the anchors.

    Returns:
        ``(S, rows, columns)``: a map for each segment; a place belongs to the one that is largest there.
    """
    rows, columns = attention.shape[1:]
    flat = attention.reshape(rows * columns, -1)
    if threshold is None:
        between = symmetric_kl(flat, flat)[~torch.eye(len(flat), dtype=torch.bool)]
        threshold = max(ROUNDING, SHARE * float(between.median())) if len(between) else 0.0
    y = torch.linspace(0, rows - 1, min(anchors, rows)).round().long()
    x = torch.linspace(0, columns - 1, min(anchors, columns)).round().long()
    seeds = flat[(y[:, None] * columns + x[None]).flatten()]
    alike = symmetric_kl(seeds, flat) < threshold
    proposals = torch.stack([flat[near].mean(0) for near in alike])
    for _ in range(rounds - 1):
        merged = []
        left = torch.ones(len(proposals), dtype=torch.bool)
        distance = symmetric_kl(proposals, proposals)
        while left.any():
            first = int(left.nonzero()[0])
            near = left & (distance[first] < threshold)
            near[first] = True
            merged.append(proposals[near].mean(0))
            left &= ~near
        proposals = torch.stack(merged)
    return proposals.reshape(-1, rows, columns)


def symmetric_kl(first: Tensor, second: Tensor) -> Tensor:
    """Half the KL divergence both ways between each two distributions: ``(N, Q)``, ``(M, Q)`` to ``(N, M)``."""
    p, q = first.clamp(min=1e-12), second.clamp(min=1e-12)
    cross = p @ q.log().T + p.log() @ q.T
    own = (p * p.log()).sum(1)[:, None] + (q * q.log()).sum(1)[None]
    distance: Tensor = 0.5 * (own - cross)
    return distance


def _grid(places: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map of so many places, a division of ``size`` by a power of two."""
    rows, columns = size
    while rows * columns > places and rows % 2 == 0 and columns % 2 == 0:
        rows, columns = rows // 2, columns // 2
    if rows * columns != places:
        raise ValueError(f"{places} places are no division of {size[0]} x {size[1]}")
    return rows, columns
