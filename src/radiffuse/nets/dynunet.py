"""MONAI's DynUNet, the U-Net of nnU-Net, shaped by the plan as nnU-Net shapes it (Isensee et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

SMALLEST = 4
"""Fewest voxels that an axis is halved to."""
FIRST, MOST_2D, MOST_3D = 32, 512, 320
"""Filters of the first level, which double with each level, and their limits."""
DEEPEST_2D, DEEPEST_3D = 8, 6
"""Most levels."""


class DynUNet(nn.Module):
    """A plain convolutional U-Net for segmentation, without time, attention or pre-training.

    It has K = ``classes`` outputs. ``kernels`` and ``strides`` have a list for each level, with one number per axis
    (the strides into a level; those of the first are 1); ``filters`` are the channels of each level.

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

    @property
    def bottleneck(self) -> nn.Module:
        """The layers at the lowest resolution."""
        return cast(nn.Module, self.network.bottleneck)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        return cast(Tensor, self.network(images))

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        names = ("channels", "classes", "kernels", "strides", "filters")
        return {"kind": "dynunet"} | {name: getattr(self, name) for name in names}


def topology(
    size: Sequence[int], spacing: Sequence[float] | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Kernels and strides by the rule of nnU-Net: one list per level, one number per axis.

    An axis is halved while it is even and keeps ``SMALLEST`` voxels. While its voxels are more than twice as long as
    the shortest, it is not halved, and the kernel is 1 along it.

    Args:
        size: Voxels of the input along each axis.
        spacing: Of the voxels, in mm; None: the same along each axis.
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
    """A network for the size and spacing of a plan, with weights by the seed; torch's global random state is unchanged.

    Raises:
        ValueError: The size is too small for three levels.
    """
    kernels, strides = topology(size, spacing)
    most = MOST_2D if len(size) == 2 else MOST_3D
    filters = [min(FIRST * 2**level, most) for level in range(len(strides))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DynUNet(channels, classes, kernels, strides, filters)
