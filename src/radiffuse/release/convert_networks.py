"""Weights in the naming of guided-diffusion (Dhariwal and Nichol 2021), from and to ours.

The two networks are the same; only names differ, and attention projections that are 1x1 convolutions there and linear
layers here. Heads are laid out as in most released weights ("legacy" order); those trained with
``use_new_attention_order`` (the 64 px ImageNet model) cannot be told apart and would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from ..config import UNetConfig

RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}


def to_guided_diffusion(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """Our weights under guided-diffusion's names.

    Args:
        state: ``UNet.state_dict()``.
        config: The network.

    Raises:
        KeyError: The weights are not those of this network.
    """
    result = {}
    for ours, theirs in names(config):
        tensor = state[ours]
        if _is_projection(theirs):
            tensor = tensor[..., None]
        result[theirs] = tensor
    return result


def from_guided_diffusion(state: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """guided-diffusion's weights under our names, ready for ``UNet(config).load_state_dict``.

    Args:
        state: State dict of guided-diffusion's ``UNetModel``.
        config: The network, as given or from ``infer_config``.

    Raises:
        ValueError: A weight is missing or has no place in this network; names it.
    """
    result = {}
    for ours, theirs in names(config):
        if theirs not in state:
            raise ValueError(f"{theirs} is missing: the weights are not those of this network")
        tensor = state[theirs]
        result[ours] = tensor.squeeze(-1) if _is_projection(theirs) else tensor
    if extra := sorted(set(state) - {theirs for _, theirs in names(config)}):
        raise ValueError(f"{extra[0]} has no place in this network ({len(extra)} such weights)")
    return result


def infer_config(
    state: Mapping[str, Tensor], *, head_channels: int = 64, scale_shift_norm: bool = True
) -> UNetConfig:
    """The network that guided-diffusion's weights belong to.

    Args:
        state: State dict of guided-diffusion's ``UNetModel``.
        head_channels: Channels per attention head, which the weights do not tell.
        scale_shift_norm: As trained; the width of the time projections must agree.

    Raises:
        ValueError: Not such weights.
    """
    stem = state.get("input_blocks.0.0.weight")
    if stem is None or "out.2.weight" not in state or "time_embed.0.weight" not in state:
        raise ValueError("these are not weights of guided-diffusion's UNetModel")
    width = state["time_embed.0.weight"].shape[1]
    levels: list[int] = []
    attention: list[int] = []
    blocks, count, updown = 0, 0, True
    factor = 1
    indices = {int(m[1]) for k in state if (m := re.match(r"input_blocks\.(\d+)\.", k))}
    for i in sorted(indices - {0}):
        prefix = f"input_blocks.{i}.0."
        if f"{prefix}op.weight" in state:
            updown, down = False, True
        else:
            # A block that halves keeps its channels and stands alone after a level's blocks.
            down = _halves(state, i, blocks, count)
        if down:
            blocks, count, factor = count, 0, factor * 2
            continue
        count += 1
        channels = state[f"{prefix}out_layers.3.weight"].shape[0]
        if count == 1:
            levels.append(channels // width)
        if f"input_blocks.{i}.1.qkv.weight" in state and factor not in attention:
            attention.append(factor)
    return UNetConfig(
        spatial_dims=stem.ndim - 2,
        in_channels=stem.shape[1],
        out_channels=state["out.2.weight"].shape[0],
        width=width,
        multipliers=tuple(levels),
        blocks=max(blocks, count),
        attention_factors=tuple(attention),
        head_channels=head_channels,
        scale_shift_norm=scale_shift_norm,
        residual_updown=updown,
    )


def names(config: UNetConfig) -> Iterator[tuple[str, str]]:
    """Pairs of our name and guided-diffusion's, for every weight of the network."""
    for i in (0, 2):
        yield from _both(f"time.{i}", f"time_embed.{i}")
    yield from _both("stem", "input_blocks.0.0")
    channels = [config.width * m for m in config.multipliers]
    last, skips, number = channels[0], [channels[0]], 0
    for level, out in enumerate(channels):
        attends = 2**level in config.attention_factors
        for _ in range(config.blocks):
            ours, theirs = f"down.{number}", f"input_blocks.{number + 1}"
            yield from _residual(f"{ours}.block", f"{theirs}.0", skip=last != out)
            if attends:
                yield from _attention(f"{ours}.attention", f"{theirs}.1")
            last, number = out, number + 1
            skips.append(out)
        if level < len(channels) - 1:
            yield from _resample(
                config, f"down.{number}.block", f"input_blocks.{number + 1}.0", "op"
            )
            number += 1
            skips.append(out)
    yield from _residual("middle.before", "middle_block.0", skip=False)
    yield from _attention("middle.attention", "middle_block.1")
    yield from _residual("middle.after", "middle_block.2", skip=False)
    number = 0
    for level, out in reversed(list(enumerate(channels))):
        attends = 2**level in config.attention_factors
        for i in range(config.blocks + 1):
            ours, theirs = f"up.{number}", f"output_blocks.{number}"
            yield from _residual(f"{ours}.block", f"{theirs}.0", skip=last + skips.pop() != out)
            if attends:
                yield from _attention(f"{ours}.attention", f"{theirs}.1")
            if level > 0 and i == config.blocks:
                place = f"{theirs}.{2 if attends else 1}"
                yield from _resample(config, f"{ours}.resample", place, "conv")
            last, number = out, number + 1
    yield from _both("norm", "out.0")
    yield from _both("head", "out.2")


# ------------------------------------------------------------------------------------------------ internal


def _both(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.weight", f"{theirs}.weight"
    yield f"{ours}.bias", f"{theirs}.bias"


def _residual(ours: str, theirs: str, *, skip: bool) -> Iterator[tuple[str, str]]:
    for a, b in RESIDUAL.items():
        if a != "skip" or skip:
            yield from _both(f"{ours}.{a}", f"{theirs}.{b}")


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    for a, b in ATTENTION.items():
        yield from _both(f"{ours}.{a}", f"{theirs}.{b}")


def _resample(config: UNetConfig, ours: str, theirs: str, conv: str) -> Iterator[tuple[str, str]]:
    if config.residual_updown:
        yield from _residual(ours, theirs, skip=False)
    else:
        yield from _both(f"{ours}.conv", f"{theirs}.{conv}")


def _is_projection(theirs: str) -> bool:
    return theirs.endswith((".qkv.weight", ".proj_out.weight"))


def _halves(state: Mapping[str, Tensor], index: int, blocks: int, count: int) -> bool:
    """Whether an encoder block halves the resolution: the levels repeat the number of blocks of the first.

    For the first level that number is the largest whose halving block leaves as many decoder blocks as there are.
    """
    encoders = 1 + max(int(m[1]) for k in state if (m := re.match(r"input_blocks\.(\d+)\.", k)))
    if not blocks:
        # n levels of b blocks: 1 + n b + n - 1 encoder blocks and as many decoder blocks, n (b + 1).
        # The first block with a skip convolution, or the channel counts, bound b; try the smallest that fits.
        for b in range(1, encoders):
            if encoders % (b + 1) == 0 and _fits(state, b, encoders // (b + 1)):
                return count == b
        raise ValueError("the encoder has no regular levels")
    return count == blocks


def _fits(state: Mapping[str, Tensor], blocks: int, levels: int) -> bool:
    """Whether the decoder's up-sampling stands at the end of each level of ``blocks`` + 1 blocks."""
    ends = {
        int(m[1])
        for k in state
        if (m := re.match(r"output_blocks\.(\d+)\.(\d)\.(in_layers\.2|conv)\.weight", k))
        and int(m[2]) > 0
    }
    return ends == {(level + 1) * (blocks + 1) - 1 for level in range(levels - 1)}
