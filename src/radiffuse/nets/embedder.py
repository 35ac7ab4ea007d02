"""Voxel embeddings from a U-Net's feature pyramid (vox2vec, arXiv 2307.14725)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import redraw_all
from .frozen import at_voxels, feature_channels
from .probe import pyramid
from .unet import UNet


class VoxelEmbedder(nn.Module):
    """A small projector on the feature pyramid of a U-Net, read at a voxel and joined by channel.

    The output layers of the U-Net are not used and do not learn; an embedding has ``width`` numbers.
    """

    def __init__(self, unet: UNet, width: int = 128) -> None:
        super().__init__()
        self.unet = unet
        self.taps = pyramid(unet)
        channels = sum(feature_channels(unet, tap) for tap in self.taps)
        self.project = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, width)
        )
        for module in (unet.head,) if unet.folds else (unet.norm, unet.head):
            module.requires_grad_(False)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the projector's weights again."""
        redraw_all(self.project, generator)

    def forward(self, images: Tensor, voxels: Tensor) -> Tensor:
        """Embeddings ``(B, P, width)`` of unit length.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            voxels: ``(B, P)`` int64 indices into the flattened image.
        """
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        features = self.unet.features(images, t, self.taps)
        shape = images.shape[2:]
        joined = torch.cat([at_voxels(features[tap], voxels, shape) for tap in self.taps], dim=2)
        return functional.normalize(self.project(joined).float(), dim=2)
