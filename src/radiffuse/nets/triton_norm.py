"""Group normalization, modulation and SiLU of channels-last activations on a CUDA card, in one go (Triton).

torch's own kernel turns channels-last activations around and back, and modulation and SiLU pass over memory again: on a
large U-Net in bfloat16 copies, normalization and SiLU took more than half of a step. Here the forward pass reads an
activation twice and writes it once; the backward pass keeps that activation alone. All sums have a fixed order. More:
docs/explanation/performance.md.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# A kernel's arguments are what Triton makes of tensors and numbers; they have no types of Python.

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4096
"""Numbers that a program holds at a time."""
SUMS = 1024
"""Sums that a program adds up at a time: one after another, of a single volume, each would wait for memory."""
PROGRAMS = 1024
"""Programs that a pass is shared out to, at most: a few for each multiprocessor of a large card."""


def silu_of_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """``silu(normalized x * weight + bias)``, with ``* (1 + scale) + shift`` before the SiLU where they are given.

    Args:
        x: (B, C, *S) in channels-last order.
        weight: (C,).
        bias: (C,).
        scale: (B, C), of any type; None: no modulation.
        shift: (B, C), of the type of ``scale``.
        groups: Of channels that share mean and variance.
        eps: Added to the variance.
        silu: Whether the SiLU follows.

    Returns:
        Of the type and in the order of ``x``; all that is in between is float32.
    """
    found = _Fused.apply(x, weight, bias, scale, shift, groups, eps, silu)
    return cast(Tensor, found)


class _Fused(torch.autograd.Function):
    """See ``silu_of_norm``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        rows, (images, places, channels) = _rows(x)
        turns, chunks, tile = _shares(images, places, channels)
        sums = x.new_empty((images, chunks, 2, channels), dtype=torch.float32)
        line = x.new_empty((2, images, channels), dtype=torch.float32)
        moments = x.new_empty((2, images, groups), dtype=torch.float32)
        result = torch.empty_like(x)
        with torch.cuda.device_of(x):
            _sums_of_x[images, chunks](rows, sums, places, channels, turns, **tile)
            _line_of_groups[images, groups](
                rows, sums, weight, bias, scale, shift, line, moments,
                0 if scale is None else scale.stride(0), 0 if shift is None else shift.stride(0),
                images, groups, places, channels // groups, eps, chunks,
                **_of_group(channels // groups), modulated=scale is not None,
            )  # fmt: skip
            _along_the_line[images, chunks](
                rows, line, _rows(result)[0], images, places, channels, turns, **tile, silu=silu
            )
        ctx.save_for_backward(x, weight, bias, scale, line, moments)
        ctx.groups, ctx.silu = groups, silu
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, scale, line, moments = ctx.saved_tensors
        rows, (images, places, channels) = _rows(x)
        upstream = _rows(grad)[0]
        turns, chunks, tile = _shares(images, places, channels)
        groups = ctx.groups
        sums = x.new_empty((images, chunks, 2, channels), dtype=torch.float32)
        through = x.new_empty((2, images, groups), dtype=torch.float32)
        by_weight, by_bias = x.new_empty((2, images, channels), dtype=torch.float32)
        by_scale = by_shift = None
        if scale is not None:
            by_scale, by_shift = x.new_empty((2, images, channels), dtype=scale.dtype)
        result = torch.empty_like(rows)
        with torch.cuda.device_of(x):
            _sums_of_gradient[images, chunks](
                rows, upstream, line, sums, images, places, channels, turns, **tile, silu=ctx.silu
            )
            _gradients_of_groups[images, groups](
                sums, weight, bias, scale, moments, through, by_weight, by_bias, by_scale, by_shift,
                0 if scale is None else scale.stride(0),
                images, groups, places, channels // groups, chunks,
                **_of_group(channels // groups), modulated=scale is not None,
            )  # fmt: skip
            _gradient_of_x[images, chunks](
                rows, upstream, line, through, result,
                images, groups, places, channels, turns, **tile, silu=ctx.silu,
            )  # fmt: skip
        result = result.unflatten(1, x.shape[2:]).movedim(-1, 1)
        by_weight, by_bias = by_weight.sum(0).to(weight.dtype), by_bias.sum(0).to(bias.dtype)
        return result, by_weight, by_bias, by_scale, by_shift, None, None, None


def _rows(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """A tensor (B, C, *S) as (B, P, C) in memory, of all P places; and its size."""
    rows = x.movedim(1, -1).contiguous().flatten(1, -2)
    images, places, channels = rows.shape
    return rows, (images, places, channels)


def _shares(images: int, places: int, channels: int) -> tuple[int, int, dict[str, int]]:
    """How a pass is shared out: turns of each program; programs for each image; places and channels of a turn."""
    wide = triton.next_power_of_2(channels)
    deep = min(max(1, TILE // wide), triton.next_power_of_2(places))
    chunks = min(triton.cdiv(places, deep), max(1, PROGRAMS // images))
    turns = triton.cdiv(places, deep * chunks)
    return turns, triton.cdiv(places, deep * turns), {"deep": deep, "wide": wide}


def _of_group(channels: int) -> dict[str, int]:
    """Channels of a group, and programs whose sums are added up together."""
    wide = triton.next_power_of_2(channels)
    return {"wide": wide, "together": max(1, SUMS // wide)}


@triton.jit
def _tile(chunk, turn, turns, places, channels, deep: tl.constexpr, wide: tl.constexpr):
    """Where the numbers of a turn lie in an image, and which of them there are."""
    place = (chunk * turns + turn) * deep + tl.arange(0, deep)
    channel = tl.arange(0, wide)
    there = (place < places)[:, None] & (channel < channels)[None, :]
    return place.to(tl.int64)[:, None] * channels + channel[None, :], there


@triton.jit
def _read_line(line, image, images, channels, wide: tl.constexpr):
    """Slope and intercept of the channels of an image, each (1, wide)."""
    channel = tl.arange(0, wide)
    line += image * channels + channel
    slope = tl.load(line, channel < channels, 0.0)[None, :]
    return slope, tl.load(line + images * channels, channel < channels, 0.0)[None, :]


@triton.jit
def _before_silu(upstream, values, slope, intercept, silu: tl.constexpr):
    """The gradient by ``h = values * slope + intercept``, for that by ``h * sigmoid(h)``; itself without a SiLU."""
    if silu:
        h = values * slope + intercept
        gate = tl.sigmoid(h)
        upstream *= gate * (1 + h * (1 - gate))
    return upstream


@triton.jit
def _write_sums(sums, first, second, image, chunk, channels, wide: tl.constexpr):
    """Write both sums of a program, one after the other, to ``sums`` (B, chunks, 2, C)."""
    channel = tl.arange(0, wide)
    sums += (image * tl.num_programs(1) + chunk) * 2 * channels + channel
    tl.store(sums, first, channel < channels)
    tl.store(sums + channels, second, channel < channels)


@triton.jit
def _near_means(x, places, channels, channel, mine):
    """About the means of channels of an image, from 4 of its places."""
    place = (1 + tl.arange(0, 4)).to(tl.int64) * places // 5
    values = tl.load(x + place[:, None] * channels + channel[None, :], mine[None, :], 0.0)
    return tl.sum(values.to(tl.float32), 0) / 4


_kernel = triton.jit(do_not_specialize=["images", "places", "turns", "groups", "chunks"])
"""Compiled anew for other types and numbers of channels, not for another size of an image or of a batch."""


@_kernel
def _sums_of_x(x, sums, places, channels, turns, deep: tl.constexpr, wide: tl.constexpr):
    """Sums of x, less about its mean, and of the square of that over the places of a program.

    Of squares of x itself the square of a large mean would leave nothing but rounding.
    """
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x += image * places * channels
    channel = tl.arange(0, wide)
    near = _near_means(x, places, channels, channel, channel < channels)
    first, second = tl.zeros((wide,), tl.float32), tl.zeros((wide,), tl.float32)
    for turn in range(turns):
        at, there = _tile(chunk, turn, turns, places, channels, deep, wide)
        apart = tl.where(there, tl.load(x + at, there, 0.0).to(tl.float32) - near[None, :], 0.0)
        first += tl.sum(apart, 0)
        second += tl.sum(apart * apart, 0)
    _write_sums(sums, first, second, image, chunk, channels, wide)


@triton.jit
def _total(
    sums, image, chunks, channels, channel, mine, wide: tl.constexpr, together: tl.constexpr
):
    """Both sums over the chunks, for the channels of a group."""
    first = tl.zeros((wide,), tl.float32)
    second = tl.zeros((wide,), tl.float32)
    sums += image * chunks * 2 * channels
    for start in range(0, chunks, together):
        chunk = start + tl.arange(0, together)
        there = (chunk < chunks)[:, None] & mine[None, :]
        at = chunk[:, None] * 2 * channels + channel[None, :]
        first += tl.sum(tl.load(sums + at, there, 0.0), 0)
        second += tl.sum(tl.load(sums + channels + at, there, 0.0), 0)
    return first, second


@_kernel
def _line_of_groups(
    x, sums, weight, bias, scale, shift, line, moments, scale_stride, shift_stride,
    images, groups, places, size, eps, chunks,
    wide: tl.constexpr, together: tl.constexpr, modulated: tl.constexpr,
):  # fmt: skip
    """Slope and intercept of channels in ``line`` (2, B, C); mean and 1 / std of groups in ``moments`` (2, B, G)."""
    image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = groups * size
    mine = tl.arange(0, wide) < size
    channel = group * size + tl.arange(0, wide)
    first, second = _total(sums, image, chunks, channels, channel, mine, wide, together)
    near = _near_means(x + image * places * channels, places, channels, channel, mine)
    rest = first / places
    mean = tl.sum(near + rest, 0) / size
    between = tl.where(mine, near + rest - mean, 0.0)
    variance = tl.sum(second / places - rest * rest + between * between, 0) / size
    inverse = 1 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    gain = tl.load(weight + channel, mine, 0.0).to(tl.float32)
    offset = tl.load(bias + channel, mine, 0.0).to(tl.float32)
    if modulated:
        factor = 1 + tl.load(scale + image * scale_stride + channel, mine, 0.0).to(tl.float32)
        gain *= factor
        offset = offset * factor + tl.load(shift + image * shift_stride + channel, mine, 0.0).to(
            tl.float32
        )
    line += image * channels + channel
    tl.store(line, gain * inverse, mine)
    tl.store(line + images * channels, offset - gain * inverse * mean, mine)
    moments += image * groups + group
    tl.store(moments, mean)
    tl.store(moments + images * groups, inverse)


@_kernel
def _along_the_line(
    x, line, result, images, places, channels, turns,
    deep: tl.constexpr, wide: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """``x * slope + intercept``, and its SiLU."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slope, intercept = _read_line(line, image, images, channels, wide)
    x += image * places * channels
    result += image * places * channels
    for turn in range(turns):
        at, there = _tile(chunk, turn, turns, places, channels, deep, wide)
        h = tl.load(x + at, there, 0.0).to(tl.float32) * slope + intercept
        if silu:
            h = h * tl.sigmoid(h)
        tl.store(result + at, h.to(result.dtype.element_ty), there)


@_kernel
def _sums_of_gradient(
    x, upstream, line, sums, images, places, channels, turns,
    deep: tl.constexpr, wide: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient before the SiLU, and of its product with x."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slope, intercept = _read_line(line, image, images, channels, wide)
    x += image * places * channels
    upstream += image * places * channels
    first, second = tl.zeros((wide,), tl.float32), tl.zeros((wide,), tl.float32)
    for turn in range(turns):
        at, there = _tile(chunk, turn, turns, places, channels, deep, wide)
        values = tl.load(x + at, there, 0.0).to(tl.float32)
        inner = tl.load(upstream + at, there, 0.0).to(tl.float32)
        inner = _before_silu(inner, values, slope, intercept, silu)
        first += tl.sum(inner, 0)
        second += tl.sum(inner * values, 0)
    _write_sums(sums, first, second, image, chunk, channels, wide)


@_kernel
def _gradients_of_groups(
    sums, weight, bias, scale, moments, through, by_weight, by_bias, by_scale, by_shift,
    scale_stride, images, groups, places, size, chunks,
    wide: tl.constexpr, together: tl.constexpr, modulated: tl.constexpr,
):  # fmt: skip
    """Gradients of weight and bias by image, (B, C), of scale and shift; and what reaches x through the moments.

    The latter is ``x * slant + rest``, one after the other in ``through`` (2, B, G).
    """
    image, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channels = groups * size
    mine = tl.arange(0, wide) < size
    channel = group * size + tl.arange(0, wide)
    first, second = _total(sums, image, chunks, channels, channel, mine, wide, together)
    mean = tl.load(moments + image * groups + group)
    inverse = tl.load(moments + (images + image) * groups + group)
    by_gain = inverse * (second - mean * first)
    gain = tl.load(weight + channel, mine, 0.0).to(tl.float32)
    at = image * channels + channel
    if modulated:
        factor = 1 + tl.load(scale + image * scale_stride + channel, mine, 0.0).to(tl.float32)
        offset = tl.load(bias + channel, mine, 0.0).to(tl.float32)
        tl.store(
            by_scale + at, (by_gain * gain + first * offset).to(by_scale.dtype.element_ty), mine
        )
        tl.store(by_shift + at, first.to(by_shift.dtype.element_ty), mine)
        tl.store(by_weight + at, by_gain * factor, mine)
        tl.store(by_bias + at, first * factor, mine)
        gain *= factor
    else:
        tl.store(by_weight + at, by_gain, mine)
        tl.store(by_bias + at, first, mine)
    count = 1.0 * places * size
    by_mean = tl.sum(gain * first, 0) / count
    slant = -inverse * inverse * (tl.sum(gain * by_gain, 0) / count)
    through += image * groups + group
    tl.store(through, slant)
    tl.store(through + images * groups, -slant * mean - inverse * by_mean)


@_kernel
def _gradient_of_x(
    x, upstream, line, through, result, images, groups, places, channels, turns,
    deep: tl.constexpr, wide: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    """The gradient before the SiLU times the slope, and what comes through the moments."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slope, intercept = _read_line(line, image, images, channels, wide)
    channel = tl.arange(0, wide)
    here = channel < channels
    through += image * groups + channel // (channels // groups)
    slant = tl.load(through, here, 0.0)[None, :]
    rest = tl.load(through + images * groups, here, 0.0)[None, :]
    x += image * places * channels
    upstream += image * places * channels
    result += image * places * channels
    for turn in range(turns):
        at, there = _tile(chunk, turn, turns, places, channels, deep, wide)
        values = tl.load(x + at, there, 0.0).to(tl.float32)
        inner = tl.load(upstream + at, there, 0.0).to(tl.float32)
        inner = _before_silu(inner, values, slope, intercept, silu)
        tl.store(
            result + at, (inner * slope + values * slant + rest).to(result.dtype.element_ty), there
        )
