"""Restorative pre-training, a rival of denoising (Models Genesis, Zhou et al. 2021, arXiv 2004.07882).

The network restores the original from a corrupted image; the loss is the mean squared error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..data.corruption import Corrupted, CorruptedBatches, corrupt_all
from ..train.pretraining import Objective, Unlabelled
from ..train.random import StepRandom
from ..train.task import Loss, Task, in_passes


class Restorative(Objective):
    """Pre-training by restoring corrupted images."""

    source = CorruptedBatches

    def task(self, pool: Unlabelled) -> Task:
        """Restoration of the pool's images."""
        return Restoring(self.started(pool), pool.validation_images())


class Restoring(Task):
    """The task: undo ``data.corruption``.

    Args:
        network: The network at its start, as many channels out as in.
        held_out: Images ``(N, C, *S)`` for validation.
    """

    def __init__(self, network: nn.Module, held_out: Tensor | None = None) -> None:
        super().__init__(network)
        self.held_out = held_out

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error to the original."""
        assert isinstance(batch, Corrupted)
        return Loss(restoring_error(network, batch.corrupted, batch.images).mean())

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The same error on held-out images, corrupted the same way each time."""
        if self.held_out is None:
            return {}
        keys = torch.rand((len(self.held_out), 1), generator=torch.Generator().manual_seed(0))
        corrupted = corrupt_all(self.held_out, keys)
        errors = [
            restoring_error(network, part.to(device), original.to(device))
            for part, original in in_passes(self.at_once, corrupted, self.held_out)
        ]
        return {"loss": float(torch.cat(errors).mean())}


def restoring_error(network: nn.Module, corrupted: Tensor, images: Tensor) -> Tensor:
    """Mean squared error ``(B,)`` of images ``(B, C, *S)`` restored from corrupted ones."""
    t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    error: Tensor = (network(corrupted, t).float() - images).square().flatten(1).mean(1)
    return error
