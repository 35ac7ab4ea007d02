"""Masked autoencoding of the U-Net, a rival of denoising (He et al. 2022, arXiv 2111.06377).

Random blocks of the image are painted over, and the network restores them; what was visible does not count. [code:
nnssl] 75 % of the blocks, in the middle of the intensities, mean squared error over their voxels. [ours] A block is a
voxel of the network's coarsest level, so that it can neither be seen nor be interpolated at any level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..data.plan import Plan
from ..errors import InputError
from ..nets.imagenet import ImageNetDenoiser
from ..train.pretraining import ImageTask, Objective, Unlabelled
from ..train.random import StepRandom
from ..train.task import Loss, Task

PAINTED = 0.0
"""Value of masked voxels, of [-1, 1]."""


class Masked(Objective):
    """Pre-training by restoring masked blocks."""

    def verify(self, plan: Plan) -> None:
        """Refuse a size of a single block."""
        block: Sequence[int] = ImageNetDenoiser.size_multiple
        if not self.on_imagenet:
            block = self.unet(plan.spatial_dims, len(plan.channels)).size_multiple
        if math.prod(blocks_along(plan.size, block)) < 2:
            sides = "x".join(map(str, plan.size))
            problem = "is one block of the coarsest level, and nothing would be left to see"
            raise InputError(
                f"size {sides}", problem, "Give a larger --size, or a network of fewer levels"
            )

    def task(self, pool: Unlabelled) -> Task:
        """Masked autoencoding of the pool's images."""
        network, share = self.started(pool), self.settings.mask_ratio
        return MaskedAutoencoding(network, share, network.size_multiple, pool.validation_images())


class MaskedAutoencoding(ImageTask):
    """The task: restore what is masked.

    Args:
        network: The network at its start, as many channels out as in.
        share: Of the blocks that are masked; at least one is, and one is not.
        block: Its pixels along each axis.
        held_out: Images ``(N, C, *S)`` for validation.
    """

    def __init__(
        self, network: nn.Module, share: float, block: Sequence[int], held_out: Tensor | None = None
    ) -> None:
        super().__init__(network, held_out)
        self.share, self.block = share, tuple(block)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error over the masked voxels."""
        keys = random.uniform((self.blocks(batch.images.shape[2:]),))
        return Loss(self.error(network, batch.images, keys).mean())

    def drawn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Keys ``(N, blocks)`` of ``masked``."""
        return torch.rand((len(images), self.blocks(images.shape[2:])), generator=generator)

    def blocks(self, shape: Sequence[int]) -> int:
        """How many blocks an image has."""
        return math.prod(blocks_along(shape, self.block))

    def error(self, network: nn.Module, images: Tensor, drawn: Tensor) -> Tensor:
        """Mean squared error ``(B,)`` over the masked voxels of ``(B, C, *S)``; ``drawn`` are keys of ``masked``."""
        hidden = masked(drawn, self.share, images.shape[2:], self.block)
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        output = network(torch.where(hidden, PAINTED, images), t).float()
        wrong = (output - images).square() * hidden
        error: Tensor = wrong.flatten(1).sum(1) / (hidden.flatten(1).sum(1) * images.shape[1])
        return error


def blocks_along(shape: Sequence[int], block: Sequence[int]) -> tuple[int, ...]:
    """Blocks along each axis; the last one may stand out."""
    return tuple(-(-n // b) for n, b in zip(shape, block, strict=True))


def masked(keys: Tensor, share: float, shape: Sequence[int], block: Sequence[int]) -> Tensor:
    """Which voxels are masked, booleans ``(B, 1, *shape)``: as many blocks of each image, those of the lowest keys.

    Args:
        keys: Uniform numbers ``(B, N)``, one per block.
        share: Of the blocks that are masked.
        shape: Of the images.
        block: Its voxels along each axis.
    """
    count = min(max(1, round(share * keys.shape[1])), keys.shape[1] - 1)
    chosen = torch.zeros_like(keys, dtype=torch.bool)
    chosen.scatter_(1, keys.topk(count, dim=1, largest=False).indices, True)
    hidden = chosen.reshape(-1, 1, *blocks_along(shape, block))
    for axis, (n, side) in enumerate(zip(shape, block, strict=True)):
        hidden = hidden.repeat_interleave(side, dim=2 + axis).narrow(2 + axis, 0, n)
    return hidden
