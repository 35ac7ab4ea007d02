"""What a denoiser learns: the noise at all levels (DDPM), or at one (decoder denoising).

DDPM: Ho et al. 2020, algorithm 1; Rousseau et al. 2023 use it for radiographs. Decoder denoising: DDeP, Brempong et
al. 2022, arXiv 2205.11423; its encoder is given and frozen, a fresh decoder learns. Without a given encoder the whole
network learns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import Diffusion, UNetConfig
from ..core.diffusion import GaussianDiffusion
from ..core.timesteps import timestep_sampler
from ..data.batches import Batch
from ..nets.coordinates import CoordinateRegressor
from ..nets.guided import GuidedUNet
from ..nets.unet import UNet
from ..system.distributed import gather
from ..train.random import StepRandom
from ..train.task import Loss

QUARTERS = 4
"""The log has the loss by quarter of the timesteps."""
DECODER = ("up.", "norm.", "head.")


class Denoising:
    """The task: predict the noise in x_t.

    Args:
        unet: The network.
        diffusion: The noising process.
        seed: Seed of the first weights.
        held_out: Images ``(N, C, *S)`` for validation, never trained on.
        start: Network whose weights to start from; None: drawn from the seed.
        checkpoint_activations: Recompute activations in the backward pass.
        regressor: Gives body coordinates of the clean image beside the noised one; None: not guided.
    """

    name = "denoising"

    def __init__(
        self,
        unet: UNetConfig,
        diffusion: Diffusion,
        *,
        seed: int,
        held_out: Tensor | None = None,
        start: nn.Module | None = None,
        checkpoint_activations: bool = False,
        regressor: CoordinateRegressor | None = None,
    ) -> None:
        self.regressor = regressor
        self.unet = unet
        self.seed = seed
        self.held_out = held_out
        self.start = start
        self.checkpoint_activations = checkpoint_activations
        self.diffusion = GaussianDiffusion(diffusion)
        self.timesteps = timestep_sampler(diffusion)

    def build(self) -> nn.Module:
        """The network at its start."""
        if self.regressor is None:
            network = UNet(self.unet, self.checkpoint_activations)
        else:
            network = GuidedUNet(self.unet, self.regressor, self.checkpoint_activations)
        network.initialize(torch.Generator().manual_seed(self.seed))
        if self.start is not None:
            network.load_state_dict(self.start.state_dict())
        return network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Algorithm 1 of Ho et al. 2020."""
        x_start = batch.images
        self.diffusion.to(x_start.device)
        t, weights = (random.share(v) for v in self.timesteps.draw(random.total, random.generator))
        noise = random.normal(x_start.shape[1:])
        x_t = self.diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t, x_start) if self.regressor else network(x_t, t)
        losses = self.diffusion.training_loss(output, x_start, noise, x_t, t)
        self.timesteps.update(gather(t), gather(losses.detach()))
        return Loss((losses * weights).mean(), self._by_quarter(t, losses.detach()))

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Denoising error on held-out images, at fixed noise and evenly spread timesteps."""
        if self.held_out is None or not len(self.held_out):
            return {}
        images = self.held_out.to(device)
        self.diffusion.to(device)
        total = self.diffusion.num_train_timesteps
        t = (torch.linspace(0, 1, len(images)) * (total - 1)).round().long().to(device)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(images.shape, generator=generator).to(device)
        x_t = self.diffusion.add_noise(images, noise, t)
        losses = []
        for i in range(0, len(images), 16):
            part = slice(i, i + 16)
            guide = (images[part],) if self.regressor else ()
            output = network(x_t[part], t[part], *guide)
            losses.append(
                self.diffusion.training_loss(output, images[part], noise[part], x_t[part], t[part])
            )
        return {"loss": float(torch.cat(losses).mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """The history of loss-aware timestep sampling."""
        return dict(self.timesteps.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the history back."""
        self.timesteps.load_state_dict(dict(state))

    def _by_quarter(self, t: Tensor, losses: Tensor) -> dict[str, float]:
        quarter = t * QUARTERS // self.diffusion.num_train_timesteps
        return {
            f"loss_q{q}": float(losses[quarter == q].mean())
            for q in range(QUARTERS)
            if bool((quarter == q).any())
        }


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
