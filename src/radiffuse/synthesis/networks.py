"""The autoencoder and the conditional denoiser of latent diffusion (Rombach et al. 2022), built from diffusers.

Both wrap a class of diffusers at any size, so what is trained here loads there, and the other way round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import LATENT_PRESETS, AutoencoderSettings, LatentNetwork
from ..errors import InputError
from .hub import component_folder, hush

WEIGHTS = "diffusion_pytorch_model.safetensors"
OWN = "radiffuse then trains its own on the images"
MOST_GROUPS = 32


class Autoencoder(nn.Module):
    """``AutoencoderKL`` for images in [-1, 1] of any number of channels, and latents of spread 1.

    Gray images are shown to an autoencoder of colors as three equal channels, and its answer is averaged.

    Args:
        vae: ``AutoencoderKL`` of diffusers.
        channels: Channels of the images.

    Raises:
        InputError: The autoencoder takes another number of channels, and the images are not gray.
    """

    def __init__(self, vae: Any, channels: int) -> None:
        super().__init__()
        if channels not in (1, vae.config.in_channels):
            raise InputError(
                "the autoencoder",
                f"takes {vae.config.in_channels} channels, the images have {channels}",
                "Train one on the images: leave --autoencoder out",
            )
        self.vae = vae
        self.channels = channels

    @property
    def scale(self) -> float:
        """What latents are multiplied by, so that their spread is 1."""
        return float(self.vae.config.scaling_factor)

    @property
    def latent_channels(self) -> int:
        """Channels of the latents."""
        return int(self.vae.config.latent_channels)

    @property
    def factor(self) -> int:
        """Pixels per latent along each axis."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One pass of training.

        Args:
            images: ``(B, C, rows, columns)`` in [-1, 1].
            noise: Standard normal, shaped like the latents.

        Returns:
            The reconstruction, and mean and log variance of the latents before scaling.
        """
        posterior = self._posterior(images)
        latents = posterior.mean + posterior.std * noise
        return self._pixels(latents), posterior.mean, posterior.logvar

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Mean and spread of the scaled latents, ``(B, 2 c, h, w)``."""
        posterior = self._posterior(images)
        return torch.cat([posterior.mean, posterior.std], dim=1).float() * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(B, C, rows, columns)`` in [-1, 1] of scaled latents ``(B, c, h, w)``."""
        return self._pixels(latents / self.scale).float().clamp(-1, 1)

    def _posterior(self, images: Tensor) -> Any:
        return self.vae.encode(
            images.expand(-1, int(self.vae.config.in_channels), -1, -1)
        ).latent_dist

    def _pixels(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.vae.decode(latents).sample
        return pixels.mean(1, keepdim=True) if self.channels == 1 else pixels


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


def build_autoencoder(settings: AutoencoderSettings, channels: int, size: int) -> Autoencoder:
    """A fresh autoencoder."""
    from diffusers import AutoencoderKL

    levels = len(settings.channels)
    vae = AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(settings.channels),
        layers_per_block=settings.blocks,
        latent_channels=settings.latent_channels,
        norm_num_groups=_groups(settings.channels),
        sample_size=size,
        scaling_factor=1.0,
    )
    return Autoencoder(vae, channels)


def load_autoencoder(name: str, channels: int, setting: str = "--autoencoder") -> Autoencoder:
    """An autoencoder by folder or public name; a folder in the layout of Stable Diffusion gives its ``vae``.

    Args:
        name: Folder or public name.
        channels: Channels of the images.
        setting: The flag that named it, for messages.

    Raises:
        InputError: There is none, or it is not one that can be read.
    """
    parts = ("", "vae") if setting == "--autoencoder" else ("vae",)
    return Autoencoder(_load("AutoencoderKL", name, parts, setting, OWN), channels)


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
        norm_num_groups=_groups(channels),
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

    source = _load(
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
    """Draw the map of the embedding so that context tokens of these embeddings start with mean 0 and spread 1.

    Embeddings of images of one kind lie close together; without this the first context tokens would hardly differ.

    Args:
        denoiser: Its map is overwritten.
        embeddings: ``(N, width)``, of length 1.
    """
    linear = denoiser.unet.encoder_hid_proj
    mean = embeddings.mean(0)
    spread = (embeddings - mean).square().sum(1).mean().sqrt().clamp(min=1e-3)
    with torch.no_grad():
        weight = torch.randn_like(linear.weight) / spread
        linear.weight.copy_(weight)
        linear.bias.copy_(-weight @ mean.to(weight))


# ------------------------------------------------------------------------------------------------ internal


def _load(kind: str, name: str, parts: tuple[str, ...], setting: str, default: str) -> Any:
    """A model of diffusers, from the first of these folders below the named one that holds it ('' is itself)."""
    import diffusers

    hush()
    root = Path(name).expanduser()
    if root.is_dir():
        parts = tuple(p for p in parts if (root / p / WEIGHTS).is_file())[:1] or parts[:1]
    for part in parts:
        files = [str(Path(part) / file) for file in ("config.json", WEIGHTS)]
        try:
            folder = component_folder(name, files, setting=setting, default=default) / part
            break
        except InputError:
            if part == parts[-1]:
                raise
    try:
        model = getattr(diffusers, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except Exception as error:  # diffusers raises many types, all about the folder
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            folder, f"holds no {kind} that can be read ({reason})", "Restore the folder"
        ) from None
    return model.float()


def _blocks(way: str, attended: int, levels: int) -> tuple[str, ...]:
    """Names of the blocks, finest first."""
    return (f"CrossAttn{way}Block2D",) * attended + (f"{way}Block2D",) * (levels - attended)


def _groups(channels: tuple[int, ...]) -> int:
    """Most groups, up to 32, that divide the channels of every level."""
    return next(n for n in range(MOST_GROUPS, 0, -1) if all(c % n == 0 for c in channels))
