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
from ..core.schedules import flow_times
from ..data.batches import Batch, BatchSource
from ..data.scan import Array
from ..errors import InputError
from ..nets.hub import load_diffusers, most_groups
from ..objectives.denoising import DenoisingTask, Network
from ..train.random import StepRandom
from ..train.task import Loss
from .alignment import misalignment, without_projector


class ConditionalDenoiser(nn.Module):
    """``UNet2DConditionModel`` whose context is one token: a linear map of the embedding (``encoder_hid_proj``).

    The null token is the embedding 0, so it is the bias of that map and is learned.

    Args:
        unet: The network.
        diffusion: The noising process. As the schedulers of diffusers do, a flow tells the network its time, T s.
    """

    times: Tensor | None

    def __init__(self, unet: Any, diffusion: Diffusion) -> None:
        super().__init__()
        self.unet = unet
        total, times = diffusion.num_train_timesteps, None
        if diffusion.schedule == "flow":
            times = (total * flow_times(total, diffusion.shift)).float()
        self.register_buffer("times", times, persistent=False)

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
        time = t if self.times is None else self.times[t]
        output: Tensor = self.unet(x_t, time, encoder_hidden_states=embedding[:, None]).sample
        return output


def build_denoiser(
    network: LatentNetwork, diffusion: Diffusion, *, latent_channels: int, size: int, width: int
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
    return ConditionalDenoiser(unet, diffusion)


def start_denoiser(
    name: str, diffusion: Diffusion, *, latent_channels: int, width: int
) -> ConditionalDenoiser:
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
    return ConditionalDenoiser(unet, diffusion)


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

    ``embeddings`` are float32 ``(B, width)``; ``tokens``, to align with, are float32 ``(B, width, h, w)`` or None.
    """

    embeddings: Tensor
    tokens: Tensor | None = None


class LatentBatches(BatchSource[int, LatentBatch]):
    """Batches of latents ``(N, 2 c, h, w)`` with their embeddings ``(N, width)``; ``names`` are the cases.

    ``tokens``, of the patches of the films, are ``(N, width, h, w)``, or None.
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
        tokens: Array | None = None,
    ) -> None:
        super().__init__(indices, batch_size=batch_size, seed=seed)
        self.latents, self.embeddings, self.tokens = latents, embeddings, tokens
        self.names = tuple(names)

    def sample(self, index: int, rng: np.random.Generator) -> int:
        """The row itself; nothing of it is random."""
        return index

    def collate(self, samples: Sequence[int]) -> LatentBatch:
        """The rows of the arrays."""

        def rows(array: Array) -> Tensor:
            return torch.from_numpy(
                np.stack([np.asarray(array[row], np.float32) for row in samples])
            )

        names = tuple(self.names[row] for row in samples)
        tokens = None if self.tokens is None else rows(self.tokens)
        return LatentBatch(rows(self.latents), None, names, rows(self.embeddings), tokens)


class LatentDenoising(DenoisingTask):
    """The task: predict the noise, the latent or v from a noised latent, as the diffusion settings say.

    Args:
        build: Makes the denoiser at its start.
        diffusion: The noising process.
        null: Fraction of the samples that get the null token.
        alignment: Weight of the distance between an ``AlignedDenoiser``'s feature and the batch's tokens; 0: the
            network is a ``ConditionalDenoiser``.
        held_out: Latents and embeddings never trained on, or None.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        diffusion: Diffusion,
        *,
        null: float,
        alignment: float = 0.0,
        held_out: LatentBatch | None = None,
    ) -> None:
        super().__init__(build, diffusion)
        self.null, self.alignment, self.held_out = null, alignment, held_out

    def clean(self, batch: Batch, random: StepRandom) -> Tensor:
        """Latents drawn from their posterior."""
        mean, std = batch.images.chunk(2, dim=1)
        return mean + std * random.normal(mean.shape[1:])

    def context(self, batch: Batch, random: StepRandom) -> tuple[Tensor, ...]:
        """The embeddings, some of them replaced by the null token."""
        assert isinstance(batch, LatentBatch)
        return (batch.embeddings * (random.uniform(()) >= self.null)[:, None],)

    def loss(self, network: Network, batch: Batch, random: StepRandom) -> Loss:
        """The error of the prediction, and what keeps an inner feature near the encoder's tokens."""
        if not self.alignment:
            return super().loss(network, batch, random)
        assert isinstance(batch, LatentBatch)
        assert batch.tokens is not None
        found: list[Tensor] = []

        def denoise(x_t: Tensor, t: Tensor, embedding: Tensor) -> Tensor:
            output, feature = network(x_t, t, embedding)
            found.append(feature)
            return torch.as_tensor(output)

        error = super().loss(denoise, batch, random)
        apart = misalignment(found[0], batch.tokens).mean()
        value = error.value + self.alignment * apart
        return Loss(value, {**error.terms, "misalignment": float(apart.detach())})

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Denoising error on held-out latents with their own embeddings, and with the null token."""
        if self.held_out is None or not len(self.held_out):
            return {}
        held, network = self.held_out.to(device), without_projector(network)
        x_start = held.images.chunk(2, dim=1)[0]
        contexts = {"loss": held.embeddings, "loss_null": torch.zeros_like(held.embeddings)}
        return {
            name: self.held_out_error(network, x_start, context)
            for name, context in contexts.items()
        }
