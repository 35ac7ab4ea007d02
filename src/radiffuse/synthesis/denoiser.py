"""The latent denoiser, conditioned on the embedding of an image, and how it is trained.

Rombach et al. 2022, eq. 3, with the embedding of the image itself as its condition (Jimenez-Perez et al. 2024); the
condition is left out now and then, so that guidance can weigh it (Ho and Salimans 2022). The network is
``UNet2DConditionModel`` of diffusers at any size, so what is trained here loads there, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import LATENT_PRESETS, Diffusion, LatentNetwork
from ..core.diffusion import GaussianDiffusion
from ..core.timesteps import timestep_sampler
from ..data.batches import Batch, BatchSource
from ..data.scan import Array
from ..errors import InputError
from ..system.distributed import gather
from ..train.random import StepRandom
from ..train.task import Loss, Task
from .hub import load_diffusers, most_groups

QUARTERS = 4
"""The log has the loss by quarter of the timesteps."""


class ConditionalDenoiser(nn.Module):
    """``UNet2DConditionModel`` whose context is one token: a linear map of the embedding.

    The null token is the embedding 0, so it is the bias of that map and is learned.

    Args:
        unet: With ``encoder_hid_dim_type`` ``text_proj``.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    @property
    def width(self) -> int:
        """Width of the embedding it is conditioned on."""
        return int(self.unet.config.encoder_hid_dim)

    def forward(self, x_t: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The network's answer, shaped like ``x_t``.

        Args:
            x_t: ``(B, c, h, w)``.
            t: ``(B,)`` int64 training timesteps.
            embedding: ``(B, width)`` of length 1; all 0 is the null token.
        """
        answer: Tensor = self.unet(x_t, t, encoder_hidden_states=embedding[:, None]).sample
        return answer


def build_denoiser(
    network: LatentNetwork, *, latent_channels: int, size: int, width: int
) -> ConditionalDenoiser:
    """A fresh denoiser.

    Args:
        network: Preset and overrides.
        latent_channels: Channels of the latents.
        size: Of the latents, along the longer axis.
        width: Of the embeddings.
    """
    from diffusers import UNet2DConditionModel

    values = LATENT_PRESETS[network.preset] | {
        name: value
        for name in ("channels", "blocks", "heads", "context")
        if (value := getattr(network, name)) is not None
    }
    channels = tuple(values["channels"])
    if any(n % values["heads"] for n in channels):
        raise InputError(
            f"--denoiser.heads {values['heads']}", f"does not divide {channels}", "Choose another"
        )
    # Stable Diffusion has no attention at its coarsest level; the small grids of small ones can afford it at each.
    attended = len(channels) - (network.preset == "sd")
    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=_blocks("Down", attended, len(channels)),
        up_block_types=tuple(reversed(_blocks("Up", attended, len(channels)))),
        block_out_channels=channels,
        layers_per_block=values["blocks"],
        norm_num_groups=most_groups(channels),
        cross_attention_dim=values["context"],
        attention_head_dim=values["heads"],  # the number of heads, in spite of its name
        encoder_hid_dim=width,
        encoder_hid_dim_type="text_proj",
    )
    return ConditionalDenoiser(unet)


def start_denoiser(name: str, *, latent_channels: int, width: int) -> ConditionalDenoiser:
    """The denoiser of a folder in the layout of Stable Diffusion, with a fresh map of the embedding.

    Raises:
        InputError: There is none, or it does not fit the latents.
    """
    from diffusers import UNet2DConditionModel

    source = load_diffusers(
        "UNet2DConditionModel", name, ("unet", ""), "--from", "training then starts anew"
    )
    if source.config.in_channels != latent_channels:
        raise InputError(
            f"--from {name}",
            f"has a unet for {source.config.in_channels} latent channels, the autoencoder has "
            f"{latent_channels}",
            "Take the autoencoder of the same folder",
        )
    config = dict(source.config) | {"encoder_hid_dim": width, "encoder_hid_dim_type": "text_proj"}
    unet = UNet2DConditionModel.from_config(config)
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith("encoder_hid_proj")}
    unet.load_state_dict(kept, strict=False)
    return ConditionalDenoiser(unet)


def center_context(denoiser: ConditionalDenoiser, embeddings: Tensor) -> None:
    """Initialize the map of the embedding: context tokens start with mean 0 and standard deviation 1 over these.

    Embeddings of images of one kind lie close together; without this the first context tokens would hardly differ.

    Args:
        denoiser: Its map is overwritten.
        embeddings: ``(N, width)``, of length 1.
    """
    linear = denoiser.unet.encoder_hid_proj
    mean = embeddings.mean(0)
    std = (embeddings - mean).square().sum(1).mean().sqrt().clamp(min=1e-3)
    with torch.no_grad():
        weight = torch.randn_like(linear.weight) / std
        linear.weight.copy_(weight)
        linear.bias.copy_(-weight @ mean.to(weight))


def _blocks(way: str, attended: int, levels: int) -> tuple[str, ...]:
    """Names of the blocks, finest first."""
    return (f"CrossAttn{way}Block2D",) * attended + (f"{way}Block2D",) * (levels - attended)


@dataclass(frozen=True)
class LatentBatch(Batch):
    """A batch whose ``images`` are mean and standard deviation of latents, float32 ``(B, 2 c, h, w)``.

    Attributes:
        embeddings: float32 ``(B, width)``.
    """

    embeddings: Tensor


class LatentBatches(BatchSource[int, LatentBatch]):
    """Batches of latents with their embeddings.

    Args:
        latents: ``(N, 2 c, h, w)``.
        embeddings: ``(N, width)``.
        names: Of the cases.
        batch_size: Films per step over all ranks.
        seed: Seed of the order.
        indices: Which rows to use.
    """

    def __init__(
        self,
        latents: Array,
        embeddings: Array,
        names: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        indices: Sequence[int],
    ) -> None:
        super().__init__(indices, batch_size=batch_size, seed=seed)
        self.latents, self.embeddings = latents, embeddings
        self.names = tuple(names)

    def sample(self, index: int, rng: np.random.Generator) -> int:
        """The row itself; nothing of it is random."""
        return index

    def collate(self, samples: Sequence[int]) -> LatentBatch:
        """The rows of both arrays."""
        latents, embeddings = (
            torch.from_numpy(np.stack([np.asarray(a[row], np.float32) for row in samples]))
            for a in (self.latents, self.embeddings)
        )
        return LatentBatch(latents, None, tuple(self.names[row] for row in samples), embeddings)


class LatentDenoising(Task):
    """The task: predict the noise, the latent or v from a noised latent, as the diffusion settings say.

    Args:
        build: Makes the denoiser at its start.
        diffusion: The noising process.
        null: Share of the samples that get the null token.
        held_out: Latents and embeddings never trained on, or None.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        diffusion: Diffusion,
        *,
        null: float,
        held_out: LatentBatch | None = None,
    ) -> None:
        self.start = build
        self.diffusion = GaussianDiffusion(diffusion)
        self.timesteps = timestep_sampler(diffusion)
        self.null = null
        self.held_out = held_out

    def build(self) -> nn.Module:
        """The denoiser at its start."""
        return self.start()

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Algorithm 1 of Ho et al. 2020 on latents drawn from their posterior."""
        assert isinstance(batch, LatentBatch)
        mean, std = batch.images.chunk(2, dim=1)
        self.diffusion.to(mean.device)
        t, weights = (random.share(v) for v in self.timesteps.draw(random.total, random.generator))
        x_start = mean + std * random.normal(mean.shape[1:])
        noise = random.normal(mean.shape[1:])
        conditional = (random.uniform(()) >= self.null)[:, None]
        x_t = self.diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t, batch.embeddings * conditional)
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
