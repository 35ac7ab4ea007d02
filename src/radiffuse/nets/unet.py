"""The U-Net of Dhariwal and Nichol 2021 (arXiv 2105.05233), in two and three dimensions, with named features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radiffuse.config import UNetConfig

from .blocks import (
    AttentionBlock,
    Direction,
    Resample,
    ResidualBlock,
    convolution,
    convolved,
    redraw,
    timestep_embedding,
    zero,
)
from .norm import Norm


class Stage(nn.Module):
    """What stands between two skips: a block, with attention and then up-sampling where there is any."""

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


class UNet(nn.Module):
    """The U-Net of Dhariwal and Nichol 2021, told the timestep.

    Three-dimensional networks change the resolution of all three axes (guided-diffusion's keep the first).

    Named features ("taps"), from the middle outwards:

    - ``middle``: the end of the middle block, at the lowest resolution;
    - ``up.0``, ``up.1``, ...: the end of each decoder block in running order, with the up-sampling that ends
      a level, as Baranchuk et al. 2022 count them (18 for six levels of two residual blocks);
    - ``level.K``: the end of the decoder at level K, before up-sampling, with ``width * multipliers[K]``
      channels at 1 / 2**K of the input's resolution; ``level.0`` is the finest;
    - ``output``: what ``forward`` returns.

    Args:
        config: The network.
        checkpoint_activations: Recompute activations in the backward pass: less memory, a third more time.

    Raises:
        ValueError: A setting outside its legal values.
    """

    def __init__(self, config: UNetConfig, checkpoint_activations: bool = False) -> None:
        super().__init__()
        check(config)
        self.config = config
        self.checkpoint_activations = checkpoint_activations
        embedding_width = 4 * config.width
        self.time = nn.Sequential(
            nn.Linear(config.width, embedding_width),
            nn.SiLU(),
            nn.Linear(embedding_width, embedding_width),
        )
        channels = [config.width * m for m in config.multipliers]
        self.stem = convolution(config.spatial_dims, config.in_channels, channels[0], 3)
        self.down, skips = encoder(config, channels)
        self.middle = Middle(config, channels[-1])
        self.up = decoder(config, channels, skips)
        self.norm = Norm(channels[0], config.num_groups, eps=config.norm_eps)
        self.head = convolution(config.spatial_dims, channels[0], config.out_channels, 3)
        zero(self.head)

    @property
    def size_multiple(self) -> int:
        """Every spatial size of the input must be a multiple of this, in pixels."""
        return int(2 ** (len(self.config.multipliers) - 1))

    @property
    def coordinate_channels(self) -> int:
        """Input channels that ``forward`` adds by itself; none here, see ``GuidedUNet``."""
        return 0

    @property
    def taps(self) -> dict[str, int]:
        """Names of the features, with the number of decoder blocks that must have run for each."""
        per_level, levels = self.config.blocks + 1, len(self.config.multipliers)
        taps = {"middle": 0} | {f"up.{i}": i + 1 for i in range(len(self.up))}
        taps |= {f"level.{k}": (levels - k) * per_level for k in range(levels)}
        return taps | {"output": len(self.up)}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """One pass.

        Args:
            x: (B, in_channels, *S), each size a multiple of ``size_multiple``.
            t: (B,) training timesteps, integers or floats.

        Returns:
            (B, out_channels, *S), of the type of ``x``.

        Raises:
            ValueError: ``x`` has another number of axes or channels, or a size that cannot be halved as often.
        """
        return self.features(x, t, ("output",))["output"]

    def features(self, x: Tensor, t: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        """The named features of one pass, which ends with the last of them.

        Args:
            x: (B, in_channels, *S), each size a multiple of ``size_multiple``.
            t: (B,) training timesteps, integers or floats.
            taps: Names, see the class; each may be given once or more.

        Returns:
            Features by name, each (B, C, *S'), in the order in which they are computed.

        Raises:
            ValueError: An unknown name, or an ``x`` that does not fit.
        """
        self._check(x, taps)
        depths = self.taps
        # Every block begins by the same SiLU of the embedding: here once for all of them.
        embedding = F.silu(self.time(timestep_embedding(t, self.config.width)))

        h = self.stem(x)
        skips = [h]
        for stage in self.down:
            h = self._run(stage, h, embedding)
            skips.append(h)
        h = self._run(self.middle, h, embedding)

        found: dict[str, Tensor] = {}

        def reached(name: str) -> None:
            if name in taps:  # else its memory is free as soon as it has been used
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
        if "output" in taps:
            found["output"] = convolved(self.norm, self.head, h).to(x.dtype)
        return found

    def initialize(self, generator: torch.Generator) -> None:
        """Draws all weights anew; the last layer of every block and of the network is zero (section 3).

        Args:
            generator: On the device of the weights.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                redraw(module, generator)
            elif isinstance(module, nn.GroupNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero(module.conv2)
            elif isinstance(module, AttentionBlock):
                zero(module.out)
        zero(self.head)

    def rebuilt(self, config: UNetConfig) -> UNet:
        """A network of this kind with another configuration, its weights yet to be set."""
        return UNet(config, self.checkpoint_activations)

    def to_config(self) -> dict[str, Any]:
        """What ``registry.build`` needs to make this network again."""
        return {"kind": "denoiser", "unet": asdict(self.config)}

    def _run(self, module: nn.Module, x: Tensor, embedding: Tensor) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, x, embedding, use_reentrant=False))
        return cast(Tensor, module(x, embedding))

    def _check(self, x: Tensor, taps: Sequence[str]) -> None:
        dims, channels, multiple = (
            self.config.spatial_dims,
            self.config.in_channels,
            self.size_multiple,
        )
        if x.ndim != dims + 2 or x.shape[1] != channels:
            raise ValueError(
                f"input of shape {tuple(x.shape)}: this network takes (batch, {channels}, "
                f"{dims} spatial sizes)"
            )
        size = tuple(x.shape[2:])
        if any(s % multiple != 0 or s == 0 for s in size):
            raise ValueError(
                f"input of size {size}: every size must be a positive multiple of {multiple}, because "
                f"the network halves the resolution {len(self.config.multipliers) - 1} times"
            )
        unknown = [tap for tap in taps if tap not in self.taps]
        if unknown or not taps:
            raise ValueError(f"unknown features {unknown}: choose from {', '.join(self.taps)}")


def check(config: UNetConfig) -> None:
    """Raises ValueError, with the setting's name and legal values, where no network can be built."""
    if config.spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {config.spatial_dims}: choose 2 or 3")
    positive = ("in_channels", "out_channels", "width", "blocks", "head_channels", "num_groups")
    for name in positive:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be 1 or more")
    if not config.multipliers or min(config.multipliers) < 1:
        raise ValueError(f"multipliers are {config.multipliers}: give one, 1 or more, per level")
    factors = [2**level for level in range(len(config.multipliers))]
    if any(f not in factors for f in config.attention_factors):
        raise ValueError(
            f"attention_factors are {config.attention_factors}: this network has the factors {factors}"
        )
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout is {config.dropout}: it must be at least 0 and below 1")


def encoder(config: UNetConfig, channels: Sequence[int]) -> tuple[nn.ModuleList, list[int]]:
    """The stages on the way down, and the channels of every skip (the stem's first)."""
    stages, skips = nn.ModuleList(), [channels[0]]
    for level, out in enumerate(channels):
        attends = 2**level in config.attention_factors
        for _ in range(config.blocks):
            block = ResidualBlock(config, skips[-1], out)
            stages.append(Stage(block, AttentionBlock(config, out) if attends else None))
            skips.append(out)
        if level < len(channels) - 1:
            stages.append(Stage(resampler(config, out, "down")))
            skips.append(out)
    return stages, skips


def decoder(config: UNetConfig, channels: Sequence[int], skips: Sequence[int]) -> nn.ModuleList:
    """The stages on the way up, each of which takes the last skip that is left."""
    stages, left, width = nn.ModuleList(), list(skips), channels[-1]
    for level, out in reversed(list(enumerate(channels))):
        attends = 2**level in config.attention_factors
        for i in range(config.blocks + 1):
            block = ResidualBlock(config, width + left.pop(), out)
            attention = AttentionBlock(config, out) if attends else None
            ends = level > 0 and i == config.blocks
            stages.append(Stage(block, attention, resampler(config, out, "up") if ends else None))
            width = out
    return stages


def resampler(config: UNetConfig, channels: int, direction: Direction) -> ResidualBlock | Resample:
    """The block that halves or doubles the resolution, as ``residual_updown`` says."""
    if config.residual_updown:
        return ResidualBlock(config, channels, channels, direction)
    return Resample(config, channels, direction)
