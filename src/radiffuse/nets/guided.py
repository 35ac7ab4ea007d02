"""The U-Net guided by anatomy: body coordinates of every voxel are an input (Li et al. 2025, arXiv 2501.19265)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from .coordinates import CoordinateRegressor
from .unet import UNet


class GuidedUNet(UNet):
    """A U-Net with body coordinates of the clean patch as further input channels.

    Args:
        config: The U-Net; the last ``spatial_dims`` of its ``in_channels`` are the coordinates.
        regressor: Computes the coordinates; frozen, and saved with the network.
        checkpoint_activations: See ``UNet``.
    """

    def __init__(
        self,
        config: UNetConfig,
        regressor: CoordinateRegressor,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(config, checkpoint_activations)
        if regressor.config.spatial_dims != config.spatial_dims:
            axes = regressor.config.spatial_dims
            raise ValueError(f"a regressor of {axes} axes for {config.spatial_dims}")
        self.regressor = regressor.requires_grad_(False).eval()

    @property
    def coordinate_channels(self) -> int:
        """Input channels that are coordinates: the last ones."""
        return self.config.spatial_dims

    def forward(self, x: Tensor, t: Tensor, clean: Tensor | None = None) -> Tensor:
        """One pass.

        Args:
            x: (B, in_channels - spatial_dims, *S), such as a noised patch.
            t: (B,) training timesteps.
            clean: (B, C, *S), the clean patch, for the coordinates; None: ``x`` itself is clean.

        Returns:
            (B, out_channels, *S).
        """
        return self.features(x, t, ("output",), clean)["output"]

    def features(
        self,
        x: Tensor,
        t: Tensor,
        taps: Sequence[str],
        clean: Tensor | None = None,
        *,
        where: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The named features of one pass, see ``UNet``; ``clean`` as in ``forward``.

        ``where`` gives the coordinates of the clean patch, (B, spatial_dims, *S), where they are known already.
        """
        if where is None:
            where = self.coordinates(x if clean is None else clean)
        return super().features(torch.cat([x, where.to(x.dtype)], dim=1), t, taps)

    @torch.no_grad()
    def coordinates(self, clean: Tensor) -> Tensor:
        """Body coordinates of clean images ``(B, C, *S)``: ``(B, spatial_dims, *S)``."""
        where: Tensor = self.regressor(clean)
        return where

    def train(self, mode: bool = True) -> GuidedUNet:
        """Set the mode of the U-Net; the regressor stays in evaluation mode."""
        super().train(mode)
        self.regressor.eval()
        return self

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights but those of the regressor again."""
        kept = {name: tensor.clone() for name, tensor in self.regressor.state_dict().items()}
        super().initialize(generator)
        self.regressor.load_state_dict(kept)

    def rebuilt(self, config: UNetConfig) -> GuidedUNet:
        """A network of this class with the same regressor; see ``UNet``."""
        return GuidedUNet(config, self.regressor, self.checkpoint_activations)

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return super().to_config() | {"coordinates": self.regressor.to_config()}
