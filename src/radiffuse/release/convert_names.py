"""Names of weights in guided-diffusion, diffusers and MONAI, and the same weights under ours.

All descend from Ho et al. 2020. Ours is guided-diffusion's ``UNetModel`` (Dhariwal and Nichol 2021), whose attention
projections are 1x1 convolutions there and linear layers here. Queries, keys and values are one layer, head by head, as
in most released weights ("legacy" order); in those trained with ``use_new_attention_order`` all queries come first,
and in diffusers and MONAI they are three layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import UNetConfig
from ..nets.blocks import attention_heads

Pairs = Iterator[tuple[str, tuple[str, ...]]]
"""Our layer, and the layers of theirs that make it: one, or those of queries, keys and values."""


@dataclass(frozen=True)
class Naming:
    """How another package names the layers.

    In braces stand the place of the ``level`` and of the ``block`` in it, of the entry among all of the encoder or
    decoder (``n``), and of the ``last`` layer of a decoder's entry.
    """

    time: tuple[str, str]
    stem: str
    down: str
    down_attention: str
    halve: tuple[str, str]
    """The block that halves the resolution: as a residual block, as a convolution."""
    middle: tuple[str, str, str]
    up: str
    up_attention: str
    double: tuple[str, str]
    norm: str
    head: str
    residual: Mapping[str, str]
    attention: Mapping[str, tuple[str, ...]]


GUIDED = Naming(
    time=("time_embed.0", "time_embed.2"),
    stem="input_blocks.0.0",
    down="input_blocks.{n}.0",
    down_attention="input_blocks.{n}.1",
    halve=("input_blocks.{n}.0", "input_blocks.{n}.0.op"),
    middle=("middle_block.0", "middle_block.1", "middle_block.2"),
    up="output_blocks.{n}.0",
    up_attention="output_blocks.{n}.1",
    double=("output_blocks.{n}.{last}", "output_blocks.{n}.{last}.conv"),
    norm="out.0",
    head="out.2",
    residual={
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "skip": "skip_connection",
    },
    attention={"norm": ("norm",), "qkv": ("qkv",), "out": ("proj_out",)},
)  # fmt: skip
DIFFUSERS = Naming(
    time=("time_embedding.linear_1", "time_embedding.linear_2"),
    stem="conv_in",
    down="down_blocks.{level}.resnets.{block}",
    down_attention="down_blocks.{level}.attentions.{block}",
    halve=("down_blocks.{level}.downsamplers.0", "down_blocks.{level}.downsamplers.0.conv"),
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    up="up_blocks.{level}.resnets.{block}",
    up_attention="up_blocks.{level}.attentions.{block}",
    double=("up_blocks.{level}.upsamplers.0", "up_blocks.{level}.upsamplers.0.conv"),
    norm="conv_norm_out",
    head="conv_out",
    residual={
        "norm1": "norm1", "conv1": "conv1", "time": "time_emb_proj", "norm2": "norm2",
        "conv2": "conv2", "skip": "conv_shortcut",
    },
    attention={"norm": ("group_norm",), "qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)},
)  # fmt: skip
MONAI = Naming(
    time=("time_embed.0", "time_embed.2"),
    stem="conv_in.conv",
    down="down_blocks.{level}.resnets.{block}",
    down_attention="down_blocks.{level}.attentions.{block}",
    halve=("down_blocks.{level}.downsampler", "down_blocks.{level}.downsampler.op.conv"),
    middle=("middle_block.resnet_1", "middle_block.attention", "middle_block.resnet_2"),
    up="up_blocks.{level}.resnets.{block}",
    up_attention="up_blocks.{level}.attentions.{block}",
    double=("up_blocks.{level}.upsampler", "up_blocks.{level}.upsampler.postconv.conv"),
    norm="out.0",
    head="out.2.conv",
    residual={
        "norm1": "norm1", "conv1": "conv1.conv", "time": "time_emb_proj", "norm2": "norm2",
        "conv2": "conv2.conv", "skip": "skip_connection.conv",
    },
    attention={
        "norm": ("norm",), "qkv": ("attn.to_q", "attn.to_k", "attn.to_v"), "out": ("attn.out_proj",),
    },
)  # fmt: skip


def renamed(state: Mapping[str, Tensor], config: UNetConfig, naming: Naming) -> dict[str, Tensor]:
    """Weights of another package under our names, ready for ``UNet(config).load_state_dict``.

    Args:
        state: Weights of the other package.
        config: The network, see ``convert_configs``.
        naming: ``GUIDED``, ``DIFFUSERS`` or ``MONAI``.

    Raises:
        ValueError: A weight is missing or has no place in this network; names it.
    """
    left = dict(state)
    result = {}
    for ours, theirs in layers(config, naming):
        for kind in ("weight", "bias"):
            names = [f"{name}.{kind}" for name in theirs]
            if missing := [name for name in names if name not in left]:
                problem = "is missing: the weights are not those of this network"
                raise ValueError(f"{missing[0]} {problem}")
            parts = [left.pop(name) for name in names]
            if len(parts) > 1:
                heads = attention_heads(len(parts[0]), config.head_channels)
                joined = torch.stack([part.unflatten(0, (heads, -1)) for part in parts], dim=1)
                parts = [joined.flatten(0, 2)]
            projection = kind == "weight" and ours.endswith((".qkv", "attention.out"))
            result[f"{ours}.{kind}"] = parts[0].flatten(1) if projection else parts[0]
    if left:
        raise ValueError(f"{sorted(left)[0]} has no place in this network ({len(left)} such)")
    return result


def head_by_head(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """Weights of guided-diffusion trained with ``use_new_attention_order``, in the order of the others."""

    def ordered(tensor: Tensor) -> Tensor:
        heads = config.heads or len(tensor) // 3 // config.head_channels
        parts: Tensor = tensor.unflatten(0, (3, heads, -1))
        return parts.transpose(0, 1).flatten(0, 2)

    return {k: ordered(v) if ".qkv." in k else v for k, v in state.items()}


def layers(config: UNetConfig, naming: Naming) -> Pairs:
    """Our name and theirs of every layer of the network, in its order."""
    yield from zip(("time.0", "time.2"), zip(naming.time, strict=True), strict=True)
    yield "stem", (naming.stem,)
    channels = [config.width * m for m in config.multipliers]
    attends = config.attends
    last, skips, number = channels[0], [channels[0]], 0
    for level, out in enumerate(channels):
        for block in range(config.blocks):
            place = {"level": level, "block": block, "n": number + 1}
            yield from _residual(naming, f"down.{number}.block", naming.down, place, last != out)
            if attends[level]:
                yield from _attention(
                    naming, f"down.{number}.attention", naming.down_attention, place
                )
            last, number = out, number + 1
            skips.append(out)
        if level < len(channels) - 1:
            place = {"level": level, "n": number + 1}
            yield from _resampled(config, naming, f"down.{number}.block", naming.halve, place)
            number += 1
            skips.append(out)
    before, middle, after = naming.middle
    yield from _residual(naming, "middle.before", before)
    yield from _attention(naming, "middle.attention", middle)
    yield from _residual(naming, "middle.after", after)
    for number in range(len(channels) * (config.blocks + 1)):
        stage, block = divmod(number, config.blocks + 1)
        level = len(channels) - 1 - stage
        out = channels[level]
        place = {"level": stage, "block": block, "n": number, "last": 1 + attends[level]}
        skip = last + skips.pop() != out
        yield from _residual(naming, f"up.{number}.block", naming.up, place, skip)
        if attends[level]:
            yield from _attention(naming, f"up.{number}.attention", naming.up_attention, place)
        if level > 0 and block == config.blocks:
            yield from _resampled(config, naming, f"up.{number}.resample", naming.double, place)
        last = out
    yield "norm", (naming.norm,)
    yield "head", (naming.head,)


def _residual(
    naming: Naming, ours: str, theirs: str, place: Mapping[str, int] = {}, skip: bool = False
) -> Pairs:
    for name, other in naming.residual.items():
        if name != "skip" or skip:
            yield f"{ours}.{name}", (f"{theirs.format(**place)}.{other}",)


def _attention(naming: Naming, ours: str, theirs: str, place: Mapping[str, int] = {}) -> Pairs:
    for name, others in naming.attention.items():
        yield f"{ours}.{name}", tuple(f"{theirs.format(**place)}.{other}" for other in others)


def _resampled(
    config: UNetConfig,
    naming: Naming,
    ours: str,
    theirs: tuple[str, str],
    place: Mapping[str, int],
) -> Pairs:
    residual, convolution = theirs
    if config.residual_updown:
        yield from _residual(naming, ours, residual, place)
    else:
        yield f"{ours}.conv", (convolution.format(**place),)
