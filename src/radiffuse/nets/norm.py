"""Group normalization, modulation by the time and SiLU as one operation."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..distributed import mean_over_ranks, world_size


class Norm(nn.GroupNorm):
    """Group normalization, scale and shift, SiLU: what stands before every convolution of the U-Net.

    The number of groups is the largest divisor of the channels up to ``num_groups``. Statistics are in float32;
    the result has the type and the memory format of the input.

    Args:
        channels: C.
        num_groups: Most groups.
        silu: Whether a SiLU follows.
    """

    def __init__(self, channels: int, num_groups: int, *, silu: bool = True) -> None:
        groups = max(g for g in range(1, num_groups + 1) if channels % g == 0)
        super().__init__(groups, channels)
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


def share_statistics(network: nn.Module) -> None:
    """Let batch normalization see the batch of all processes that train together, as one process would.

    ``torch.nn.SyncBatchNorm`` does it on GPUs alone. The layers keep their parameters, buffers and names.
    """
    if world_size() > 1:
        for module in network.modules():
            if type(module) in _SHARED:
                module.__class__ = _SHARED[type(module)]


def keep_own_statistics(network: nn.Module) -> None:
    """Undo ``share_statistics``."""
    for module in network.modules():
        if isinstance(module, _SharedStatistics):
            module.__class__ = next(k for k, v in _SHARED.items() if v is type(module))


class _SharedStatistics(nn.modules.batchnorm._BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape; moments over B, S and all processes."""
        if not self.training:
            return super().forward(x)
        axes = (0, *range(2, x.ndim))
        values = x.float()
        spread = (1, -1, *(1,) * (x.ndim - 2))
        mean = mean_over_ranks(values.mean(axes))
        values = values - mean.reshape(spread)
        variance = mean_over_ranks(values.square().mean(axes))
        if self.running_mean is not None and self.running_var is not None:
            self._remember(mean.detach(), variance.detach(), world_size() * x.numel() // x.shape[1])
        slope = (variance + self.eps).rsqrt()
        slope = slope if self.weight is None else slope * self.weight
        h = values * slope.reshape(spread)
        return (h if self.bias is None else h + self.bias.reshape(spread)).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(1, count - 1), self.momentum)


class _Shared1d(_SharedStatistics, nn.BatchNorm1d):
    pass


class _Shared2d(_SharedStatistics, nn.BatchNorm2d):
    pass


class _Shared3d(_SharedStatistics, nn.BatchNorm3d):
    pass


_SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _Shared1d,
    nn.BatchNorm2d: _Shared2d,
    nn.BatchNorm3d: _Shared3d,
}
