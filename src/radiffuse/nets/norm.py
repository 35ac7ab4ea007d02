"""Group normalization, modulation by the time and SiLU as one operation."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Norm(nn.GroupNorm):
    """Group normalization, scale and shift, SiLU: what stands before every convolution of the U-Net.

    The number of groups is the largest divisor of the channels up to ``num_groups``. Statistics are in float32;
    the result has the type and the memory format of the input.

    Args:
        channels: C.
        num_groups: Most groups.
        silu: Whether a SiLU follows.
        eps: Added to the variance.
    """

    def __init__(
        self, channels: int, num_groups: int, *, silu: bool = True, eps: float = 1e-5
    ) -> None:
        groups = max(g for g in range(1, num_groups + 1) if channels % g == 0)
        super().__init__(groups, channels, eps)
        self.silu = silu

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Normalizes, and applies ``* (1 + scale) + shift`` where they are given.

        Args:
            x: (B, C, *S).
            scale: (B, C) or None.
            shift: (B, C), given with ``scale``.
        """
        if prefers_channel_sums(x):
            gain, offset = self.weight[None].float(), self.bias[None].float()
            if scale is not None and shift is not None:
                factor = 1 + scale.float()
                gain, offset = gain * factor, offset * factor + shift.float()
            gain, offset = gain.expand(len(x), -1), offset.expand(len(x), -1)
            result = _ChannelsLastNorm.apply(  # type: ignore[no-untyped-call]
                x, gain, offset, self.num_groups, self.eps, self.silu
            )
            return cast(Tensor, result)
        h = self._normalize(x)
        if scale is not None and shift is not None:
            spread = (*scale.shape, *(1,) * (x.ndim - 2))
            h = torch.addcmul(
                shift.to(h.dtype).reshape(spread), h, 1 + scale.to(h.dtype).reshape(spread)
            )
        return F.silu(h) if self.silu else h

    def _normalize(self, x: Tensor) -> Tensor:
        if x.is_cuda and x.dtype != self.weight.dtype:
            # CUDA autocast would compute in float32 and hand float32 on; the kernel wants one type.
            with torch.autocast("cuda", enabled=False):
                weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
                return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        return super().forward(x)


def prefers_channel_sums(x: Tensor) -> bool:
    """Whether the native kernels are slow for ``x``: eager, on the CPU, in channels-last order.

    There the native backward of bfloat16 takes up to fifty times as long as in contiguous order.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    order = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=order) and not x.is_contiguous()


class _ChannelsLastNorm(torch.autograd.Function):
    """``silu(normalized x * gain + offset)`` by sums per channel, which are fast in channels-last order.

    Keeps only ``x`` for the backward pass, which computes the rest again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        values = x.float()
        axes = tuple(range(2, x.ndim))
        mean = _group_mean(values.mean(axes), groups)
        square = _group_mean((values * values).mean(axes), groups)
        inverse_std = (square - mean * mean).clamp(min=0).add(eps).rsqrt()
        ctx.save_for_backward(x, gain, offset, mean, inverse_std)
        ctx.groups, ctx.silu = groups, silu
        h = _affine(values, gain * inverse_std, offset - gain * inverse_std * mean)
        return (F.silu(h, inplace=True) if silu else h).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, inverse_std = ctx.saved_tensors
        values, grad = x.float(), grad.float()
        slope = gain * inverse_std
        if ctx.silu:
            h = _affine(values, slope, offset - slope * mean)
            grad = torch.ops.aten.silu_backward(grad, h)
        axes = tuple(range(2, x.ndim))
        # Sums over positions of grad and of grad times the normalized x, per image and channel.
        grad_offset = grad.sum(axes)
        grad_gain = inverse_std * ((grad * values).sum(axes) - mean * grad_offset)
        # The mean and the variance depend on x as well: their share, per image and group.
        share = inverse_std * _group_mean(gain * grad_offset, ctx.groups) / x[0, 0].numel()
        slant = inverse_std**2 * _group_mean(gain * grad_gain, ctx.groups) / x[0, 0].numel()
        grad_x = _affine(values, -slant, slant * mean - share)
        grad_x.addcmul_(grad, slope.reshape(*slope.shape, *(1,) * len(axes)))
        return grad_x.to(x.dtype), grad_gain, grad_offset, None, None, None


def _group_mean(channels: Tensor, groups: int) -> Tensor:
    """The mean over each group of channels, at every channel of it: (B, C) to (B, C)."""
    grouped = channels.unflatten(1, (groups, -1))
    result: Tensor = grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)
    return result


def _affine(x: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """``x * slope + intercept`` with slope and intercept (B, C)."""
    spread = (*slope.shape, *(1,) * (x.ndim - 2))
    return torch.addcmul(intercept.reshape(spread), x, slope.reshape(spread))
