"""CutMix: a box of one image pasted into another (Yun et al. 2019, arXiv 1905.04899), here with its label map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.axes import expand

SMALLEST, LARGEST = 0.1, 0.5
"""Of an image, the part that a pasted box takes."""


def boxes(images: Tensor, cut: Tensor, corner: Tensor) -> Tensor:
    """Boxes in images ``(B, C, *S)`` as booleans ``(B, 1, *S)``.

    Args:
        images: For their shape.
        cut: Uniform numbers ``(B,)`` for their sizes.
        corner: Uniform numbers ``(B, dims)`` for their places.
    """
    dims = images.ndim - 2
    side = (SMALLEST + (LARGEST - SMALLEST) * cut) ** (1 / dims)
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, n in enumerate(images.shape[2:]):
        place = (torch.arange(n, device=images.device) + 0.5) / n
        start = (corner[:, axis] * (1 - side))[:, None]
        along = (place >= start) & (place < start + side[:, None])
        inside = inside & along.reshape(-1, 1, *(n if a == axis else 1 for a in range(dims)))
    return inside


def giver(box: Sequence[float], place: int, count: int) -> int:
    """Which image of a batch of ``count`` gives the one at ``place`` a box: any other one; without a box, itself.

    Args:
        box: See ``pasted``.
        place: From 0.
        count: Images of the batch, over all ranks.
    """
    return (place + 1 + int(box[0] * (count - 1))) % count if box else place


def pasted(
    images: Tensor, labels: Tensor, box: Sequence[Sequence[float]], givers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The first images of a batch, and their label maps, with boxes of others pasted in.

    Args:
        images: ``(B, C, *S)``.
        labels: ``(B, *S)``; what is ignored in a box is ignored where it is pasted.
        box: For each of the first N images uniform numbers for the giver, the size and the place along each axis;
            empty: none is pasted in.
        givers: For each of them, which of the B images gives the box, as it was without any box.
    """
    first, nothing = len(box), (0.0,) * images.ndim
    drawn = torch.tensor([one or nothing for one in box], device=images.device)
    chosen = torch.tensor([bool(one) for one in box], device=images.device)
    inside = boxes(images[:first], drawn[:, 1], drawn[:, 2:]) & expand(chosen, images)
    given = list(givers)
    return (
        torch.where(inside, images[given], images[:first]),
        torch.where(inside[:, 0], labels[given], labels[:first]),
    )
