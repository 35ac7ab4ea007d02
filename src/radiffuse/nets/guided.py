"""The U-Net guided by anatomy: it is told where in the body every voxel lies (Li et al. 2025, arXiv 2501.19265)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from .coordinates import CoordinateRegressor
from .unet import UNet


class GuidedUNet(UNet):
    """A U-Net that sees body coordinates of the clean patch beside its input.

    Args:
        config: The U-Net; the last ``spatial_dims`` of its ``in_channels`` are the coordinates.
        regressor: Gives the coordinates; frozen, and saved with the network.
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
            raise ValueError(
                f"a regressor of {regressor.config.spatial_dims} axes for {config.spatial_dims}"
            )
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
            clean: (B, C, *S), the clean patch that coordinates are taken from; None: ``x`` is clean itself.

        Returns:
            (B, out_channels, *S).
        """
        return self.features(x, t, ("output",), clean)["output"]

    def features(
        self, x: Tensor, t: Tensor, taps: Sequence[str], clean: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The named features of one pass, see ``UNet``; ``clean`` as in ``forward``."""
        with torch.no_grad():
            where = self.regressor(x if clean is None else clean).to(x.dtype)
        return super().features(torch.cat([x, where], dim=1), t, taps)

    def train(self, mode: bool = True) -> GuidedUNet:
        """The U-Net trains; the regressor never does."""
        super().train(mode)
        self.regressor.eval()
        return self

    def initialize(self, generator: torch.Generator) -> None:
        """Draws all weights anew but those of the regressor."""
        kept = {name: tensor.clone() for name, tensor in self.regressor.state_dict().items()}
        super().initialize(generator)
        self.regressor.load_state_dict(kept)

    def rebuilt(self, config: UNetConfig) -> GuidedUNet:
        """A network of this kind with the same regressor; see ``UNet``."""
        return GuidedUNet(config, self.regressor, self.checkpoint_activations)

    def to_config(self) -> dict[str, Any]:
        """What ``registry.build`` needs to make this network again."""
        return super().to_config() | {"coordinates": self.regressor.to_config()}
