"""The U-Net as a denoiser of masks: from an image and a noised mask to logits of the clean mask."""

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
        cls,
        config: UNetConfig,
        *,
        self_condition: bool = False,
        image_share: float | None = None,
        generator: torch.Generator,
    ) -> MaskDenoiser:
        """Random weights; ``config`` has the channels of the image in, and the number of classes out.

        Args:
            config: Of a network that sees the image alone.
            self_condition: See the class.
            image_share: Share of the image in the expected squared weights of the first layer, whose sum stays; None:
                that of its channels.
            generator: Source of the weights.
        """
        classes = config.out_channels
        unet = UNet(mask_denoiser_config(config, classes, self_condition))
        unet.initialize(generator)
        if image_share is not None:
            part = config.in_channels / unet.config.in_channels
            with torch.no_grad():
                for name, each in unet.input_weights.items():
                    weight, end = unet.get_parameter(name), config.in_channels * each
                    weight[:, :end] *= (image_share / part) ** 0.5
                    weight[:, end:] *= ((1 - image_share) / (1 - part)) ** 0.5
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
        """A pre-trained denoiser of images with a fresh head; the weights of new input channels are initially zero.

        So initially the features are those of the pre-trained network, whatever the mask.
        """
        unet = denoiser.rebuilt(mask_denoiser_config(denoiser.config, classes, self_condition))
        unet.initialize(generator)
        unet.load_state_dict(widened(denoiser, unet), strict=False)
        return cls(with_head(unet, classes, generator), classes, self_condition=self_condition)

    def forward(
        self, images: Tensor, x_t: Tensor, t: Tensor, guess: Tensor | None = None
    ) -> Tensor:
        """Logits of the clean mask.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            x_t: ``(B, K, *S)``, a noised one-hot mask; it is clipped to [-1, 1] here and nowhere else.
            t: ``(B,)`` training timesteps.
            guess: ``(B, K, *S)`` in [-1, 1], an earlier estimate of x_start, with ``self_condition`` only. All of -1,
                which no estimate can be, means no estimate, as does None.

        Returns:
            ``(B, K, *S)``.
        """
        inputs = [images, _unit(x_t)]
        if self.self_condition:
            inputs.append(_unit(torch.full_like(x_t, -1) if guess is None else guess))
        x = torch.cat(inputs, dim=1)
        guided = isinstance(self.unet, GuidedUNet)
        logits: Tensor = self.unet(x, t, images) if guided else self.unet(x, t)
        return logits

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        values = {"classes": self.classes, "self_condition": self.self_condition}
        return self.unet.to_config() | {"kind": "mask-denoiser", **values}


def widened(denoiser: UNet, unet: UNet) -> dict[str, Tensor]:
    """The weights of a denoiser, without its head, for a network with more input channels, whose weights are zero.

    Image channels come first, coordinates last where there are any, and the new ones between them.
    """
    weights, grown = denoiser.state_dict(), unet.state_dict()
    coordinates = denoiser.coordinate_channels
    image = denoiser.config.in_channels - coordinates
    for name, each in unet.input_weights.items():
        old, new = weights[name], torch.zeros_like(grown[name])
        new[:, : image * each] = old[:, : image * each]
        new[:, new.shape[1] - coordinates * each :] = old[:, image * each :]
        weights[name] = new
    return {k: v for k, v in weights.items() if not k.startswith("head.")}


def _unit(x: Tensor) -> Tensor:
    """[-1, 1], clipped, to [0, 1]."""
    return (x.clamp(-1, 1) + 1) / 2


def mask_denoiser_config(config: UNetConfig, classes: int, self_condition: bool) -> UNetConfig:
    """The U-Net of an image with input channels for the noised mask and, optionally, an earlier estimate of it."""
    extra = classes * (2 if self_condition else 1)
    return replace(config, in_channels=config.in_channels + extra, out_channels=classes)
