"""Which network to build."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import InputError
from .types import Fraction, Ints, PositiveInt, Stride

IMAGENET: Literal["imagenet"] = "imagenet"
"""The preset that is not of the U-Net of Dhariwal and Nichol."""


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
    """Channels of each level in units of ``width``; each level after the first has half the resolution, see
    ``strides``."""
    blocks: int = 2
    """Residual blocks per level on the way down (one more on the way up)."""
    attention_factors: Ints = (8, 16, 32)
    """Down-sampling factors with self-attention (8: at 32 px of a 256 px image); of a level, the largest along any
    axis counts, ``unshuffle`` included."""
    head_channels: int = 64
    """Channels per attention head; levels narrower than this use one head."""
    heads: int | None = None
    """Attention heads of every block, in networks of others; None: as ``head_channels`` says."""
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
    strides: tuple[Ints, ...] = ()
    """Down-sampling from each level to the next along each axis, 1 or 2: (1, 2, 2) leaves the first axis as it is, as
    guided-diffusion's networks of volumes do; () is 2 along every axis."""
    unshuffle: int | Ints = 1
    """Pixels along every axis, or along each, that the first layer folds into channels and the last layers unfold: the
    first level has that much less resolution. 1 is the network of Dhariwal and Nichol."""

    def __post_init__(self) -> None:
        """Equal networks have equal configurations: where every axis is treated alike, it is said once."""
        factor = self.unshuffle
        if not isinstance(factor, int):
            alike = len(set(factor)) == 1
            object.__setattr__(self, "unshuffle", factor[0] if alike else tuple(factor))
        if all(set(stride) == {2} for stride in self.strides):
            object.__setattr__(self, "strides", ())

    @property
    def fold(self) -> Ints:
        """``unshuffle`` along each axis."""
        factor = self.unshuffle
        return (factor,) * self.spatial_dims if isinstance(factor, int) else factor

    @property
    def steps(self) -> tuple[Ints, ...]:
        """``strides`` in full: one per transition between levels, each with one number per axis."""
        return self.strides or ((2,) * self.spatial_dims,) * (len(self.multipliers) - 1)

    @property
    def factors(self) -> tuple[Ints, ...]:
        """Down-sampling of each level along each axis, as against the input."""
        found = [self.fold]
        for step in self.steps:
            found.append(tuple(a * b for a, b in zip(found[-1], step, strict=True)))
        return tuple(found)

    @property
    def attends(self) -> tuple[bool, ...]:
        """Whether each level has self-attention."""
        return tuple(max(factor) in self.attention_factors for factor in self.factors)

    @property
    def size_multiple(self) -> Ints:
        """Of which every spatial size of the input must be a multiple, along each axis."""
        return self.factors[-1]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network to build: a preset by size, and overrides of single values."""

    preset: Literal["tiny", "tiny-256", "small", "base", "paper", "imagenet"] | None = None
    """None: the network of ``--from``, else as the plan says. tiny: 3.0 M parameters, for 48 to 96 px on a CPU;
    tiny-256: 12 M, 256 px on a CPU, folds 4 x 4 pixels; small: 17 M, 64 to 128 px; base: 128 to 256 px on one GPU;
    paper: the U-Net of Dhariwal and Nichol at 256 px, base width 128, 138 M parameters [paper, related]; imagenet: for
    pretrain, and films of any size, the network of ``fit --method imagenet``: 3.8 M, and its encoder was trained on
    ImageNet."""
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
    unshuffle: tuple[PositiveInt, ...] | None = None
    """Pixels that are folded into channels before the first level: one number, or one per axis; None takes the
    preset's."""
    strides: tuple[Stride, ...] | None = None
    """Down-sampling between levels along each axis, such as 1x2x2,2x2x2; None halves every axis."""


_COLUMNS = ("width", "multipliers", "blocks", "attention_factors", "head_channels", "unshuffle")
PRESETS: dict[str, dict[str, Any]] = {
    name: dict(zip(_COLUMNS, row, strict=True))
    for name, row in {
        "tiny": (16, (1, 2, 4, 8), 1, (8,), 32, 1),
        "tiny-256": (32, (1, 2, 4, 8), 1, (32,), 32, 4),
        "small": (32, (1, 2, 4, 8), 2, (8,), 32, 1),
        "base": (64, (1, 2, 3, 4, 4), 2, (8, 16), 64, 1),
        "paper": (128, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), 64, 1),
    }.items()
}
"""[ours] except ``paper``; tiny was chosen for speed: about 35 images/s at 64 px on two CPU cores."""


def resolve_network(
    network: Network, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNetConfig:
    """The network that a preset and its overrides specify.

    Raises:
        InputError: The preset is no U-Net of this kind.
    """
    if network.preset == IMAGENET:
        problem, remedy = "is not the U-Net that is trained here", "Use another preset"
        raise InputError(f"--network.preset {IMAGENET}", problem, remedy)
    values = dict(PRESETS[network.preset or "tiny"])
    overrides = {name: value for name, value in vars(network).items() if name != "preset"}
    if network.strides:
        overrides["strides"] = tuple(tuple(map(int, text.split("x"))) for text in network.strides)
    values |= {name: value for name, value in overrides.items() if value is not None}
    return UNetConfig(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **values
    )


def network_settings(unet: UNetConfig) -> Network:
    """The settings that specify a network, as far as they can."""
    values = {name: getattr(unet, name) for name in _COLUMNS}
    preset: Any = next((name for name, row in PRESETS.items() if row == values), None)
    return Network(
        preset=preset,
        dropout=unet.dropout or None,
        **({} if preset else values | {"unshuffle": unet.fold}),
        strides=tuple("x".join(map(str, step)) for step in unet.strides) or None,
    )


def begins_on_imagenet(settings: Mapping[str, Any]) -> bool:
    """Whether recorded settings, of pretrain or fit, are of a training that began with the weights of ImageNet."""
    network = settings.get("network")  # of classify, a name
    preset = network.get("preset") if isinstance(network, Mapping) else None
    return not settings.get("from_run") and IMAGENET in (settings.get("method"), preset)


BOTTLENECK = 8
"""Most positions of the coarsest level along an axis; where the size is a multiple, it has more than half of them."""
FINEST = {2: 112**2, 3: 64**3}
"""Positions of the first level above which pixels are folded, by the number of axes [ours]."""
FOLDS = {2: 2, 3: 1}
"""How often, at most: 4 x 4 pixels, or 2 x 2 x 2 voxels."""


def halvings(size: Sequence[int], spacing: Sequence[float] | None = None) -> tuple[Ints, ...]:
    """By how much each axis is reduced from step to step, until none has more than ``BOTTLENECK`` positions.

    As in nnU-Net (Isensee et al. 2021), an axis waits while its voxels are at least twice as long as the shortest.

    Args:
        size: Of the image or patch; see ``fitting_size``.
        spacing: Length of a voxel along each axis, in any unit; None: all alike.
    """
    left, extent = list(size), list(spacing or (1.0,) * len(size))
    steps = []
    while able := [i for i, n in enumerate(left) if n > BOTTLENECK and n % 2 == 0]:
        shortest = min(extent[i] for i in able)
        step = [2 if i in able and extent[i] < 2 * shortest else 1 for i in range(len(left))]
        left = [n // s for n, s in zip(left, step, strict=True)]
        extent = [e * s for e, s in zip(extent, step, strict=True)]
        steps.append(tuple(step))
    return tuple(steps)


def fitting_size(size: Sequence[int], *, down: bool = False) -> Ints:
    """The next larger size that ``halvings`` brings to more than half of ``BOTTLENECK`` positions, and no more.

    ``down``: the next smaller one, which it may bring to half of them.
    """
    powers = [2 ** max(0, math.ceil(math.log2(n / BOTTLENECK))) for n in size]
    return tuple(
        (n if down else n + power - 1) // power * power
        for n, power in zip(size, powers, strict=True)
    )


def network_for(
    size: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    width: int = 16,
    blocks: int = 1,
    folds: int | None = None,
    most: int = 8,
    in_channels: int = 1,
    out_channels: int = 1,
) -> UNetConfig:
    """The U-Net that fits a size by formula [ours]: ``tiny`` for 64 x 64 and a width of 16.

    Channels double from level to level, and the coarsest level, of up to 8 positions along each axis, has attention.

    Args:
        size: Of the image or patch; see ``fitting_size``.
        spacing: Length of a voxel along each axis; axes of long voxels keep their resolution for longer.
        width: Channels of the first level.
        blocks: Residual blocks per level.
        folds: How often the input is halved by folding pixels into channels; None: until the first level has no more
            than ``FINEST`` positions, but at most ``FOLDS`` times.
        most: Largest multiplier of the width.
        in_channels: Of the input.
        out_channels: Of the output.
    """
    steps, dims = halvings(size, spacing), len(size)

    def folded(times: int) -> Ints:
        return tuple(math.prod(axis) for axis in zip((1,) * dims, *steps[:times], strict=True))

    if folds is None:
        positions = [math.prod(size) // math.prod(folded(f)) for f in range(len(steps) + 1)]
        few = [f for f, count in enumerate(positions) if count <= FINEST[dims]]
        folds = min(few[0] if few else len(steps), FOLDS[dims])
    levels = len(steps) - folds + 1
    config = UNetConfig(
        spatial_dims=dims,
        in_channels=in_channels,
        out_channels=out_channels,
        width=width,
        multipliers=tuple(min(2**level, most) for level in range(levels)),
        blocks=blocks,
        attention_factors=(),
        head_channels=32,
        strides=steps[folds:],
        unshuffle=folded(folds),
    )
    return replace(config, attention_factors=(max(config.factors[-1]),))
