"""The KL autoencoder between images and latents: ``AutoencoderKL`` of diffusers, loaded or trained on the images.

Kingma and Welling 2014; Rombach et al. 2022 for the architecture. Their perceptual and adversarial terms need networks
trained on photographs; here the error of differences between neighboring pixels takes their place. [ours]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..config import AutoencoderSettings
from ..data.batches import Batch
from ..errors import InputError
from ..nets.encoder import Encoder
from ..nets.hub import OWN, load_diffusers, most_groups
from ..train.random import StepRandom
from ..train.task import Loss, Task, in_passes

SCALE_IMAGES = 512
"""The standard deviation of the latents is estimated from at most this many images."""


class Autoencoder(nn.Module):
    """``AutoencoderKL`` for images in [-1, 1] of any number of channels, and latents of standard deviation 1.

    An autoencoder of color images gets a gray image as three equal channels, and its output is averaged over them.

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
        """Latents are multiplied by this, so that their standard deviation is 1."""
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
        """One pass of training on images ``(B, C, rows, columns)`` in [-1, 1], with normal noise of the latents' shape.

        Returns:
            The reconstruction, and mean and log variance of the latents before scaling.
        """
        posterior = self._posterior(images)
        latents = posterior.mean + posterior.std * noise
        return self._pixels(latents), posterior.mean, posterior.logvar

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Mean and standard deviation of the scaled latents, ``(B, 2 c, h, w)``."""
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
        norm_num_groups=most_groups(settings.channels),
        sample_size=size,
        scaling_factor=1.0,
    )
    return Autoencoder(vae, channels)


def load_autoencoder(name: str, channels: int, setting: str = "--autoencoder") -> Autoencoder:
    """An autoencoder by folder or public name; ``setting`` is the flag that named it, for messages.

    A folder in the layout of Stable Diffusion gives its ``vae``.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    parts = ("", "vae") if setting == "--autoencoder" else ("vae",)
    return Autoencoder(load_diffusers("AutoencoderKL", name, parts, setting, OWN), channels)


class Autoencoding(Task):
    """The task: reconstruct images whose longer axis has ``size`` pixels from their latents.

    ``held_out`` are images ``(N, C, rows, columns)`` for validation, or None; ``encoder`` is that of the perceptual
    term, which needs one where its weight is above 0.
    """

    def __init__(
        self,
        settings: AutoencoderSettings,
        size: int,
        channels: int,
        held_out: Tensor | None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(lambda: build_autoencoder(settings, channels, size))
        self.settings, self.held_out, self.encoder = settings, held_out, encoder

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """L1 error of pixels and of their differences, the KL divergence of the latents, and the perceptual term."""
        images = batch.images
        factor = 2 ** (len(self.settings.channels) - 1)
        grid = (n // factor for n in images.shape[2:])
        noise = random.normal((self.settings.latent_channels, *grid))
        output, mean, log_variance = network(images, noise)
        pixels = (output - images).abs().mean()
        edges = gradient_error(output, images)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        terms = {
            "loss_pixels": float(pixels.detach()),
            "loss_edges": float(edges.detach()),
            "kl": float(kl.detach()),
        }
        total = pixels + self.settings.gradient * edges + self.settings.kl * kl
        if self.settings.perceptual:
            assert self.encoder is not None
            perceptual = perceptual_error(self.encoder.to(images.device), output, images)
            terms["loss_perceptual"] = float(perceptual.detach())
            total = total + self.settings.perceptual * perceptual
        return Loss(total, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean absolute error of held-out images, in gray values of 255."""
        if self.held_out is None or not len(self.held_out):
            return {}
        assert isinstance(network, Autoencoder)
        errors = []
        for (part,) in in_passes(self.at_once, self.held_out):
            images = part.to(device)
            mean = network.encode(images)[:, : network.latent_channels]
            errors.append((network.decode(mean) - images).abs().flatten(1).mean(1))
        return {"error": 127.5 * float(torch.cat(errors).mean())}


def gradient_error(output: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbors along both axes."""
    errors = [(output.diff(dim=axis) - images.diff(dim=axis)).abs().mean() for axis in (2, 3)]
    return errors[0] + errors[1]


def perceptual_error(encoder: Encoder, output: Tensor, images: Tensor) -> Tensor:
    """Mean squared distance, 0 to 4, of the encoder's patch tokens, each of length 1, of reconstructions and images.

    [ours] The gradient reaches ``output`` alone.
    """
    with torch.no_grad():
        wanted = normalize(encoder.patches(images), dim=1)
    found = normalize(encoder.patches(output.float(), frozen=False), dim=1)
    return (found - wanted).square().sum(1).mean()


def estimate_scale(network: Autoencoder, images: Tensor) -> float:
    """1 / standard deviation of the latents of these images, the ``scaling_factor`` of diffusers.

    Over all channels and places together (Rombach et al. 2022, section 4.3.2).
    """
    network.vae.register_to_config(scaling_factor=1.0)
    moments = torch.cat([network.encode(part) for part in images[:SCALE_IMAGES].split(16)])
    mean, std = moments.chunk(2, dim=1)
    variance = mean.var() + std.square().mean()
    return float(1 / variance.sqrt())
