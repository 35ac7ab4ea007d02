"""Weights of diffusers' ``UNet2DModel`` and MONAI's ``DiffusionModelUNet`` as ours, where the networks are the same.

All three descend from Ho et al. 2020. Ours is theirs where attention follows every residual block of a level, the time
enters as here, and nothing else is switched on; what differs is refused by name. Their queries, keys and values are
three layers, ours is one, head by head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from ..nets.blocks import attention_heads


@dataclass(frozen=True)
class Naming:
    """How another package names the parts of the network; ``{}`` stands for a number."""

    time: tuple[str, str]
    stem: str
    down: str
    up: str
    attention: str
    halve: tuple[str, str]
    """Names of the block that halves: as a residual block, as a convolution."""
    double: tuple[str, str]
    middle: tuple[str, str, str]
    norm: str
    head: str
    residual: Mapping[str, str]
    normalized: str
    projected: tuple[str, str, str]
    out: str


DIFFUSERS = Naming(
    time=("time_embedding.linear_1", "time_embedding.linear_2"),
    stem="conv_in",
    down="down_blocks.{}.resnets.{}",
    up="up_blocks.{}.resnets.{}",
    attention="attentions",
    halve=("down_blocks.{}.downsamplers.0", "down_blocks.{}.downsamplers.0.conv"),
    double=("up_blocks.{}.upsamplers.0", "up_blocks.{}.upsamplers.0.conv"),
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    norm="conv_norm_out",
    head="conv_out",
    residual={
        "norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2",
        "conv2": "conv2", "skip": "conv_shortcut",
    },
    normalized="group_norm",
    projected=("to_q", "to_k", "to_v"),
    out="to_out.0",
)  # fmt: skip
MONAI = Naming(
    time=("time_embed.0", "time_embed.2"),
    stem="conv_in.conv",
    down="down_blocks.{}.resnets.{}",
    up="up_blocks.{}.resnets.{}",
    attention="attentions",
    halve=("down_blocks.{}.downsampler", "down_blocks.{}.downsampler.op.conv"),
    double=("up_blocks.{}.upsampler", "up_blocks.{}.upsampler.postconv.conv"),
    middle=("middle_block.resnet_1", "middle_block.attention", "middle_block.resnet_2"),
    norm="out.0",
    head="out.2.conv",
    residual={
        "norm1": "norm1", "conv1": "conv1.conv", "time": "time_emb_proj", "norm2": "norm2",
        "conv2": "conv2.conv", "skip": "skip_connection.conv",
    },
    normalized="norm",
    projected=("attn.to_q", "attn.to_k", "attn.to_v"),
    out="attn.out_proj",
)  # fmt: skip

DIFFUSERS_FIXED = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "act_fn": "silu",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}
"""Settings of ``UNet2DModel`` that have to be as here; absent ones are, by its defaults."""
MONAI_FIXED = {
    "with_conditioning": False,
    "num_class_embeds": None,
    "include_fc": True,
    "use_combined_linear": False,
}
"""Settings of ``DiffusionModelUNet`` that have to be as here; absent ones are, by its defaults."""


def diffusers_config(config: Mapping[str, Any]) -> UNetConfig:
    """Our network for the ``config.json`` of a ``UNet2DModel``.

    Raises:
        ValueError: The network is another one; names the setting.
    """
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ValueError(f"it is a {config['_class_name']}, not a UNet2DModel")
    _verify(config, DIFFUSERS_FIXED)
    channels = _numbers(config.get("block_out_channels", (224, 448, 672, 896)))
    attends = ("DownBlock2D", *["AttnDownBlock2D"] * 3)
    down = tuple(config.get("down_block_types", attends))
    up = tuple(config.get("up_block_types", (*["AttnUpBlock2D"] * 3, "UpBlock2D")))
    plain = {"DownBlock2D", "ResnetDownsampleBlock2D"}, {"UpBlock2D", "ResnetUpsampleBlock2D"}
    for kind, known in ((down, plain[0] | {attends[1]}), (up, plain[1] | {"AttnUpBlock2D"})):
        if other := [block for block in kind if block not in known]:
            raise ValueError(f"it has the block {other[0]}, which is not in this network")
    levels = [block == "AttnDownBlock2D" for block in down]
    if levels != [block == "AttnUpBlock2D" for block in reversed(up)]:
        raise ValueError("its decoder has attention on other levels than its encoder")
    halving = {_residual(block, config.get("downsample_type", "conv")) for block in down[:-1]}
    doubling = {_residual(block, config.get("upsample_type", "conv")) for block in up[:-1]}
    if len(halving | doubling) > 1:
        raise ValueError("it changes the resolution by convolutions here and residual blocks there")
    shift = config.get("resnet_time_scale_shift", "default")
    if shift not in ("default", "scale_shift"):
        raise ValueError(f"resnet_time_scale_shift is {shift}, not default or scale_shift")
    groups = int(config.get("norm_num_groups") or 32)
    if config.get("attn_norm_num_groups") not in (None, groups):
        raise ValueError("attn_norm_num_groups differs from norm_num_groups")
    width = config.get("attention_head_dim", 8)
    return _unet(
        2, config, channels, levels, int(config.get("layers_per_block", 2)),
        [width] * len(channels), groups, float(config.get("norm_eps", 1e-5)),
        scale_shift=shift == "scale_shift", residual=(halving | doubling or {False}).pop(),
        dropout=float(config.get("dropout", 0.0)), embedding=config.get("time_embedding_dim"),
    )  # fmt: skip


def monai_config(config: Mapping[str, Any]) -> UNetConfig:
    """Our network for the arguments that a ``DiffusionModelUNet`` was made with.

    Raises:
        ValueError: The network is another one; names the setting.
        KeyError: An argument without a default is missing.
    """
    _verify(config, MONAI_FIXED)
    dims = int(config["spatial_dims"])
    if dims not in (2, 3):
        raise ValueError(f"spatial_dims is {dims}, not 2 or 3")
    channels = _numbers(config.get("channels", (32, 64, 64, 64)))
    blocks = config.get("num_res_blocks", (2, 2, 2, 2))
    counts = {blocks} if isinstance(blocks, int) else set(_numbers(blocks))
    if len(counts) != 1:
        raise ValueError(f"num_res_blocks are {blocks}: here every level has as many")
    levels = [bool(v) for v in config.get("attention_levels", (False, False, True, True))]
    heads = config.get("num_head_channels", 8)
    widths = [heads] * len(channels) if isinstance(heads, int) else list(heads)
    return _unet(
        dims, config, channels, levels, counts.pop(), widths,
        int(config.get("norm_num_groups", 32)), float(config.get("norm_eps", 1e-6)),
        scale_shift=False, residual=bool(config.get("resblock_updown", False)),
    )  # fmt: skip


def from_hub(state: Mapping[str, Tensor], config: UNetConfig, naming: Naming) -> dict[str, Tensor]:
    """Their weights under our names, ready for ``UNet(config).load_state_dict``.

    Args:
        state: Weights of the other package.
        config: From ``diffusers_config`` or ``monai_config``.
        naming: ``DIFFUSERS`` or ``MONAI``.

    Raises:
        ValueError: A weight is missing or has no place in this network; names it.
    """
    left = dict(state)

    def take(name: str) -> Tensor:
        if name not in left:
            raise ValueError(f"{name} is missing: the weights are not those of this network")
        return left.pop(name)

    result = {}
    for ours, theirs in _names(config, naming):
        for kind in ("weight", "bias"):
            if isinstance(theirs, str):
                result[f"{ours}.{kind}"] = take(f"{theirs}.{kind}")
                continue
            parts = [take(f"{name}.{kind}") for name in theirs]
            heads = attention_heads(len(parts[0]), config.head_channels)
            joined = torch.stack([part.unflatten(0, (heads, -1)) for part in parts], dim=1)
            result[f"{ours}.{kind}"] = joined.flatten(0, 2)
    if left:
        raise ValueError(f"{sorted(left)[0]} has no place in this network ({len(left)} such)")
    return result


# ------------------------------------------------------------------------------------------------ internal


def _names(config: UNetConfig, naming: Naming) -> Iterator[tuple[str, str | tuple[str, str, str]]]:
    """Pairs of our layer and theirs; three of theirs make one of queries, keys and values."""
    yield from zip(("time.0", "time.2"), naming.time, strict=True)
    yield "stem", naming.stem
    channels = [config.width * m for m in config.multipliers]
    last, skips, number = channels[0], [channels[0]], 0
    for level, out in enumerate(channels):
        for block in range(config.blocks):
            theirs = naming.down.format(level, block)
            yield from _block(naming, f"down.{number}.block", theirs, skip=last != out)
            if 2**level in config.attention_factors:
                yield from _attended(naming, f"down.{number}.attention", theirs)
            last, number = out, number + 1
            skips.append(out)
        if level < len(channels) - 1:
            yield from _resampled(config, naming, f"down.{number}.block", naming.halve, level)
            number += 1
            skips.append(out)
    before, attention, after = naming.middle
    yield from _block(naming, "middle.before", before, skip=False)
    yield from _projections(naming, "middle.attention", attention)
    yield from _block(naming, "middle.after", after, skip=False)
    number = 0
    for place, (level, out) in enumerate(reversed(list(enumerate(channels)))):
        for block in range(config.blocks + 1):
            theirs = naming.up.format(place, block)
            yield from _block(naming, f"up.{number}.block", theirs, skip=last + skips.pop() != out)
            if 2**level in config.attention_factors:
                yield from _attended(naming, f"up.{number}.attention", theirs)
            if level > 0 and block == config.blocks:
                yield from _resampled(config, naming, f"up.{number}.resample", naming.double, place)
            last, number = out, number + 1
    yield "norm", naming.norm
    yield "head", naming.head


def _block(naming: Naming, ours: str, theirs: str, *, skip: bool) -> Iterator[tuple[str, str]]:
    for a, b in naming.residual.items():
        if a != "skip" or skip:
            yield f"{ours}.{a}", f"{theirs}.{b}"


def _attended(
    naming: Naming, ours: str, resnet: str
) -> Iterator[tuple[str, str | tuple[str, str, str]]]:
    yield from _projections(naming, ours, resnet.replace("resnets", naming.attention))


def _projections(
    naming: Naming, ours: str, theirs: str
) -> Iterator[tuple[str, str | tuple[str, str, str]]]:
    yield f"{ours}.norm", f"{theirs}.{naming.normalized}"
    query, key, value = naming.projected
    yield f"{ours}.qkv", (f"{theirs}.{query}", f"{theirs}.{key}", f"{theirs}.{value}")
    yield f"{ours}.out", f"{theirs}.{naming.out}"


def _resampled(
    config: UNetConfig, naming: Naming, ours: str, names: tuple[str, str], place: int
) -> Iterator[tuple[str, str]]:
    residual, convolution = (name.format(place) for name in names)
    if config.residual_updown:
        yield from _block(naming, ours, residual, skip=False)
    else:
        yield f"{ours}.conv", convolution


def _residual(block: str, kind: str) -> bool:
    """Whether a block of diffusers changes the resolution inside a residual block."""
    if block.startswith("Resnet"):
        return True
    if block.startswith("Attn"):
        if kind not in ("conv", "resnet"):
            raise ValueError(f"it changes the resolution by {kind}, not conv or resnet")
        return kind == "resnet"
    return False


def _verify(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key} is {config[key]}: this network has {value}")


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _unet(
    dims: int,
    config: Mapping[str, Any],
    channels: Sequence[int],
    levels: Sequence[bool],
    blocks: int,
    head_widths: Sequence[int | None],
    groups: int,
    eps: float,
    *,
    scale_shift: bool,
    residual: bool,
    dropout: float = 0.0,
    embedding: int | None = None,
) -> UNetConfig:
    width = channels[0]
    if any(c % width for c in channels):
        raise ValueError(f"channels are {channels}: here they are multiples of the first")
    if embedding not in (None, 4 * width):
        raise ValueError(f"time_embedding_dim is {embedding}: this network has {4 * width}")
    if any(c % groups for c in channels):
        raise ValueError(f"norm_num_groups is {groups}, which does not divide all channels")
    attending = [(c, w) for c, w, on in zip(channels, head_widths, levels, strict=True) if on]
    attending.append((channels[-1], head_widths[-1]))  # the middle always attends
    head = head_widths[-1] or max(channels)
    for c, own in attending:
        if attention_heads(c, head) != (c // own if own else 1):
            raise ValueError("its attention has other heads than this network can have")
    return UNetConfig(
        spatial_dims=dims,
        in_channels=int(config.get("in_channels", 3)),
        out_channels=int(config.get("out_channels", 3)),
        width=width,
        multipliers=tuple(c // width for c in channels),
        blocks=blocks,
        attention_factors=tuple(2**level for level, on in enumerate(levels) if on),
        head_channels=head,
        dropout=dropout,
        scale_shift_norm=scale_shift,
        residual_updown=residual,
        num_groups=groups,
        norm_eps=eps,
    )
