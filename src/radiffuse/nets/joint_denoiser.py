"""The U-Net as a denoiser of image and mask together, each part at a timestep of its own.

Two timesteps, one network for every marginal and conditional distribution: UniDiffuser (Bao et al. 2023, arXiv
2303.06555), there a transformer of images and texts in latent spaces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .blocks import redraw, timestep_embedding, zero
from .mask_denoiser import widened
from .unet import UNet

CLEAN = -1
"""Timestep of a part that is given: the one before the first, as everywhere in ``core``."""


class TwoTimesUNet(UNet):
    """A U-Net that is told a second timestep; what it adds to the first is initially zero.

    Its ``t`` are (B, 2): the timesteps of the image and of the mask, ``CLEAN`` to T - 1.
    """

    def __init__(self, config: UNetConfig, checkpoint_activations: bool = False) -> None:
        super().__init__(config, checkpoint_activations)
        width = 4 * config.width
        last = nn.Linear(width, width)
        self.time_mask = nn.Sequential(nn.Linear(config.width, width), nn.SiLU(), last)
        zero(last)

    def embed(self, t: Tensor) -> Tensor:
        """What every block is told of both timesteps: (B, 2) to (B, 4 width)."""
        return super().embed(t[:, 0]) + self.of_mask(t[:, 1])

    def of_mask(self, t: Tensor) -> Tensor:
        """What it is told of the timesteps (B,) of the mask."""
        added: Tensor = self.time_mask(timestep_embedding(t, self.config.width))
        return added

    def initialize(self, generator: torch.Generator) -> None:
        """As of ``UNet``; what is told of the mask's timestep is zero too."""
        super().initialize(generator)
        for weight in self.time_mask[-1].parameters():
            nn.init.zeros_(weight)

    def rebuilt(self, config: UNetConfig) -> TwoTimesUNet:
        """See ``UNet``."""
        return TwoTimesUNet(config, self.checkpoint_activations)


class JointDenoiser(nn.Module):
    """``(image, mask, t) -> (what the process predicts of the image, logits of the clean mask)``, as channels.

    Args:
        unet: The network: C channels of the image, then K of the one-hot mask, in and out.
        classes: K, with background.
        timesteps: T of the process: a mask that is missing is pure noise, at T - 1.
    """

    def __init__(self, unet: TwoTimesUNet, classes: int, timesteps: int) -> None:
        super().__init__()
        self.unet, self.classes, self.timesteps = unet, classes, timesteps
        self.channels = unet.config.in_channels - classes

    @classmethod
    def from_scratch(
        cls, config: UNetConfig, *, timesteps: int, generator: torch.Generator
    ) -> JointDenoiser:
        """Random weights; ``config`` has the channels of the image in, and the number of classes out."""
        classes = config.out_channels
        unet = TwoTimesUNet(joint_config(config, classes))
        unet.initialize(generator)
        network = cls(unet, classes, timesteps)
        network.redraw_mask_head(generator)
        return network

    @classmethod
    def from_denoiser(
        cls, denoiser: UNet, *, classes: int, timesteps: int, generator: torch.Generator
    ) -> JointDenoiser:
        """A pre-trained denoiser of images: initially its prediction of the image is the same, whatever the mask.

        A learned variance is left out.
        """
        unet = TwoTimesUNet(joint_config(denoiser.config, classes), denoiser.checkpoint_activations)
        unet.initialize(generator)
        unet.load_state_dict(widened(denoiser, unet), strict=False)
        network = cls(unet, classes, timesteps)
        network.redraw_mask_head(generator)
        with torch.no_grad():
            for ours, theirs in zip(
                unet.head.parameters(), denoiser.head.parameters(), strict=True
            ):
                ours[: network.channels] = theirs[: network.channels]
        return network

    @torch.no_grad()
    def redraw_mask_head(self, generator: torch.Generator) -> None:
        """Random weights for the logits: zero ones would keep the gradient from all that lies before them."""
        image = [weight[: self.channels].clone() for weight in self.unet.head.parameters()]
        redraw(self.unet.head, generator)
        for weight, kept in zip(self.unet.head.parameters(), image, strict=True):
            weight[: self.channels] = kept

    def forward(self, image: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        """One pass.

        Args:
            image: ``(B, C, *S)``, noised, or in [-1, 1] where it is given.
            mask: ``(B, K, *S)``, the same of a one-hot mask of -1 and 1.
            t: ``(B, 2)`` training timesteps of image and mask, ``CLEAN`` where a part is given.

        Returns:
            ``(B, C + K, *S)``, see ``parts``.
        """
        output: Tensor = self.unet(torch.cat([image, mask], dim=1), t)
        return output

    def parts(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Of an output, or of an image and its mask as channels: ``(B, C, *S)`` and ``(B, K, *S)``."""
        return output[:, : self.channels], output[:, self.channels :]

    def segment(
        self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        """Logits ``(B, K, *S)`` for images that are given, as of ``MaskDenoiser``; no guess is used."""
        both = torch.stack([torch.full_like(t, CLEAN), t], dim=1)
        return self.parts(self(images, x_t, both))[1]

    @torch.no_grad()
    def image_part(self) -> UNet:
        """The denoiser of images: exactly this network with the mask missing, its noise replaced by the mean, zero.

        It starts what any pre-trained denoiser starts.
        """
        config, image = self.unet.config, self.channels
        unet = UNet(
            replace(config, in_channels=image, out_channels=image), self.unet.checkpoint_activations
        )
        weights = {n: w for n, w in self.unet.state_dict().items() if n in unet.state_dict()}
        for name, each in unet.input_weights.items():
            weights[name] = weights[name][:, : image * each]
        for name in ("head.weight", "head.bias"):
            weights[name] = weights[name][:image]
        missing = torch.tensor([self.timesteps - 1], device=weights["time.2.bias"].device)
        weights["time.2.bias"] = weights["time.2.bias"] + self.unet.of_mask(missing)[0]
        unet.load_state_dict(weights)
        return unet

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        values = {"classes": self.classes, "timesteps": self.timesteps}
        return self.unet.to_config() | {"kind": "joint-denoiser", **values}


def joint_config(config: UNetConfig, classes: int) -> UNetConfig:
    """The U-Net of an image, with channels for its mask in and out; without a learned variance."""
    channels = config.in_channels + classes
    return replace(config, in_channels=channels, out_channels=channels)
