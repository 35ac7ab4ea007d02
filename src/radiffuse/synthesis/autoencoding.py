"""What a KL autoencoder learns: latents close to the standard normal from which the image can be read again.

Kingma and Welling 2014; Rombach et al. 2022 for the shape of it. In place of their perceptual and adversarial terms,
which need networks that were trained on photographs, stands the error of differences between neighboring pixels. [ours]
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..config import AutoencoderSettings
from ..data.batches import Batch
from ..train.random import StepRandom
from ..train.task import Loss
from .networks import Autoencoder, build_autoencoder

SCALE_IMAGES = 512
"""Most images that the spread of the latents is estimated from."""


class Autoencoding:
    """The task: read the image again from its latents.

    Args:
        settings: Sizes and weights of the terms.
        size: Pixels along the longer axis.
        channels: Channels of the images.
        held_out: Images ``(N, C, rows, columns)`` never trained on, or None.
    """

    name = "autoencoding"

    def __init__(
        self, settings: AutoencoderSettings, size: int, channels: int, held_out: Tensor | None
    ) -> None:
        self.settings = settings
        self.size = size
        self.channels = channels
        self.held_out = held_out

    def build(self) -> nn.Module:
        """The autoencoder at its start."""
        return build_autoencoder(self.settings, self.channels, self.size)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """L1 error of pixels and of their differences, and the KL divergence of the latents."""
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
        return Loss(pixels + self.settings.gradient * edges + self.settings.kl * kl, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean absolute error of unseen images, in gray values of 255."""
        if self.held_out is None or not len(self.held_out):
            return {}
        assert isinstance(network, Autoencoder)
        errors = []
        for part in self.held_out.split(16):
            images = part.to(device)
            mean = network.encode(images)[:, : network.latent_channels]
            errors.append((network.decode(mean) - images).abs().flatten(1).mean(1))
        return {"error": 127.5 * float(torch.cat(errors).mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


def gradient_error(output: Tensor, images: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbors along both axes."""
    errors = [(output.diff(dim=axis) - images.diff(dim=axis)).abs().mean() for axis in (2, 3)]
    return errors[0] + errors[1]


def estimate_scale(network: Autoencoder, images: Tensor) -> float:
    """One over the standard deviation of the latents of these images, which diffusers calls ``scaling_factor``.

    Rombach et al. 2022, section 4.3.2: over all channels and places together.
    """
    network.vae.register_to_config(scaling_factor=1.0)
    moments = torch.cat([network.encode(part) for part in images[:SCALE_IMAGES].split(16)])
    mean, spread = moments.chunk(2, dim=1)
    variance = mean.var() + spread.square().mean()
    return float(1 / variance.sqrt())
