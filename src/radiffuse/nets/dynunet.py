"""MONAI's DynUNet, the U-Net of nnU-Net, shaped by the plan as nnU-Net shapes it (Isensee et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

SMALLEST = 4
"""An axis is halved as long as this many voxels are left."""
FIRST, MOST_2D, MOST_3D = 32, 512, 320
"""Filters of the first level; each level has twice as many as the one before, up to a limit."""
DEEPEST_2D, DEEPEST_3D = 8, 6
"""Most levels."""


class DynUNet(nn.Module):
    """A plain convolutional U-Net for segmentation, without time, attention or pre-training.

    Args:
        channels: Channels of the images.
        classes: Number of classes.
        kernels: Kernel of each level, one number per axis.
        strides: Stride into each level, one number per axis; those of the first are 1.
        filters: Channels of each level.

    Raises:
        ValueError: The levels do not agree.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        kernels: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        filters: Sequence[int],
    ) -> None:
        super().__init__()
        if not len(kernels) == len(strides) == len(filters) >= 3:
            raise ValueError("kernels, strides and filters must agree, over three levels or more")
        from monai.networks.nets import DynUNet as Network

        self.channels, self.classes = channels, classes
        self.kernels = [list(kernel) for kernel in kernels]
        self.strides = [list(stride) for stride in strides]
        self.filters = list(filters)
        self.network: nn.Module = Network(
            len(self.strides[0]),
            channels,
            classes,
            self.kernels,
            self.strides,
            self.strides[1:],
            filters=self.filters,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        return cast(Tensor, self.network(images))

    def to_config(self) -> dict[str, Any]:
        """What ``registry.build`` needs to make this network again."""
        return {
            "kind": "dynunet",
            "channels": self.channels,
            "classes": self.classes,
            "kernels": self.kernels,
            "strides": self.strides,
            "filters": self.filters,
        }


def topology(
    size: Sequence[int], spacing: Sequence[float] | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Kernels and strides of every level, by the rule of nnU-Net.

    An axis is halved while it is even and stays ``SMALLEST`` voxels long, but not where its voxels are more than twice
    as long as the shortest: there the kernel is 1 along it, and it waits for the others.

    Args:
        size: Voxels of the input along each axis.
        spacing: Of the voxels, in mm; None: the same along each axis.

    Returns:
        One list per level, one number per axis.
    """
    shape, steps = list(size), list(spacing or (1.0,) * len(size))
    deepest = DEEPEST_2D if len(shape) == 2 else DEEPEST_3D
    kernels: list[list[int]] = []
    strides = [[1] * len(shape)]
    while True:
        coarse = [step > 2 * min(steps) for step in steps]
        kernels.append([1 if far else 3 for far in coarse])
        halved = [
            n % 2 == 0 and n // 2 >= SMALLEST and not far
            for n, far in zip(shape, coarse, strict=True)
        ]
        if len(strides) == deepest or not any(halved):
            return kernels, strides
        strides.append([2 if half else 1 for half in halved])
        shape = [n // s for n, s in zip(shape, strides[-1], strict=True)]
        steps = [step * s for step, s in zip(steps, strides[-1], strict=True)]


def new_dynunet(
    channels: int,
    classes: int,
    size: Sequence[int],
    spacing: Sequence[float] | None = None,
    seed: int = 0,
) -> DynUNet:
    """A network for a plan, whose weights depend on the seed alone; torch's own random state stays as it was.

    Args:
        channels: Channels of the images.
        classes: Number of classes.
        size: Of the plan.
        spacing: Of the plan, in mm; None for films.
        seed: Of the weights.

    Raises:
        ValueError: The size is too small for three levels.
    """
    kernels, strides = topology(size, spacing)
    most = MOST_2D if len(size) == 2 else MOST_3D
    filters = [min(FIRST * 2**level, most) for level in range(len(strides))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DynUNet(channels, classes, kernels, strides, filters)
