"""Decoder denoising (DDeP, Brempong et al. 2022, arXiv 2205.11423): denoising at one noise level.

The encoder of ``--from``, or that of ImageNet as in the paper, is frozen, and a fresh decoder learns. Without either
the whole network learns.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..nets.imagenet import ImageNetDenoiser
from ..train.pretraining import ImageTask, Objective, Unlabelled
from ..train.random import StepRandom
from ..train.start import unet_of
from ..train.task import Loss, Task

DECODER = ("up.", "norm.", "refine.", "decoder.", "head.")
"""Prefixes of the names of the decoder's weights."""
COLORS = "colors."
"""The same of those that mix a film's channels before ImageNet's encoder, which it never saw."""


class DDeP(Objective):
    """Pre-training of a decoder by denoising. All images are seen at timestep 0, so the network knows no other."""

    def task(self, pool: Unlabelled) -> Task:
        """A fresh decoder on the encoder of ``--from``, or on that of ImageNet."""
        network = self.network(pool)
        if (start := self.before(unet_of(network))) is not None:
            take_encoder(network, start)
        elif isinstance(network, ImageNetDenoiser):
            freeze_but(network, (*DECODER, COLORS))
        return DecoderDenoising(network, self.settings.sigma, pool.validation_images())


class DecoderDenoising(ImageTask):
    """The task: predict the noise of x + sigma noise.

    Args:
        network: The network at its start.
        sigma: Standard deviation of the noise, in units of the [-1, 1] range.
        held_out: Images ``(N, C, *S)`` for validation.
    """

    def __init__(self, network: nn.Module, sigma: float, held_out: Tensor | None = None) -> None:
        super().__init__(network, held_out)
        self.sigma = sigma

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error of the predicted noise."""
        noise = random.normal(batch.images.shape[1:])
        return Loss(self.error(network, batch.images, noise).mean())

    def error(self, network: nn.Module, images: Tensor, drawn: Tensor) -> Tensor:
        """The squared error ``(B, C, *S)`` of the noise that is predicted; ``drawn`` is that of the images."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        error: Tensor = (network(images + self.sigma * drawn, t).float() - drawn).square()
        return error


def take_encoder(network: nn.Module, start: nn.Module) -> None:
    """Copy the encoder of another network, and freeze it."""
    taken = {k: v for k, v in start.state_dict().items() if not k.startswith(DECODER)}
    network.load_state_dict(taken, strict=False)
    freeze_but(network, DECODER)


def freeze_but(network: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Let only weights learn whose names begin so."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
