"""Our network for the settings, or the weights, of networks of guided-diffusion, diffusers and MONAI.

Ours is theirs where attention follows every residual block of a level, the time enters as here, and nothing else is
switched on; what differs is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..config import UNetConfig
from ..errors import InputError
from ..nets.blocks import attention_heads

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


def guided_config(
    state: Mapping[str, Tensor], *, heads: int | None = None, head_channels: int | None = None
) -> UNetConfig:
    """The network that the state dict of guided-diffusion's ``UNetModel`` belongs to.

    The weights do not tell the heads of its attention: one of ``heads`` (``num_heads``) and ``head_channels``
    (``num_head_channels``) does.

    Raises:
        ValueError: Not such weights, or those of a network that cannot be built here.
        InputError: Neither ``heads`` nor ``head_channels`` is given, or both.
    """
    stem = state.get("input_blocks.0.0.weight")
    if stem is None or "out.2.weight" not in state or "time_embed.0.weight" not in state:
        raise ValueError("these are not weights of guided-diffusion's UNetModel")
    if (heads is None) == (head_channels is None):
        problem = "are both given" if heads else "are missing, and the weights do not tell them"
        remedy = "Give one of them, as num_heads or num_head_channels was in its training"
        raise InputError("--heads and --head-channels", problem, remedy)
    width = state["time_embed.0.weight"].shape[1]
    blocks, levels = _levels(state)
    first = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    channels = [state[f"{name}.0.out_layers.3.weight"].shape[0] for name in first]
    if any(c % width for c in channels):
        raise ValueError(f"channels are {channels}: here they are multiples of {width}")
    factors = [2**n for n, name in enumerate(first) if f"{name}.1.qkv.weight" in state]
    attending = {channels[-1], *(channels[factor.bit_length() - 1] for factor in factors)}
    parts = heads or head_channels or 1
    if odd := [c for c in attending if c % parts]:
        raise ValueError(f"it attends to {odd[0]} channels, which {parts} does not divide")
    return UNetConfig(
        spatial_dims=stem.ndim - 2,
        in_channels=stem.shape[1],
        out_channels=state["out.2.weight"].shape[0],
        width=width,
        multipliers=tuple(c // width for c in channels),
        blocks=blocks,
        attention_factors=tuple(factors),
        head_channels=head_channels or UNetConfig.head_channels,
        heads=heads,
        scale_shift_norm=state[f"{first[0]}.0.emb_layers.1.weight"].shape[0] == 2 * channels[0],
        residual_updown=not any(name.endswith(".0.op.weight") for name in state),
        # Its down-sampling keeps the first axis of a volume.
        strides=((1, 2, 2),) * (levels - 1) if stem.ndim == 5 else (),
    )


def _levels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Residual blocks of a level, and levels.

    n levels of b blocks are 1 + n b + n - 1 entries of the encoder and as many of the decoder, n (b + 1), of which the
    last of each level but the finest doubles the resolution.
    """
    entries = 1 + max(int(m[1]) for k in state if (m := re.match(r"input_blocks\.(\d+)\.", k)))
    doubling = r"output_blocks\.(\d+)\.[1-9]\.(in_layers\.2|conv)\.weight"
    ends = {int(m[1]) for k in state if (m := re.match(doubling, k))}
    for blocks in range(1, entries):
        if entries % (blocks + 1) == 0:
            levels = entries // (blocks + 1)
            if ends == {(level + 1) * (blocks + 1) - 1 for level in range(levels - 1)}:
                return blocks, levels
    raise ValueError("the encoder has no regular levels")


# ------------------------------------------------------------------------------------------------ internal


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
