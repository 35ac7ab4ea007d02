"""A light decoder on several blocks of a frozen DINO encoder, for films.

The tokens of the patches after some blocks, evenly spread over the encoder's depth, are joined as in MedDINOv3 (Li et
al. 2025, arXiv 2509.02379: blocks 2, 5, 8 and 11 of 12). The decoder doubles their grid until it is that of the film,
which it sees at every size on its way [ours]: a patch of 14 or 16 pixels holds no borders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from .encoder import Encoder, built, described

JOINED = 4
"""Blocks that are joined, unless they are given."""
GROUPS = 8
"""Of group normalization; widths are multiples of it."""
LEAST = 16
"""Fewest channels of a level of the decoder."""


class DinoSegmenter(nn.Module):
    """Logits of films, which it pads to whole patches; the encoder is frozen.

    Args:
        encoder: The encoder.
        blocks: Numbers of the blocks that are joined, 0 being the first; each once.
        channels: Channels of the films: 1, or as many as the encoder takes.
        classes: K.
        width: Channels at the grid of the patches, a multiple of 8; every doubling of the grid halves them, down to 16.

    Raises:
        ValueError: The encoder has no such block or takes other channels, or the width is no multiple of 8.
    """

    def __init__(
        self, encoder: Encoder, blocks: Sequence[int], channels: int, classes: int, width: int
    ) -> None:
        super().__init__()
        depth = int(encoder.backbone.config.num_hidden_layers)
        if not blocks or len({*blocks}) < len(blocks) or not all(0 <= b < depth for b in blocks):
            given = ", ".join(map(str, blocks))
            raise ValueError(f"blocks {given}: choose from 0 to {depth - 1}, each once")
        if channels not in (1, encoder.channels):
            raise ValueError(f"takes {encoder.channels} channels, the films have {channels}")
        if width < LEAST or width % GROUPS:
            raise ValueError(f"width {width} is below {LEAST} or no multiple of {GROUPS}")
        self.encoder, self.blocks = encoder, tuple(blocks)
        self.channels, self.classes, self.width = channels, classes, width
        self.join = _convolved(encoder.width * len(blocks), width, 1)
        self.levels, inputs = nn.ModuleList(), width
        for _ in range(math.ceil(math.log2(encoder.patch))):
            outputs = max(LEAST, inputs // 2 // GROUPS * GROUPS)
            self.levels.append(_convolved(inputs + channels, outputs, 3))
            inputs = outputs
        self.head = nn.Conv2d(inputs, classes, 3, padding=1)

    def train(self, mode: bool = True) -> DinoSegmenter:
        """Set the mode of the decoder; the encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    @property
    def bottleneck(self) -> nn.Module:
        """What gives the features at the grid of the patches."""
        return self.join

    def forward(self, films: Tensor) -> Tensor:
        """Logits ``(B, K, rows, columns)`` of films ``(B, C, rows, columns)`` in [-1, 1]."""
        rows, columns = films.shape[2:]
        patch = self.encoder.patch
        films = functional.pad(films, (0, -columns % patch, 0, -rows % patch), mode="replicate")
        h = self.join(torch.cat(self.encoder.blocks(films, self.blocks), dim=1))
        for halvings, level in zip(reversed(range(len(self.levels))), self.levels, strict=True):
            # Of a patch that is no power of 2, the first grid is less than double.
            shape = [-(-n // 2**halvings) for n in films.shape[2:]]
            seen = functional.interpolate(
                films, shape, mode="bilinear", align_corners=False, antialias=True
            )
            h = functional.interpolate(h, shape, mode="bilinear", align_corners=False)
            h = level(torch.cat([h, seen], dim=1))
        return cast(Tensor, self.head(h)[..., :rows, :columns])

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        names = ("channels", "classes", "width")
        own = {name: getattr(self, name) for name in names}
        return {
            "kind": "dino",
            "encoder": described(self.encoder),
            "blocks": list(self.blocks),
        } | own


def _convolved(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, outputs), nn.ReLU())


def spread_blocks(depth: int) -> tuple[int, ...]:
    """The last block and others before it, evenly spread: 2, 5, 8 and 11 of 12."""
    ends = (depth * (i + 1) // JOINED - 1 for i in range(JOINED))
    return tuple(dict.fromkeys(max(0, end) for end in ends))


def new_dino_segmenter(
    encoder: Encoder,
    channels: int,
    classes: int,
    *,
    blocks: Sequence[int] = (),
    width: int = 128,
    seed: int = 0,
) -> DinoSegmenter:
    """The decoder with weights by the seed; torch's global random state is unchanged.

    ``blocks`` empty: ``spread_blocks``. The rest and errors as of ``DinoSegmenter``.
    """
    blocks = blocks or spread_blocks(int(encoder.backbone.config.num_hidden_layers))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DinoSegmenter(encoder, blocks, channels, classes, width)


def from_config(config: Mapping[str, Any]) -> DinoSegmenter:
    """The network of a ``to_config``, its weights yet to be loaded.

    Raises:
        ValueError, TypeError, KeyError: The description is not valid.
    """
    numbers = (int(config[name]) for name in ("channels", "classes", "width"))
    return DinoSegmenter(built(config["encoder"]), tuple(map(int, config["blocks"])), *numbers)
