"""The U-Net as a denoiser of masks: it sees an image and a noised mask, and gives logits of the clean mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .guided import GuidedUNet
from .segmenter import with_head
from .unet import UNet


class MaskDenoiser(nn.Module):
    """``(image, x_t, t) -> logits`` (Fu et al. 2023).

    Args:
        unet: The network: image channels first, then K channels for x_t and, with ``self_condition``, K more.
        classes: K, with background.
        self_condition: Whether an earlier estimate of the mask is an input too (Chen et al. 2022).
    """

    def __init__(self, unet: UNet, classes: int, *, self_condition: bool = False) -> None:
        super().__init__()
        self.unet = unet
        self.classes = classes
        self.self_condition = self_condition

    @classmethod
    def from_scratch(
        cls, config: UNetConfig, *, self_condition: bool = False, generator: torch.Generator
    ) -> MaskDenoiser:
        """Random weights.

        Args:
            config: ``in_channels`` are the image's, ``out_channels`` is the number of classes.
            self_condition: See the class.
            generator: Source of the weights.
        """
        classes = config.out_channels
        unet = UNet(mask_denoiser_config(config, classes, self_condition))
        unet.initialize(generator)
        return cls(with_head(unet, classes, generator), classes, self_condition=self_condition)

    @classmethod
    def from_denoiser(
        cls,
        denoiser: UNet,
        *,
        classes: int,
        self_condition: bool = False,
        generator: torch.Generator,
    ) -> MaskDenoiser:
        """A pre-trained denoiser of images; the new input channels start at zero, the head is fresh.

        At first every feature is that of the pre-trained network, whatever the mask.
        """
        unet = denoiser.rebuilt(mask_denoiser_config(denoiser.config, classes, self_condition))
        unet.initialize(generator)
        weights = denoiser.state_dict()
        stem = torch.zeros_like(unet.stem.weight)
        # Image channels first, coordinates last where there are any, masks between them.
        image = denoiser.config.in_channels - denoiser.coordinate_channels
        stem[:, :image] = weights["stem.weight"][:, :image]
        stem[:, stem.shape[1] - denoiser.coordinate_channels :] = weights["stem.weight"][:, image:]
        trunk = {k: v for k, v in weights.items() if not k.startswith("head.")}
        unet.load_state_dict(trunk | {"stem.weight": stem}, strict=False)
        return cls(with_head(unet, classes, generator), classes, self_condition=self_condition)

    def forward(
        self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        """Logits of the clean mask.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            x_t: ``(B, K, *S)``, a noised one-hot mask; what lies outside [-1, 1] is clipped here and nowhere else.
            t: ``(B,)`` training timesteps.
            guess: ``(B, K, *S)`` in [-1, 1], an earlier estimate of x_start; all of -1, which no estimate is, stands
                for none, as does None. Only with ``self_condition``.

        Returns:
            ``(B, K, *S)``.
        """
        inputs = [images, _share(x_t)]
        if self.self_condition:
            inputs.append(_share(torch.full_like(x_t, -1) if guess is None else guess))
        x = torch.cat(inputs, dim=1)
        guided = isinstance(self.unet, GuidedUNet)
        logits: Tensor = self.unet(x, t, images) if guided else self.unet(x, t)
        return logits

    def to_config(self) -> dict[str, Any]:
        """What ``registry.build`` needs to make this network again."""
        return self.unet.to_config() | {
            "kind": "mask-denoiser",
            "classes": self.classes,
            "self_condition": self.self_condition,
        }


def _share(x: Tensor) -> Tensor:
    """[-1, 1] as [0, 1], clipped: masks enter the network as shares."""
    return (x.clamp(-1, 1) + 1) / 2


def mask_denoiser_config(config: UNetConfig, classes: int, self_condition: bool) -> UNetConfig:
    """The U-Net of an image with room for the noised mask and, if asked for, an earlier estimate of it."""
    extra = classes * (2 if self_condition else 1)
    return replace(config, in_channels=config.in_channels + extra, out_channels=classes)
