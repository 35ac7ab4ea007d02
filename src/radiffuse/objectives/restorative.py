"""Restorative pre-training, a rival of denoising (Models Genesis, Zhou et al. 2021, arXiv 2004.07882).

The network restores the original from a corrupted image; the loss is the mean squared error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..data.corruption import Corrupted, CorruptedBatches, corrupt_all
from ..train.pretraining import ImageTask, Objective, Unlabelled
from ..train.random import StepRandom
from ..train.task import Loss, Task


class Restorative(Objective):
    """Pre-training by restoring corrupted images."""

    source = CorruptedBatches

    def task(self, pool: Unlabelled) -> Task:
        """Restoration of the pool's images."""
        return Restoring(self.started(pool), pool.validation_images())


class Restoring(ImageTask):
    """The task: undo ``data.corruption``.

    Args:
        network: The network at its start, as many channels out as in.
        held_out: Images ``(N, C, *S)`` for validation.
    """

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error to the original."""
        assert isinstance(batch, Corrupted)
        return Loss(self.error(network, batch.images, batch.corrupted).mean())

    def drawn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images corrupted ``(N, C, *S)``."""
        return corrupt_all(images, torch.rand((len(images), 1), generator=generator))

    def error(self, network: nn.Module, images: Tensor, drawn: Tensor) -> Tensor:
        """Mean squared error ``(B,)`` of images ``(B, C, *S)`` restored from corrupted ones, which are ``drawn``."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        error: Tensor = (network(drawn, t).float() - images).square().flatten(1).mean(1)
        return error
