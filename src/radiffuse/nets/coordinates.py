"""The body-part regressor: the position of a voxel in the body, from the patch around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import UNetConfig
from .blocks import convolution, redraw_all
from .unet import UNet

QUARTER = 4
"""Down-sampling of the level that coordinates are read from [related: APE, arXiv 2409.10291], along any axis."""


class CoordinateRegressor(nn.Module):
    """Images to body coordinates, one per spatial axis.

    A coordinate is a length along its axis in units of ``scale``; only differences are meaningful. The decoder of the
    U-Net ends at its first level of a quarter of the resolution or less; from there, coordinates are interpolated.

    Args:
        config: The U-Net; its ``out_channels`` are not used.
        scale: Length of one unit along each axis: millimeters in 3D, pixels of the plan's grid in 2D.
    """

    scale: Tensor

    def __init__(self, config: UNetConfig, scale: Sequence[float]) -> None:
        super().__init__()
        if len(scale) != config.spatial_dims:
            raise ValueError(f"{len(scale)} scales for {config.spatial_dims} axes")
        self.config = config
        coarse = [level for level, f in enumerate(config.factors) if max(f) >= QUARTER]
        self.level = coarse[0] if coarse else len(config.multipliers) - 1
        trunk = UNet(config)
        depth = trunk.taps[f"level.{self.level}"]
        # The rest is never run; it is removed so that every weight is trained.
        trunk.up = nn.ModuleList(list(trunk.up)[:depth])
        last = cast(Any, trunk.up[-1])
        last.resample = None
        trunk.norm, trunk.head = nn.Identity(), nn.Identity()  # type: ignore[assignment]
        trunk.refine = None
        self.trunk = trunk
        channels = config.width * config.multipliers[self.level]
        self.head = convolution(config.spatial_dims, channels, config.spatial_dims, 1)
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float32))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights again."""
        redraw_all(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, *S)`` in [-1, 1] to coordinates ``(B, dims, *S)``."""
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        name = f"level.{self.level}"
        coarse = self.head(self.trunk.features(images, t, (name,))[name])
        mode = "bilinear" if self.config.spatial_dims == 2 else "trilinear"
        return functional.interpolate(coarse, images.shape[2:], mode=mode, align_corners=False)

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        values = {"scale": self.scale.tolist(), "unet": asdict(self.config)}
        return {"kind": "coordinates", **values}
