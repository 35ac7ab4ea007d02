"""Restorative pre-training, a rival of denoising (Models Genesis, Zhou et al. 2021, arXiv 2004.07882).

The network sees a corrupted image and gives the original back; the loss is the mean squared error.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..data.corruption import corrupt
from ..nets.unet import UNet
from ..train.pretraining import Objective, Pool
from ..train.random import StepRandom
from ..train.task import Loss, Task


class Restorative(Objective):
    """Pre-training by restoring corrupted images."""

    def task(self, pool: Pool) -> Task:
        """Restoring of the pool's images."""
        network = UNet(self.config(pool), self.settings.machine.checkpoint_activations)
        return Restoring(self.start(network), pool.validation_images())


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
        return Loss(restoring_error(network, batch.images, random.uniform((1,))).mean())

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The same error on held-out images, corrupted in a fixed way."""
        if self.held_out is None:
            return {}
        keys = torch.rand((len(self.held_out), 1), generator=torch.Generator().manual_seed(0))
        errors = [
            restoring_error(network, self.held_out[i : i + 16].to(device), keys[i : i + 16])
            for i in range(0, len(self.held_out), 16)
        ]
        return {"loss": float(torch.cat(errors).mean())}


def restoring_error(network: nn.Module, images: Tensor, keys: Tensor) -> Tensor:
    """Mean squared error of each restored image, ``(B,)``.

    Args:
        network: The network.
        images: ``(B, C, *S)`` in [-1, 1].
        keys: ``(B, 1)`` uniform numbers that seed the corruption of each image.
    """
    seeds = (keys.flatten().double().cpu() * 2**24).long().tolist()
    corrupted = np.stack(
        [
            corrupt(image, np.random.default_rng((seed, 9)))
            for image, seed in zip(images.cpu().numpy(), seeds, strict=True)
        ]
    )
    t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    output = network(torch.from_numpy(corrupted).to(images.device), t)
    error: Tensor = (output.float() - images).square().flatten(1).mean(1)
    return error
