"""The body-part regressor: the position of a voxel in the body, from the patch around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import UNetConfig
from ..config.types import Ramp
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
        ramp: What is done with the place of a voxel in its patch, a linear ramp along each axis: ``none``; ``input``:
            it is seen as well, in the last ``spatial_dims`` of the ``in_channels``; ``output``: it is added to the
            result, so that only what the patch's place and the body's shape change is learned [ours].
        step: Length of a voxel along each axis, in the lengths of ``scale``; used by the ramp.

    Raises:
        ValueError: Scale or step have another number of axes than the U-Net.
    """

    scale: Tensor

    def __init__(
        self,
        config: UNetConfig,
        scale: Sequence[float],
        ramp: Ramp = "none",
        step: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        step = (1.0,) * config.spatial_dims if step is None else step
        if not len(scale) == len(step) == config.spatial_dims:
            given = f"{len(scale)} scales and {len(step)} steps"
            raise ValueError(f"{given} for {config.spatial_dims} axes")
        self.config, self.ramp, self.step = config, ramp, tuple(step)
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
        # Plain numbers, since a program of torch.export cannot read them from a tensor.
        lengths = torch.tensor(list(scale), dtype=torch.float32, device="cpu").tolist()
        self.units = tuple(one / length for one, length in zip(self.step, lengths, strict=True))

    @property
    def image_channels(self) -> int:
        """Channels of the images that it sees."""
        return self.config.in_channels - self.config.spatial_dims * (self.ramp == "input")

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights again."""
        redraw_all(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, C, *S)`` in [-1, 1] to coordinates ``(B, dims, *S)``."""
        t = torch.zeros(images.shape[0], dtype=torch.int64, device=images.device)
        name, shape = f"level.{self.level}", images.shape[2:]
        if self.ramp == "input":
            place = self._places(images).expand(images.shape[0], *[-1] * (images.ndim - 1))
            images = torch.cat([images, place], dim=1)
        coarse = self.head(self.trunk.features(images, t, (name,))[name])
        mode = "bilinear" if self.config.spatial_dims == 2 else "trilinear"
        found = functional.interpolate(coarse, shape, mode=mode, align_corners=False)
        return found + self._places(images) if self.ramp == "output" else found

    def _places(self, images: Tensor) -> Tensor:
        """Where voxels lie from the middle of the patch, in units of ``scale``: ``(1, dims, *S)``."""
        axes = [
            (torch.arange(n, device=images.device, dtype=images.dtype) - (n - 1) / 2) * unit
            for n, unit in zip(images.shape[2:], self.units, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        values = {"scale": self.scale.tolist(), "unet": asdict(self.config)}
        return {"kind": "coordinates", **values, "ramp": self.ramp, "step": list(self.step)}
