"""The latent denoiser, conditioned on the embedding of an image, and how it is trained.

Rombach et al. 2022, eq. 3, with the embedding of the image itself as its condition (Jimenez-Perez et al. 2024); the
condition is left out now and then, so that guidance can weigh it (Ho and Salimans 2022). The network is
``UNet2DConditionModel`` of diffusers at any size, so what is trained here loads there, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..config import LATENT_PRESETS, Diffusion, LatentNetwork
from ..data.batches import Batch, BatchSource
from ..data.scan import Array
from ..errors import InputError
from ..objectives.denoising import DenoisingTask
from ..train.random import StepRandom
from .hub import load_diffusers, most_groups


class ConditionalDenoiser(nn.Module):
    """``UNet2DConditionModel`` whose context is one token: a linear map of the embedding (``encoder_hid_proj``).

    The null token is the embedding 0, so it is the bias of that map and is learned.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    @property
    def width(self) -> int:
        """Width of the embedding it is conditioned on."""
        return int(self.unet.config.encoder_hid_dim)

    def forward(self, x_t: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
        """The prediction, shaped like ``x_t``.

        Args:
            x_t: ``(B, c, h, w)``.
            t: ``(B,)`` int64 training timesteps.
            embedding: ``(B, width)`` of length 1; all 0 is the null token.
        """
        output: Tensor = self.unet(x_t, t, encoder_hidden_states=embedding[:, None]).sample
        return output


def build_denoiser(
    network: LatentNetwork, *, latent_channels: int, size: int, width: int
) -> ConditionalDenoiser:
    """A fresh denoiser of latents whose longer axis has ``size``; ``width`` is that of the embeddings.

    Raises:
        InputError: The number of heads does not divide the channels of every level.
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
    # Stable Diffusion has no attention at its coarsest level; small networks have small grids and can afford it.
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
        has = f"has a unet for {source.config.in_channels} latent channels"
        problem = f"{has}, the autoencoder has {latent_channels}"
        raise InputError(f"--from {name}", problem, "Take the autoencoder of the same folder")
    config = dict(source.config) | {"encoder_hid_dim": width, "encoder_hid_dim_type": "text_proj"}
    unet = UNet2DConditionModel.from_config(config)
    kept = {k: v for k, v in source.state_dict().items() if not k.startswith("encoder_hid_proj")}
    unet.load_state_dict(kept, strict=False)
    return ConditionalDenoiser(unet)


def center_context(denoiser: ConditionalDenoiser, embeddings: Tensor) -> None:
    """Initialize the map of the embedding: context tokens of ``embeddings`` start with mean 0 and standard deviation 1.

    Embeddings of images of one kind lie close together; without this the first context tokens would hardly differ.
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

    ``embeddings`` are float32 ``(B, width)``.
    """

    embeddings: Tensor


class LatentBatches(BatchSource[int, LatentBatch]):
    """Batches of latents ``(N, 2 c, h, w)`` with their embeddings ``(N, width)``; ``names`` are the cases."""

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


class LatentDenoising(DenoisingTask):
    """The task: predict the noise, the latent or v from a noised latent, as the diffusion settings say.

    Args:
        build: Makes the denoiser at its start.
        diffusion: The noising process.
        null: Fraction of the samples that get the null token.
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
        super().__init__(diffusion)
        self.start, self.null, self.held_out = build, null, held_out

    def build(self) -> nn.Module:
        """The denoiser at its start."""
        return self.start()

    def clean(self, batch: Batch, random: StepRandom) -> Tensor:
        """Latents drawn from their posterior."""
        mean, std = batch.images.chunk(2, dim=1)
        return mean + std * random.normal(mean.shape[1:])

    def context(self, batch: Batch, random: StepRandom) -> tuple[Tensor, ...]:
        """The embeddings, some of them replaced by the null token."""
        assert isinstance(batch, LatentBatch)
        return (batch.embeddings * (random.uniform(()) >= self.null)[:, None],)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Denoising error on held-out latents with their own embeddings, and with the null token."""
        if self.held_out is None or not len(self.held_out):
            return {}
        held = self.held_out.to(device)
        x_start = held.images.chunk(2, dim=1)[0]
        contexts = {"loss": held.embeddings, "loss_null": torch.zeros_like(held.embeddings)}
        return {
            name: self.held_out_error(network, x_start, context, at_once=len(held))
            for name, context in contexts.items()
        }
