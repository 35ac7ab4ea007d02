"""The denoiser as a segmenter: only the last convolution is replaced (Rousseau et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .blocks import redraw
from .unet import UNet


class SegmentingUNet(nn.Module):
    """A U-Net that segments a clean image at a fixed timestep; 0 fits a clean image best."""

    def __init__(self, unet: UNet, timestep: int = 0) -> None:
        super().__init__()
        self.unet = unet
        self.timestep = timestep

    @classmethod
    def from_scratch(
        cls, config: UNetConfig, *, timestep: int = 0, generator: torch.Generator
    ) -> SegmentingUNet:
        """The network with random weights; ``config.out_channels`` is the number of classes."""
        unet = UNet(config)
        unet.initialize(generator)
        return cls(with_head(unet, config.out_channels, generator), timestep)

    @classmethod
    def from_denoiser(
        cls, denoiser: UNet, *, classes: int, timestep: int = 0, generator: torch.Generator
    ) -> SegmentingUNet:
        """A pre-trained denoiser with its last 3x3 convolution replaced by one of ``classes`` outputs."""
        return cls(with_head(denoiser, classes, generator), timestep)

    @property
    def bottleneck(self) -> nn.Module:
        """The layers at the lowest resolution."""
        return self.unet.middle

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K, *S)`` of images ``(B, C, *S)`` in [-1, 1]."""
        t = torch.full((images.shape[0],), self.timestep, dtype=torch.int64, device=images.device)
        logits: Tensor = self.unet(images, t)
        return logits

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return self.unet.to_config() | {"kind": "segmenter", "timestep": self.timestep}


def with_head(unet: UNet, classes: int, generator: torch.Generator) -> UNet:
    """The same trunk with a fresh head, which is not zero: a zero head would block the trunk's gradient."""
    result = unet.rebuilt(replace(unet.config, out_channels=classes))
    trunk = {k: v for k, v in unet.state_dict().items() if not k.startswith("head.")}
    result.load_state_dict(trunk, strict=False)
    redraw(result.head, generator)
    return result
