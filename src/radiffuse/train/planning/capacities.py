"""Families of networks, from large to small, and what each is worth training on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...config import UNetConfig, network_for


@dataclass(frozen=True)
class Capacity:
    """A family of networks [ours].

    Attributes:
        width: Channels of the first level; twice as many where it sees 4 x 4 pixels folded.
        blocks: Residual blocks per level.
        most: Largest multiplier of the width.
        samples: Fewer images or patches than this are not worth training it on.
        patch: 2D and 3D: voxels of a patch below which a smaller network on a larger patch is better.
    """

    width: int
    blocks: int
    most: int
    samples: int
    patch: tuple[int, int]

    def network(self, size: Sequence[int], spacing: Sequence[float], **ends: int) -> UNetConfig:
        """The network for a patch; ``ends`` are its channels."""
        unet = network_for(
            size, spacing=spacing, width=self.width, blocks=self.blocks, most=self.most, **ends
        )
        return replace(unet, width=2 * self.width) if max(unet.fold) >= 4 else unet


CAPACITIES = (
    Capacity(128, 2, 4, 300_000, (256**2, 128**3)),
    Capacity(64, 2, 8, 50_000, (224**2, 96**3)),
    Capacity(32, 2, 8, 12_000, (112**2, 56**3)),
    Capacity(16, 1, 8, 2_400, (64**2, 24**3)),
)
"""From the largest to the smallest; the last two have the shape of the presets small and tiny at 64 px."""
