"""A second, independent reading of Dhariwal and Nichol's network: plain functions over a state dict in its naming.

It is driven by the names alone: what stands at an index decides what is done, so it shares nothing with ours. In three
dimensions the first axis is never halved nor doubled (``Downsample`` and ``Upsample`` of the published unet.py).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]


def forward(
    state: State,
    x: torch.Tensor,
    t: torch.Tensor,
    head_channels: int | None = None,
    heads: int = 1,
    new_order: bool = False,
) -> torch.Tensor:
    factor = (2, 2) if x.ndim == 4 else (1, 2, 2)
    conv = F.conv2d if x.ndim == 4 else F.conv3d
    width = state["time_embed.0.weight"].shape[1]
    frequency = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = t.float()[:, None] * frequency[None]
    emb = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    emb = F.linear(emb, state["time_embed.0.weight"], state["time_embed.0.bias"])
    emb = F.linear(F.silu(emb), state["time_embed.2.weight"], state["time_embed.2.bias"])

    def norm(h, name):
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def residual(h, name, change=None):
        inner = F.silu(norm(h, f"{name}.in_layers.0"))
        if change == "down":
            pool = F.avg_pool2d if h.ndim == 4 else F.avg_pool3d
            inner, h = pool(inner, factor), pool(h, factor)
        if change == "up":
            inner, h = (F.interpolate(v, scale_factor=factor, mode="nearest") for v in (inner, h))
        weight, bias = (state[f"{name}.in_layers.2.{k}"] for k in ("weight", "bias"))
        inner = conv(inner, weight, bias, padding=1)
        weight, bias = (state[f"{name}.emb_layers.1.{k}"] for k in ("weight", "bias"))
        e = F.linear(F.silu(emb), weight, bias)
        e = e.reshape(*e.shape, *[1] * (h.ndim - 2))
        if e.shape[1] == 2 * inner.shape[1]:
            scale, shift = e.chunk(2, dim=1)
            inner = norm(inner, f"{name}.out_layers.0") * (1 + scale) + shift
        else:
            inner = norm(inner + e, f"{name}.out_layers.0")
        weight, bias = (state[f"{name}.out_layers.3.{k}"] for k in ("weight", "bias"))
        inner = conv(F.silu(inner), weight, bias, padding=1)
        if f"{name}.skip_connection.weight" in state:
            weight, bias = (state[f"{name}.skip_connection.{k}"] for k in ("weight", "bias"))
            h = conv(h, weight, bias)
        return h + inner

    def attention(h, name):
        b, c, *s = h.shape
        flat = h.reshape(b, c, -1)
        tokens = norm(flat, f"{name}.norm")
        qkv = F.conv1d(tokens, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
        n = heads if head_channels is None else c // head_channels
        if new_order:
            q, k, v = (part.reshape(b * n, c // n, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(b * n, 3 * (c // n), -1).split(c // n, dim=1)
        share = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(c // n), dim=-1)
        out = torch.einsum("bts,bcs->bct", share, v).reshape(b, c, -1)
        out = F.conv1d(out, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"])
        return (flat + out).reshape(b, c, *s)

    def has(name):
        return any(key.startswith(f"{name}.") for key in state)

    def module(h, name, change=None):
        if has(f"{name}.in_layers"):
            return residual(h, name, change)
        return attention(h, name)

    h = conv(x, state["input_blocks.0.0.weight"], state["input_blocks.0.0.bias"], padding=1)
    skips, index = [h], 1
    decoder_ups = [
        i
        for i in range(100)
        if has(f"output_blocks.{i}.1.in_layers") or has(f"output_blocks.{i}.2")
    ]
    blocks = decoder_ups[0] if decoder_ups else None
    run = 0
    while has(f"input_blocks.{index}"):
        halve = blocks is not None and run == blocks
        h = module(h, f"input_blocks.{index}.0", "down" if halve else None)
        run = 0 if halve else run + 1
        if has(f"input_blocks.{index}.1"):
            h = attention(h, f"input_blocks.{index}.1")
        skips.append(h)
        index += 1
    for i in range(3):
        h = module(h, f"middle_block.{i}")
    index = 0
    while has(f"output_blocks.{index}"):
        h = torch.cat([h, skips.pop()], dim=1)
        for i in range(3):
            name = f"output_blocks.{index}.{i}"
            if has(name):
                h = module(h, name, "up" if i else None)
        index += 1
    h = F.silu(norm(h, "out.0"))
    return conv(h, state["out.2.weight"], state["out.2.bias"], padding=1)
