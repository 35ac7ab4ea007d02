"""Alignment of an inner feature of the denoiser with the encoder's tokens: REPA (Yu et al. 2025, arXiv 2410.06940).

What the denoiser has to find out of a noised image, an encoder of clean images has learned already. A small network
projects a feature of the way down, place by place, and the cosine with the token of the same place is to grow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 512
"""Width of the projector's hidden layers. [ours]; [related] 2048, for tokens of width 768 and more."""


class AlignedDenoiser(nn.Module):
    """A ``ConditionalDenoiser`` with a projector, for training alone.

    The feature is that of the last layer of the level, on the way down, whose grid is nearest to that of the tokens.

    Args:
        denoiser: The denoiser.
        size: Places of the latents along their longer axis.
        tokens: Width, rows and columns of the tokens.
    """

    def __init__(self, denoiser: Any, size: int, tokens: Sequence[int]) -> None:
        super().__init__()
        self.denoiser = denoiser
        channels = denoiser.unet.config.block_out_channels
        apart = [abs(math.log2(size / 2**k / max(tokens[1:]))) for k in range(len(channels))]
        self.level = apart.index(min(apart))
        self.projector = nn.Sequential(
            nn.Conv2d(channels[self.level], HIDDEN, 1),
            nn.SiLU(),
            nn.Conv2d(HIDDEN, HIDDEN, 1),
            nn.SiLU(),
            nn.Conv2d(HIDDEN, tokens[0], 1),
        )

    def forward(self, x_t: Tensor, t: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction, and the projected feature ``(B, width, h, w)``. Arguments as of the denoiser."""
        block = self.denoiser.unet.down_blocks[self.level]
        layer = list(getattr(block, "attentions", block.resnets))[-1]
        seen: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(output if isinstance(output, Tensor) else output[0])

        handle = layer.register_forward_hook(keep)
        try:
            output: Tensor = self.denoiser(x_t, t, embedding)
        finally:
            handle.remove()
        return output, self.projector(seen[0])


def without_projector(network: nn.Module) -> Any:
    """The denoiser itself."""
    return network.denoiser if isinstance(network, AlignedDenoiser) else network


def misalignment(feature: Tensor, tokens: Tensor) -> Tensor:
    """1 - cosine of feature and token, mean over the places of the tokens, ``(B,)`` (section 3.2, eq. 8, plus 1).

    Args:
        feature: ``(B, W, *grid)``, interpolated to the grid of the tokens.
        tokens: ``(B, W, h, w)``.
    """
    if feature.shape[2:] != tokens.shape[2:]:
        feature = F.interpolate(feature, tokens.shape[2:], mode="bilinear", align_corners=False)
    cosine = F.cosine_similarity(feature.float(), tokens, dim=1)
    return (1 - cosine).flatten(1).mean(1)
