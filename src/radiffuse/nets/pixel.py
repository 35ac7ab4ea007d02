"""Pixel classifiers on frozen features of a denoiser (Baranchuk et al. 2022, arXiv 2112.03126).

The input of the denoiser is the image noised to a few timesteps with one fixed noise; the activations of some decoder
blocks, interpolated to the image's size, are the features of each pixel; several small networks vote on its class.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Diffusion
from ..core.diffusion import GaussianDiffusion
from .frozen import at_voxels, feature_channels, noised_features
from .unet import UNet

PAPER_TIMESTEPS = (50, 150, 250)
"""Of 1000 [related: Baranchuk et al.]; scaled to the denoiser's own T."""
PAPER_BLOCKS = (5, 6, 7, 8, 12)
"""Decoder blocks, counted from 0 at the bottom, of 18 [related: Baranchuk et al.]; scaled to other depths."""
PAPER_DEPTH = 18
VOTERS = 10
HIDDEN = (128, 32)
"""Widths of the hidden layers of each voter [related: for up to 30 classes]."""
CHUNK = 4096
"""Pixels classified at once, which bounds memory."""


class PixelClassifier(nn.Module):
    """Voters on features of a pre-trained denoiser, which is frozen, with its noising process.

    The ``seed`` is that of the fixed noise and of the voters' initial weights; K is ``classes``.
    """

    def __init__(
        self,
        denoiser: UNet,
        diffusion: Diffusion,
        classes: int,
        *,
        seed: int = 0,
        voters: int = VOTERS,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser.requires_grad_(False)
        self.diffusion = diffusion
        self.process = GaussianDiffusion(diffusion)
        self.classes, self.seed = classes, seed
        depth = len(denoiser.up)
        places = {min(depth - 1, round(b * depth / PAPER_DEPTH)) for b in PAPER_BLOCKS}
        self.blocks = tuple(f"up.{i}" for i in sorted(places))
        total = diffusion.num_train_timesteps
        self.timesteps = tuple(t * total // 1000 for t in PAPER_TIMESTEPS)
        width = sum(feature_channels(denoiser, block) for block in self.blocks) * len(
            self.timesteps
        )
        generator = torch.Generator().manual_seed(seed)
        self.voters = nn.ModuleList(_voter(width, classes, generator) for _ in range(voters))

    def train(self, mode: bool = True) -> PixelClassifier:
        """Set the mode of the voters; the denoiser stays in evaluation mode."""
        super().train(mode)
        self.denoiser.eval()
        return self

    def forward(self, images: Tensor, pixels: Tensor | None = None) -> Tensor:
        """Votes on chosen pixels, or the mean vote on all of them.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            pixels: ``(B, P)`` int64 indices into the flattened image, or None.

        Returns:
            With ``pixels`` the logits of every voter, ``(voters, B, P, K)``; without, the logarithm of their mean
            probability, ``(B, K, *S)``, which softmax turns back into that mean.
        """
        if pixels is not None:
            features = self.features(images)
            chosen = torch.cat([at_voxels(f, pixels, images.shape[2:]) for f in features], dim=2)
            logits = torch.stack([voter(chosen.flatten(0, 1)) for voter in self.voters])
            return logits.reshape(len(self.voters), *pixels.shape, self.classes)
        mean = torch.cat([self._votes(image[None]).mean(0) for image in images])
        return mean.clamp(min=1e-12).log()

    def uncertainty(self, images: Tensor) -> Tensor:
        """Jensen-Shannon divergence of the voters at each pixel, ``(B, *S)``, 0 to log K."""
        maps = []
        for image in images:
            votes = self._votes(image[None])
            mixed = _entropy(votes.mean(0))
            single = torch.stack([_entropy(vote) for vote in votes]).mean(0)
            maps.append((mixed - single).clamp(min=0))
        return torch.cat(maps)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations ``(B, C', *S')`` of the blocks at each timestep, at their own resolution."""
        by_timestep = (
            noised_features(self.denoiser, self.process, images, t, self.blocks, seed=self.seed)
            for t in self.timesteps
        )
        return [feature for features in by_timestep for feature in features.values()]

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return self.denoiser.to_config() | {
            "kind": "pixel",
            "classes": self.classes,
            "seed": self.seed,
            "voters": len(self.voters),
            "diffusion": asdict(self.diffusion),
        }

    def _votes(self, image: Tensor) -> Tensor:
        """Probabilities ``(voters, 1, K, *S)`` of one image, a chunk of pixels at a time."""
        shape = image.shape[2:]
        features = self.features(image)
        parts = []
        for indices in torch.arange(math.prod(shape), device=image.device).split(CHUNK):
            chosen = torch.cat([at_voxels(f, indices[None], shape) for f in features], dim=2)[0]
            parts.append(torch.stack([voter(chosen).float().softmax(-1) for voter in self.voters]))
        votes = torch.cat(parts, dim=1).transpose(1, 2)
        return votes.reshape(len(self.voters), 1, self.classes, *shape)


def _entropy(p: Tensor) -> Tensor:
    return -(p * p.clamp(min=1e-12).log()).sum(1)


def _voter(width: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in HIDDEN:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)]
        width = hidden
    layers.append(nn.Linear(width, classes))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()
    return nn.Sequential(*layers)
