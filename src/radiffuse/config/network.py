"""Which U-Net to build."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .types import Fraction, Ints, PositiveInt


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A fully specified U-Net of Dhariwal and Nichol 2021, as ``model/config.json`` of a run holds it."""

    spatial_dims: int = 2
    """2 for films, 3 for volumes."""
    in_channels: int = 1
    """Channels of the input tensor."""
    out_channels: int = 1
    """Channels of the output tensor (twice the image's for learned variance; K for K classes)."""
    width: int = 128
    """Channels of the first level ("base width")."""
    multipliers: Ints = (1, 1, 2, 2, 4, 4)
    """Channels of each level in units of ``width``; each level after the first halves the resolution."""
    blocks: int = 2
    """Residual blocks per level on the way down (one more on the way up)."""
    attention_factors: Ints = (8, 16, 32)
    """Down-sampling factors with self-attention (8: at 32 px of a 256 px image)."""
    head_channels: int = 64
    """Channels per attention head; levels narrower than this use one head."""
    dropout: float = 0.0
    """Dropout in the residual blocks, 0 to 1."""
    scale_shift_norm: bool = True
    """The time embedding scales and shifts the second norm (else it is added)."""
    residual_updown: bool = True
    """Resolution changes happen inside residual blocks (else by strided convolution and interpolation)."""
    num_groups: int = 32
    """Groups of the group norms; the largest divisor of the channels up to this number is used."""
    norm_eps: float = 1e-5
    """Added to the variance in the group norms."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which U-Net to build: a preset by size, and overrides of single values."""

    preset: Literal["tiny", "small", "base", "paper"] = "tiny"
    """tiny: 3.0 M parameters, for 48 to 96 px on a CPU; small: 17 M, 64 to 128 px; base: 128 to 256 px on one GPU;
    paper: the U-Net of Dhariwal and Nichol at 256 px, base width 128, 138 M parameters [paper, related]."""
    width: PositiveInt | None = None
    """Base width; None takes the preset's."""
    multipliers: tuple[PositiveInt, ...] | None = None
    """Channel multipliers by level; None takes the preset's."""
    blocks: PositiveInt | None = None
    """Residual blocks per level; None takes the preset's."""
    attention_factors: tuple[PositiveInt, ...] | None = None
    """Down-sampling factors with self-attention; None takes the preset's."""
    head_channels: PositiveInt | None = None
    """Channels per attention head; None takes the preset's."""
    dropout: Fraction | None = None
    """Dropout, 0 to 1; None takes the preset's."""


_COLUMNS = ("width", "multipliers", "blocks", "attention_factors", "head_channels")
PRESETS: dict[str, dict[str, Any]] = {
    name: dict(zip(_COLUMNS, row, strict=True))
    for name, row in {
        "tiny": (16, (1, 2, 4, 8), 1, (8,), 32),
        "small": (32, (1, 2, 4, 8), 2, (8,), 32),
        "base": (64, (1, 2, 3, 4, 4), 2, (8, 16), 64),
        "paper": (128, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 64),
    }.items()
}
"""[ours] except ``paper``; tiny was chosen for speed: about 35 images/s at 64 px on two CPU cores."""


def resolve_network(
    network: Network, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNetConfig:
    """The network that a preset and its overrides specify."""
    values = dict(PRESETS[network.preset])
    overrides = {name: value for name, value in vars(network).items() if name != "preset"}
    values |= {name: value for name, value in overrides.items() if value is not None}
    return UNetConfig(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **values
    )
