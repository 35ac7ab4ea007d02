"""Restorative pre-training, a rival of denoising (Models Genesis, Zhou et al. 2021, arXiv 2004.07882).

The network sees a corrupted image and gives the original back; the loss is the mean squared error.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..config import UNetConfig
from ..data.batches import Batch
from ..data.corruption import corrupt
from ..nets.unet import UNet
from ..train.random import StepRandom
from ..train.task import Loss


class Restoring:
    """The task: undo ``data.corruption``.

    Args:
        unet: The network, as many channels out as in.
        seed: Seed of the first weights.
        held_out: Images for validation.
        start: Network whose weights are taken over, or None.
        checkpoint_activations: See ``UNet``.
    """

    name = "restorative"

    def __init__(
        self,
        unet: UNetConfig,
        *,
        seed: int,
        held_out: Tensor | None = None,
        start: UNet | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        self.unet = unet
        self.seed = seed
        self.held_out = held_out
        self.start = start
        self.checkpoint_activations = checkpoint_activations

    def build(self) -> nn.Module:
        """The network at its start."""
        network = UNet(self.unet, self.checkpoint_activations)
        network.initialize(torch.Generator().manual_seed(self.seed))
        if self.start is not None:
            network.load_state_dict(self.start.state_dict())
        return network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error to the original."""
        return Loss(restoring_error(network, batch.images, random.uniform((1,))).mean())

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The same error on held-out images, corrupted in a fixed way."""
        if self.held_out is None or not len(self.held_out):
            return {}
        keys = torch.rand((len(self.held_out), 1), generator=torch.Generator().manual_seed(0))
        errors = [
            restoring_error(network, self.held_out[i : i + 16].to(device), keys[i : i + 16])
            for i in range(0, len(self.held_out), 16)
        ]
        return {"loss": float(torch.cat(errors).mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


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
