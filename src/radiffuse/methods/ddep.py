"""Decoder denoising pre-training (DDeP; Brempong et al. 2022, arXiv 2205.11423).

A single noise level; the encoder is given and frozen, a fresh decoder learns to say what the noise was. Without a
given encoder the whole network learns (the paper's denoising pre-training).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import Diffusion, UNetConfig
from ..data.batches import Batch
from ..engine.loop import Loss
from ..engine.random import StepRandom
from ..nets.unet import UNet
from .pretrain import Denoising

DECODER = ("up.", "norm.", "head.")


class DecoderDenoising(Denoising):
    """The task: predict the noise of x + sigma noise.

    Args:
        unet: The network.
        diffusion: Kept with the run; only its number of timesteps could matter, and the first is used.
        sigma: Standard deviation of the noise, in units of the [-1, 1] range.
        encoder: Network whose encoder is taken over and frozen, or None.
        seed: Seed of the first weights.
        held_out: Images for validation.
    """

    name = "decoder denoising"

    def __init__(
        self,
        unet: UNetConfig,
        diffusion: Diffusion,
        *,
        sigma: float,
        encoder: nn.Module | None,
        seed: int,
        held_out: Tensor | None = None,
    ) -> None:
        super().__init__(unet, diffusion, seed=seed, held_out=held_out)
        self.sigma = sigma
        self.encoder = encoder

    def build(self) -> nn.Module:
        """A fresh network, with the given encoder frozen in it."""
        network = UNet(self.unet)
        network.initialize(torch.Generator().manual_seed(self.seed))
        if self.encoder is not None:
            taken = {
                k: v for k, v in self.encoder.state_dict().items() if not k.startswith(DECODER)
            }
            network.load_state_dict(taken, strict=False)
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name.startswith(DECODER))
        return network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean squared error of the predicted noise at the one noise level."""
        return Loss(self._error(network, batch.images, random.normal(batch.images.shape[1:])))

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The same error on held-out images, at fixed noise."""
        if self.held_out is None or not len(self.held_out):
            return {}
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.held_out.shape, generator=generator)
        return {"loss": float(self._error(network, self.held_out.to(device), noise.to(device)))}

    def _error(self, network: nn.Module, images: Tensor, noise: Tensor) -> Tensor:
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        output = network(images + self.sigma * noise, t)
        error: Tensor = (output.float() - noise).square().mean()
        return error
