"""Group normalization and SiLU of channels-last activations on the CPU, a piece at a time.

torch's own channels-last kernels are slow in bfloat16, keep three tensors for the backward pass where one is enough,
and end the process where the input needs no gradient (torch 2.13). What this saves: docs/explanation/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .memory_format import channels_last, in_channels_last

PIECE = 1 << 17
"""Numbers that are worked on together: a few float32 copies of them stay in the cache of a core (1 to 2 MiB)."""
LANE = 512
"""Numbers of a row in the inner loops: several positions of few channels are taken for one."""
SAMPLE = 15
"""Positions, about, from which a mean is guessed before it is known."""
MANY = {torch.float32: 1 << 17, torch.bfloat16: 1 << 16}
"""Numbers above which pieces beat the native kernel, measured; below, the calls cost more than the work."""


def prefers_pieces(x: Tensor) -> bool:
    """Whether the native kernels are slow for ``x`` or fail: eager, on the CPU, in channels-last order, not small."""
    fails = torch.is_grad_enabled() and not x.requires_grad
    return runs_channels_last(x) and (fails or x.numel() > MANY.get(x.dtype, 0))


def runs_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is worked on eagerly, on the CPU, in channels-last order alone."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return in_channels_last(x)


def silu_of_norm(
    x: Tensor, gain: Tensor, offset: Tensor, *, groups: int, eps: float, silu: bool
) -> Tensor:
    """``silu(normalized x * gain + offset)``, where ``prefers_pieces`` holds.

    Args:
        x: (B, C, *S).
        gain: (B, C), float32.
        offset: (B, C), float32.
        groups: Of channels that share mean and variance.
        eps: Added to the variance.
        silu: Whether the SiLU follows.
    """
    return cast(Tensor, _Pieces.apply(x, gain, offset, groups, eps, silu))  # type: ignore[no-untyped-call]


class _Pieces(torch.autograd.Function):
    """See ``silu_of_norm``; keeps ``x`` alone for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        rows, near = _rows(x), _near_mean(x)
        wide_near = _wide(near, rows)
        # Of the squares of x itself the square of a large mean would leave nothing but rounding.
        total = torch.zeros(2, len(x), rows.shape[2])
        for (part,) in _pieces(rows):
            apart = part - wide_near
            total[0] += apart.sum(1)
            total[1] += apart.square_().sum(1)
        rest, square = _by_channel(total, x) / x[0, 0].numel()
        centers = near + rest
        mean = _over_groups(centers, groups)
        variance = _over_groups(square - rest**2 + (centers - mean) ** 2, groups)
        inverse_std = variance.clamp(min=0).add(eps).rsqrt()
        ctx.save_for_backward(x, gain, offset, mean, inverse_std)
        ctx.groups, ctx.silu = groups, silu
        slope = gain * inverse_std
        wide_slope, intercept = _wide(slope, rows), _wide(offset - slope * mean, rows)
        result = torch.empty_like(x)
        for part, out in _pieces(rows, _rows(result)):
            h = torch.addcmul(intercept, part.float(), wide_slope)
            out.copy_(F.silu(h, inplace=True) if silu else h)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, inverse_std = ctx.saved_tensors
        rows, grads = _rows(x), _rows(grad.contiguous(memory_format=channels_last(x.ndim - 2)))
        slope = gain * inverse_std
        wide_slope, intercept = _wide(slope, rows), _wide(offset - slope * mean, rows)

        def before_silu(values: Tensor, upstream: Tensor) -> Tensor:
            if not ctx.silu:
                return upstream.float()
            h = torch.addcmul(intercept, values, wide_slope)
            return torch.ops.aten.silu_backward(upstream.float(), h)  # type: ignore[no-any-return]

        # Sums over positions of the gradient, and of the gradient times x.
        total = torch.zeros(2, len(x), rows.shape[2])
        for part, upstream in _pieces(rows, grads):
            values = part.float()
            inner = before_silu(values, upstream)
            total[0] += inner.sum(1)
            total[1] += (inner * values).sum(1)
        grad_offset, product = _by_channel(total, x)
        grad_gain = inverse_std * (product - mean * grad_offset)
        # The mean and the variance depend on x as well.
        along = torch.stack([gain * grad_offset, gain * grad_gain])
        by_mean, by_variance = _over_groups(along, ctx.groups) / x[0, 0].numel()
        slant = -(inverse_std**2) * by_variance
        wide_slant, rest = _wide(slant, rows), _wide(-slant * mean - inverse_std * by_mean, rows)
        result = torch.empty_like(x)
        for part, upstream, out in _pieces(rows, grads, _rows(result)):
            values = part.float()
            through_moments = torch.addcmul(rest, values, wide_slant)
            out.copy_(through_moments.addcmul_(before_silu(values, upstream), wide_slope))
        return result, grad_gain, grad_offset, None, None, None


def _rows(x: Tensor) -> Tensor:
    """A channels-last (B, C, *S) as a view (B, R, W), with W some positions of all channels."""
    positions, channels = x[0, 0].numel(), x.shape[1]
    together = 1 << max(0, (LANE // channels).bit_length() - 1)
    return x.movedim(1, -1).view(len(x), -1, channels * math.gcd(positions, together))


def _pieces(*rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of (B, R, W), some rows of all images at a time."""
    step = max(1, PIECE // rows[0][:, 0].numel())
    return zip(*(each.split(step, 1) for each in rows), strict=True)


def _near_mean(x: Tensor) -> Tensor:
    """About the mean of each channel, from a few positions: float32 (B, C)."""
    positions = x.movedim(1, -1).flatten(1, -2)
    return positions[:, :: max(1, positions.shape[1] // SAMPLE)].float().mean(1)


def _by_channel(sums: Tensor, x: Tensor) -> Tensor:
    """Sums (2, B, W) as sums (2, B, C)."""
    result: Tensor = sums.unflatten(2, (-1, x.shape[1])).sum(2)
    return result


def _over_groups(channels: Tensor, groups: int) -> Tensor:
    """The mean over each group of channels, at every channel of it: (..., C) to (..., C)."""
    grouped = channels.unflatten(-1, (groups, -1))
    result: Tensor = grouped.mean(-1, keepdim=True).expand_as(grouped).flatten(-2)
    return result


def _wide(channels: Tensor, rows: Tensor) -> Tensor:
    """(B, C) repeated to fit rows (B, R, W): (B, 1, W)."""
    return channels.repeat(1, rows.shape[2] // channels.shape[1])[:, None]
