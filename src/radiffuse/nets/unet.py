"""The U-Net of Dhariwal and Nichol 2021 (arXiv 2105.05233), in two and three dimensions, with named features.

[ours] For large images, it may fold neighboring pixels into channels before the first level (``unshuffle``). What comes
out of the decoder is unfolded again and, so that outlines are sharp, joined by a few channels of the image at full
resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import UNetConfig
from .blocks import (
    AttentionBlock,
    Direction,
    Resample,
    ResidualBlock,
    convolution,
    convolved,
    fold,
    redraw_all,
    timestep_embedding,
    unfold,
    zero,
)
from .norm import Norm

MOST_LEVELS, MOST_BLOCKS, MOST_PARAMETERS = 24, 2000, 10**11
"""No network of this kind is larger; a configuration that asks for more is refused before anything is built."""


class Stage(nn.Module):
    """The layers between two skip connections: a block, then attention and up-sampling, both optional."""

    def __init__(
        self,
        block: ResidualBlock | Resample,
        attention: AttentionBlock | None = None,
        resample: ResidualBlock | Resample | None = None,
    ) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.resample = resample

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, *S) to (B, C', *S'), all but ``resample``, which the caller applies."""
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.before = ResidualBlock(config, channels, channels)
        self.attention = AttentionBlock(config, channels)
        self.after = ResidualBlock(config, channels, channels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        x = self.attention(self.before(x, embedding))
        return cast(Tensor, self.after(x, embedding))


class Refinement(nn.Module):
    """Features at full resolution, of a network that folds its input: the decoder's, unfolded, and the input's own."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        dims, width = config.spatial_dims, fine_channels(config)
        self.fold = config.fold
        self.unfold = convolution(dims, channels, width * math.prod(self.fold), 1)
        self.image = convolution(dims, config.in_channels, width, 3)

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """Normalized (B, C, *S/p) and the input (B, C', *S) to (B, width, *S)."""
        return F.silu(unfold(self.unfold(h), self.fold) + self.image(x))


class UNet(nn.Module):
    """The U-Net of Dhariwal and Nichol 2021, conditioned on the timestep.

    Named features ("taps"), from the middle outwards:

    - ``middle``: output of the middle block, at the lowest resolution;
    - ``up.0``, ``up.1``, ...: output of each decoder block in order, including the up-sampling that ends a level, as
      Baranchuk et al. 2022 count them (18 for six levels of two residual blocks);
    - ``level.K``: output of the decoder at level K, before up-sampling, with ``width * multipliers[K]`` channels at
      1 / ``factors[K]`` of the input's resolution; ``level.0`` is the finest;
    - ``fine``: what enters the last convolution, at full resolution, in networks that fold their input;
    - ``output``: output of the network.

    Args:
        config: The network.
        checkpoint_activations: Recompute activations in the backward pass: less memory, a third more time.

    Raises:
        ValueError: A setting outside its legal values.
    """

    def __init__(self, config: UNetConfig, checkpoint_activations: bool = False) -> None:
        super().__init__()
        verify_config(config)
        self.config = config
        self.checkpoint_activations = checkpoint_activations
        embedding_width = 4 * config.width
        self.time = nn.Sequential(
            nn.Linear(config.width, embedding_width),
            nn.SiLU(),
            nn.Linear(embedding_width, embedding_width),
        )
        channels = [config.width * m for m in config.multipliers]
        dims, self.folds = config.spatial_dims, math.prod(config.fold) > 1
        self.stem = convolution(dims, config.in_channels * math.prod(config.fold), channels[0], 3)
        self.down, skips = encoder(config, channels)
        self.middle = Middle(config, channels[-1])
        self.up = decoder(config, channels, skips)
        self.norm = Norm(channels[0], config.num_groups, eps=config.norm_eps)
        self.refine = Refinement(config, channels[0]) if self.folds else None
        last = fine_channels(config) if self.folds else channels[0]
        self.head = convolution(dims, last, config.out_channels, 3)
        zero(self.head)

    @property
    def size_multiple(self) -> tuple[int, ...]:
        """Of which every spatial size of the input must be a multiple, along each axis."""
        return self.config.size_multiple

    @property
    def coordinate_channels(self) -> int:
        """Input channels that ``forward`` adds: none here, see ``GuidedUNet``."""
        return 0

    @property
    def input_weights(self) -> dict[str, int]:
        """Weights of the layers that see the input, and how many of their channels are one of the input's."""
        folded = {"stem.weight": math.prod(self.config.fold)}
        return folded | ({"refine.image.weight": 1} if self.folds else {})

    @property
    def taps(self) -> dict[str, int]:
        """Names of the features, with the number of decoder blocks that each requires."""
        per_level, levels = self.config.blocks + 1, len(self.config.multipliers)
        taps = {"middle": 0} | {f"up.{i}": i + 1 for i in range(len(self.up))}
        taps |= {f"level.{k}": (levels - k) * per_level for k in range(levels)}
        last = ("fine", "output") if self.folds else ("output",)
        return taps | dict.fromkeys(last, len(self.up))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """One pass.

        Args:
            x: (B, in_channels, *S), a multiple of ``size_multiple`` along each axis.
            t: (B,) training timesteps, integers or floats.

        Returns:
            (B, out_channels, *S), of the type of ``x``.

        Raises:
            ValueError: ``x`` has another number of axes or channels, or a size that cannot be halved as often.
        """
        return self.features(x, t, ("output",))["output"]

    def features(self, x: Tensor, t: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The named features (see the class) of one pass, which stops at the last; ``x``, ``t`` as in ``forward``.

        Returns:
            Features by name, each (B, C, *S'), in the order in which they are computed.

        Raises:
            ValueError: An unknown name, or an ``x`` that does not fit.
        """
        self._check(x, taps)
        depths = self.taps
        # The SiLU with which every block begins, once for all of them.
        embedding = F.silu(self.embed(t))

        h = self.stem(fold(x, self.config.fold) if self.folds else x)
        skips = [h]
        for stage in self.down:
            h = self._run(stage, h, embedding)
            skips.append(h)
        h = self._run(self.middle, h, embedding)

        found: dict[str, Tensor] = {}

        def reached(name: str) -> None:
            if name in taps:  # else its memory is freed as soon as it has been used
                found[name] = h

        reached("middle")
        level = len(self.config.multipliers) - 1
        for i in range(max(depths[tap] for tap in taps)):
            stage = cast(Stage, self.up[i])
            h = torch.cat([h, skips.pop()], dim=1)
            h = self._run(stage, h, embedding)
            if (i + 1) % (self.config.blocks + 1) == 0:
                reached(f"level.{level}")
                level -= 1
            if stage.resample is not None:
                h = self._run(stage.resample, h, embedding)
            reached(f"up.{i}")
        if self.refine is not None and not {"fine", "output"}.isdisjoint(taps):
            h = self.refine(self.norm(h), x)
            reached("fine")
        if "output" in taps:
            last = self.head(h) if self.folds else convolved(self.norm, self.head, h)
            found["output"] = last.to(x.dtype)
        return found

    def embed(self, t: Tensor) -> Tensor:
        """What every block is told of the timesteps: (B,) to (B, 4 width)."""
        return cast(Tensor, self.time(timestep_embedding(t, self.config.width)))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights again; the last layer of every block and of the network is zero (section 3).

        Args:
            generator: On the device of the weights.
        """
        redraw_all(self, generator)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero(module.conv2)
            elif isinstance(module, AttentionBlock):
                zero(module.out)
        zero(self.head)

    def rebuilt(self, config: UNetConfig) -> UNet:
        """A network of this class with another configuration, its weights yet to be set."""
        return UNet(config, self.checkpoint_activations)

    def to_config(self) -> dict[str, Any]:
        """See ``registry.Saveable``."""
        return {"kind": "denoiser", "unet": asdict(self.config)}

    def _run(self, module: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, x, embedding, use_reentrant=False))
        return cast(Tensor, module(x, embedding))

    def _check(self, x: Tensor, taps: Sequence[str]) -> None:
        dims, channels = self.config.spatial_dims, self.config.in_channels
        multiple = self.size_multiple
        if x.ndim != dims + 2 or x.shape[1] != channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: this network takes (batch, {channels}, "
                f"{dims} spatial sizes)"
            )
        size = tuple(x.shape[2:])
        if any(s % m != 0 or s == 0 for s, m in zip(size, multiple, strict=True)):
            wanted = " x ".join(map(str, multiple))
            raise ValueError(
                f"input of size {size}: it must be a positive multiple of {wanted}, by which the "
                "network reduces the resolution"
            )
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown or not taps:
            raise ValueError(f"unknown features {unknown}: choose from {', '.join(self.taps)}")


def verify_config(config: UNetConfig) -> None:
    """Raise ValueError, with the setting's name and legal values, where no network can be built."""
    if config.spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {config.spatial_dims}: choose 2 or 3")
    positive = ("in_channels", "out_channels", "width", "blocks", "head_channels", "num_groups")
    for name in (*positive, *["heads"][: config.heads is not None]):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be 1 or more")
    if not 1 <= len(config.multipliers) <= MOST_LEVELS or min(config.multipliers) < 1:
        raise ValueError(
            f"multipliers are {config.multipliers}: give one, 1 or more, per level, and "
            f"at most {MOST_LEVELS}"
        )
    axes = config.spatial_dims
    if len(config.fold) != axes or min(config.fold) < 1:
        raise ValueError(f"unshuffle is {config.unshuffle}: give 1 or more, or {axes} such numbers")
    steps = len(config.multipliers) - 1
    legal = all(len(step) == axes and set(step) <= {1, 2} for step in config.steps)
    if len(config.steps) != steps or not legal:
        raise ValueError(
            f"strides are {config.strides}: give 1 or 2 for each of {axes} axes, {steps} times"
        )
    factors = [max(factor) for factor in config.factors]
    if any(f not in factors for f in config.attention_factors):
        raise ValueError(
            f"attention_factors are {config.attention_factors}: this network has the factors {factors}, "
            "so give some of these"
        )
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}: it must be at least 0 and below 1")
    if len(factors) * config.blocks > MOST_BLOCKS:
        raise ValueError(f"blocks are {config.blocks}: all levels together may have {MOST_BLOCKS}")
    if (number := least_parameters(config)) > MOST_PARAMETERS:
        problem = (
            f"width is {config.width} with multipliers {config.multipliers}: that makes at least"
        )
        raise ValueError(f"{problem} {number:.2g} parameters, more than {MOST_PARAMETERS:.0g}")


def least_parameters(config: UNetConfig) -> int:
    """A lower bound of the parameters, from the convolutions of the residual blocks alone; nothing is built."""
    squares = sum((config.width * m) ** 2 for m in config.multipliers)
    return int((2 * config.blocks + 1) * 2 * 3**config.spatial_dims * squares)


def encoder(config: UNetConfig, channels: Sequence[int]) -> tuple[nn.ModuleList, list[int]]:
    """The stages on the way down, and the channels of every skip (the stem's first)."""
    stages, skips = nn.ModuleList(), [channels[0]]
    for level, out in enumerate(channels):
        attends = config.attends[level]
        for _ in range(config.blocks):
            block = ResidualBlock(config, skips[-1], out)
            stages.append(Stage(block, AttentionBlock(config, out) if attends else None))
            skips.append(out)
        if level < len(channels) - 1:
            stages.append(Stage(resampler(config, out, "down", level)))
            skips.append(out)
    return stages, skips


def decoder(config: UNetConfig, channels: Sequence[int], skips: Sequence[int]) -> nn.ModuleList:
    """The stages on the way up, each of which takes the last remaining skip."""
    stages, left, width = nn.ModuleList(), list(skips), channels[-1]
    for level, out in reversed(list(enumerate(channels))):
        attends = config.attends[level]
        for i in range(config.blocks + 1):
            block = ResidualBlock(config, width + left.pop(), out)
            attention = AttentionBlock(config, out) if attends else None
            ends = level > 0 and i == config.blocks
            resample = resampler(config, out, "up", level - 1) if ends else None
            stages.append(Stage(block, attention, resample))
            width = out
    return stages


def resampler(
    config: UNetConfig, channels: int, direction: Direction, level: int
) -> ResidualBlock | Resample:
    """The block between ``level`` and the next coarser one, as ``residual_updown`` says."""
    step = config.steps[level]
    if config.residual_updown:
        return ResidualBlock(config, channels, channels, direction, step)
    return Resample(config, channels, direction, step)


def fine_channels(config: UNetConfig) -> int:
    """Channels at full resolution of a network that folds its input [ours]."""
    return max(8, config.width * config.multipliers[0] // 4)
