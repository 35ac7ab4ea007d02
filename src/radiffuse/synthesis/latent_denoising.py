"""What the conditional denoiser learns: the noise in a latent, told the embedding of its image or nothing.

Rombach et al. 2022, eq. 3, with the embedding of the image itself as its condition (Jimenez-Perez et al. 2024); the
condition is left out now and then, so that guidance can weigh it (Ho and Salimans 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..config import Diffusion
from ..core.diffusion import GaussianDiffusion
from ..core.timesteps import timestep_sampler
from ..data.batches import Batch
from ..system.distributed import gather
from ..train.random import StepRandom
from ..train.task import Loss
from .features import LatentBatch

QUARTERS = 4
"""The log has the loss by quarter of the timesteps."""


class LatentDenoising:
    """The task: say of a noised latent what the settings of the diffusion ask for.

    Args:
        build: Makes the denoiser at its start.
        diffusion: The noising process.
        null: Share of the samples that get the null token.
        held_out: Latents and embeddings never trained on, or None.
    """

    name = "latent denoising"

    def __init__(
        self,
        build: Callable[[], nn.Module],
        diffusion: Diffusion,
        *,
        null: float,
        held_out: LatentBatch | None = None,
    ) -> None:
        self.build = build
        self.diffusion = GaussianDiffusion(diffusion)
        self.timesteps = timestep_sampler(diffusion)
        self.null = null
        self.held_out = held_out

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Algorithm 1 of Ho et al. 2020 on latents drawn from their posterior."""
        assert isinstance(batch, LatentBatch)
        mean, spread = batch.images.chunk(2, dim=1)
        self.diffusion.to(mean.device)
        t, weights = (random.share(v) for v in self.timesteps.draw(random.total, random.generator))
        x_start = mean + spread * random.normal(mean.shape[1:])
        noise = random.normal(mean.shape[1:])
        told = (random.uniform(()) >= self.null)[:, None]
        x_t = self.diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t, batch.embeddings * told)
        losses = self.diffusion.training_loss(output, x_start, noise, x_t, t)
        self.timesteps.update(gather(t), gather(losses.detach()))
        return Loss((losses * weights).mean(), self._by_quarter(t, losses.detach()))

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Denoising error on unseen latents with their own embeddings, and with the null token."""
        if self.held_out is None or not len(self.held_out):
            return {}
        held = self.held_out.to(device)
        self.diffusion.to(device)
        x_start = held.images.chunk(2, dim=1)[0]
        total = self.diffusion.num_train_timesteps
        t = (torch.linspace(0, 1, len(held)) * (total - 1)).round().long().to(device)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(x_start.shape, generator=generator).to(device)
        x_t = self.diffusion.add_noise(x_start, noise, t)

        def error(embeddings: Tensor) -> float:
            output = network(x_t, t, embeddings)
            return float(self.diffusion.training_loss(output, x_start, noise, x_t, t).mean())

        return {
            "loss": error(held.embeddings),
            "loss_null": error(torch.zeros_like(held.embeddings)),
        }

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
