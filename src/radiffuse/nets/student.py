"""A U-Net that learns on clean images to give the features that a denoiser has of noised ones (CleanDIFT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .frozen import feature_channels
from .probe import pyramid
from .unet import UNet


class FeatureStudent(nn.Module):
    """A U-Net with projections of its feature pyramid, one for each timestep and level.

    Args:
        unet: The network; its output layers are not used and do not learn.
        timesteps: How many timesteps there are projections for.
    """

    def __init__(self, unet: UNet, timesteps: int) -> None:
        super().__init__()
        self.unet = unet
        self.taps = pyramid(unet)
        self.projections = nn.ModuleList(
            Projections(feature_channels(unet, tap), timesteps) for tap in self.taps
        )
        for module in (unet.head,) if unet.folds else (unet.norm, unet.head):
            module.requires_grad_(False)

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the projections again; at first they change nothing."""
        for projection in self.projections:
            assert isinstance(projection, Projections)
            projection.initialize(generator)

    def forward(self, images: Tensor, which: Tensor) -> list[Tensor]:
        """Features ``(B, C', *S')`` of clean images ``(B, C, *S)``, the coarsest first, each for a timestep by number.

        ``which`` is ``(B,)`` int64. The U-Net sees timestep 0, whatever timestep is asked for.
        """
        t = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        features = self.unet.features(images, t, self.taps)
        pairs = zip(self.taps, self.projections, strict=True)
        return [project(features[tap], which) for tap, project in pairs]


class Projections(nn.Module):
    """A two-layer network on every voxel's features, beside the identity, for each of several timesteps."""

    def __init__(self, channels: int, timesteps: int) -> None:
        super().__init__()
        shape = (timesteps, channels, channels)
        self.first, self.second = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        self.bias, self.offset = (nn.Parameter(torch.zeros(shape[:2])) for _ in range(2))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the first layer again; the second is zero."""
        with torch.no_grad():
            self.first.normal_(0, self.first.shape[1] ** -0.5, generator=generator)
            for weight in (self.second, self.bias, self.offset):
                weight.zero_()

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        """``(B, C, *S)`` to the same shape, by the networks of the timesteps ``which``, ``(B,)``."""
        flat = x.flatten(2)
        h = functional.silu(self.first[which] @ flat + self.bias[which][:, :, None])
        change = self.second[which] @ h + self.offset[which][:, :, None]
        return (flat + change).reshape(x.shape)


def feature_distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """1 - cosine of the features of each voxel, mean over voxels and then over levels: ``(B,)``, 0 to 2."""
    levels = [
        1 - functional.cosine_similarity(one.float(), other.float(), dim=1).flatten(1).mean(1)
        for one, other in zip(found, wanted, strict=True)
    ]
    return torch.stack(levels).mean(0)
