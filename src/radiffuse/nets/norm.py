"""Group normalization, modulation by the time and SiLU as one operation, and the convolution that follows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..system.distributed import mean_over_ranks, world_size
from .convolution import convolve, convolve_backward

BLOCK = 1 << 17
"""Numbers that are worked on together: a few float32 copies of them stay in the cache of a core (1 to 2 MiB)."""
LANE = 512
"""Numbers of a row in the inner loops: several positions of few channels are taken for one."""
MANY = {torch.float32: 1 << 17, torch.bfloat16: 1 << 16}
"""Numbers above which sums per channel beat the native kernel, measured; below, the calls cost more than the work."""
KEPT = 1 << 19
"""Numbers above which what a convolution reads is computed again rather than kept."""


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
            result = _ChannelsLastNorm.apply(  # type: ignore[no-untyped-call]
                x, *self._gain_and_offset(x, scale, shift), self.num_groups, self.eps, self.silu
            )
            return cast(Tensor, result)
        h = self._normalize(x)
        if scale is not None and shift is not None:
            spread = (*scale.shape, *(1,) * (x.ndim - 2))
            h = torch.addcmul(
                shift.to(h.dtype).reshape(spread), h, 1 + scale.to(h.dtype).reshape(spread)
            )
        return F.silu(h) if self.silu else h

    def into(
        self,
        convolution: nn.Conv2d | nn.Conv3d,
        x: Tensor,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """``convolution(self(x, scale, shift))``, which keeps ``x`` alone for the backward pass where it can.

        What the convolution reads is then computed again. That is a small part of the work of a 3x3 convolution,
        and in three dimensions activations are most of the memory of a training step.

        Args:
            convolution: Of stride 1.
            x: (B, C, *S).
            scale: (B, C) or None.
            shift: (B, C), given with ``scale``.
        """
        if not (prefers_channel_sums(x) and x.numel() > KEPT and torch.is_grad_enabled()):
            return cast(Tensor, convolution(self(x, scale, shift)))
        result = _NormConvolution.apply(  # type: ignore[no-untyped-call]
            x, *self._gain_and_offset(x, scale, shift), convolution.weight, convolution.bias,
            convolution.padding, self.num_groups, self.eps, self.silu,
        )  # fmt: skip
        return cast(Tensor, result)

    def _gain_and_offset(
        self, x: Tensor, scale: Tensor | None, shift: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What multiplies and what is added after normalizing: float32 (B, C) each."""
        gain, offset = self.weight[None].float(), self.bias[None].float()
        if scale is not None and shift is not None:
            factor = 1 + scale.float()
            gain, offset = gain * factor, offset * factor + shift.float()
        return gain.expand(len(x), -1), offset.expand(len(x), -1)

    def _normalize(self, x: Tensor) -> Tensor:
        if x.is_cuda and x.dtype != self.weight.dtype:
            # CUDA autocast would compute in float32 and hand float32 on; the kernel wants one type.
            with torch.autocast("cuda", enabled=False):
                weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
                return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        return super().forward(x)


def prefers_channel_sums(x: Tensor) -> bool:
    """Whether the native kernels are slow for ``x``, or fail: eager, on the CPU, in channels-last order, not small.

    There the native backward of bfloat16 takes up to fifty times as long as in contiguous order, and that of an ``x``
    without gradient, such as what a frozen layer gives, ends the process (torch 2.13).
    """
    if not runs_channels_last(x):
        return False
    fails = torch.is_grad_enabled() and not x.requires_grad
    return fails or x.numel() > MANY.get(x.dtype, 0)


def runs_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is worked on eagerly, on the CPU, in channels-last order alone."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    order = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.is_contiguous(memory_format=order) and not x.is_contiguous()


class _ChannelsLastNorm(torch.autograd.Function):
    """``silu(normalized x * gain + offset)`` by sums per channel, block by block.

    Keeps only ``x`` for the backward pass, which computes the rest again.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, groups: int, eps: float, silu: bool
    ) -> Tensor:
        mean, inverse_std = _statistics(x, groups, eps)
        ctx.save_for_backward(x, gain, offset, mean, inverse_std)
        ctx.groups, ctx.silu = groups, silu
        return _activate(x, gain * inverse_std, offset - gain * inverse_std * mean, silu)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, inverse_std = ctx.saved_tensors
        grads = _norm_backward(
            grad, x, gain, offset, mean, inverse_std, groups=ctx.groups, silu=ctx.silu
        )
        return *grads, None, None, None


class _NormConvolution(torch.autograd.Function):
    """A convolution of stride 1 after the above; keeps only ``x`` as well."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None,
        padding: tuple[int, ...], groups: int, eps: float, silu: bool,
    ) -> Tensor:  # fmt: skip
        mean, inverse_std = _statistics(x, groups, eps)
        ctx.save_for_backward(x, gain, offset, mean, inverse_std, weight)
        ctx.bias_size = None if bias is None else list(bias.shape)
        ctx.padding, ctx.groups, ctx.silu = padding, groups, silu
        h = _activate(x, gain * inverse_std, offset - gain * inverse_std * mean, silu)
        return convolve(h, weight, bias, (1,) * len(padding), padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, offset, mean, inverse_std, weight = ctx.saved_tensors
        h = _activate(x, gain * inverse_std, offset - gain * inverse_std * mean, ctx.silu)
        wanted = [True, ctx.needs_input_grad[3], ctx.needs_input_grad[4]]
        grad_h, grad_weight, grad_bias = convolve_backward(
            grad, h.to(grad.dtype), weight.to(grad.dtype), ctx.bias_size, ctx.padding, wanted
        )
        del h
        assert grad_h is not None
        grads = _norm_backward(
            grad_h, x, gain, offset, mean, inverse_std,
            groups=ctx.groups, silu=ctx.silu, overwrite=True,
        )  # fmt: skip
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(weight.dtype)
        return *grads, grad_weight, grad_bias, None, None, None, None


def _statistics(x: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean, and inverse standard deviation, of the group of each channel: float32 (B, C) each."""
    rows = _rows(x)
    total = torch.zeros(len(x), rows.shape[2])
    square = torch.zeros_like(total)
    for block in _blocks(rows):
        values = rows[block].float()
        total[block[0]] += values.sum(1)
        square[block[0]] += (values * values).sum(1)
    count = x[0, 0].numel()
    mean = _group_mean(_by_channel(total, x) / count, groups)
    variance = _group_mean(_by_channel(square, x) / count, groups) - mean * mean
    return mean, variance.clamp(min=0).add(eps).rsqrt()


def _activate(x: Tensor, slope: Tensor, intercept: Tensor, silu: bool) -> Tensor:
    """``x * slope + intercept``, then SiLU if asked for, with slope and intercept (B, C)."""
    result = torch.empty_like(x)
    rows, out = _rows(x), _rows(result)
    slope, intercept = _spread(slope, rows), _spread(intercept, rows)
    direct = x.dtype == torch.float32
    for block in _blocks(rows):
        h = out[block] if direct else torch.empty(rows[block].shape)
        torch.addcmul(intercept[block[0]], rows[block].float(), slope[block[0]], out=h)
        if silu:
            F.silu(h, inplace=True)
        if not direct:
            out[block] = h
    return result


def _norm_backward(
    grad: Tensor,
    x: Tensor,
    gain: Tensor,
    offset: Tensor,
    mean: Tensor,
    inverse_std: Tensor,
    groups: int,
    silu: bool,
    overwrite: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gain and offset, from that of the result, whose memory may be taken with ``overwrite``."""
    slope = gain * inverse_std
    order = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    grad = grad.contiguous(memory_format=order)
    rows, grads = _rows(x), _rows(grad)
    wide_slope, wide_intercept = _spread(slope, rows), _spread(offset - slope * mean, rows)

    def before_silu(block: tuple[slice, slice], values: Tensor) -> Tensor:
        if not silu:
            return grads[block].float()
        h = torch.addcmul(wide_intercept[block[0]], values, wide_slope[block[0]])
        return torch.ops.aten.silu_backward(grads[block].float(), h)  # type: ignore[no-any-return]

    # In float32 the result holds the gradient before the SiLU until its own value is known.
    direct = x.dtype == torch.float32
    result = grad if direct and overwrite else torch.empty_like(x)
    out = _rows(result)
    # Sums over positions of grad and of grad times the normalized x, per image and channel.
    total = torch.zeros(len(x), rows.shape[2])
    product = torch.zeros_like(total)
    for block in _blocks(rows):
        values = rows[block].float()
        inner = before_silu(block, values)
        if direct:
            out[block] = inner
        total[block[0]] += inner.sum(1)
        product[block[0]] += (inner * values).sum(1)
    grad_offset = _by_channel(total, x)
    grad_gain = inverse_std * (_by_channel(product, x) - mean * grad_offset)
    # The mean and the variance depend on x as well: their share, per image and group.
    count = x[0, 0].numel()
    share = inverse_std * _group_mean(gain * grad_offset, groups) / count
    slant = inverse_std**2 * _group_mean(gain * grad_gain, groups) / count
    wide_slant, wide_rest = _spread(-slant, rows), _spread(slant * mean - share, rows)
    for block in _blocks(rows):
        values = rows[block].float()
        part = torch.addcmul(wide_rest[block[0]], values, wide_slant[block[0]])
        inner = out[block] if direct else before_silu(block, values)
        if direct:
            torch.addcmul(part, inner, wide_slope[block[0]], out=inner)
        else:
            out[block] = part.addcmul_(inner, wide_slope[block[0]])
    return result, grad_gain, grad_offset


def _rows(x: Tensor) -> Tensor:
    """A channels-last (B, C, *S) as a view (B, R, W), with W some positions of all channels."""
    positions, channels = x[0, 0].numel(), x.shape[1]
    together = 1 << max(0, (LANE // channels).bit_length() - 1)
    return x.movedim(1, -1).view(len(x), -1, channels * math.gcd(positions, together))


def _blocks(rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of images and rows that together cover (B, R, W): several images, or a part of one."""
    images, count, width = rows.shape
    if count * width <= BLOCK:
        several = max(1, BLOCK // (count * width))
        for start in range(0, images, several):
            yield slice(start, start + several), slice(None)
        return
    step = max(1, BLOCK // width)
    for image in range(images):
        for start in range(0, count, step):
            yield slice(image, image + 1), slice(start, start + step)


def _by_channel(sums: Tensor, x: Tensor) -> Tensor:
    """Sums (B, W) over rows as sums (B, C)."""
    result: Tensor = sums.unflatten(1, (-1, x.shape[1])).sum(1)
    return result


def _spread(channels: Tensor, rows: Tensor) -> Tensor:
    """(B, C) repeated to fit rows (B, R, W): (B, 1, W)."""
    return channels.repeat(1, rows.shape[2] // channels.shape[1])[:, None]


def _group_mean(channels: Tensor, groups: int) -> Tensor:
    """The mean over each group of channels, at every channel of it: (B, C) to (B, C)."""
    grouped = channels.unflatten(1, (groups, -1))
    result: Tensor = grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)
    return result


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
    own = {shared: kind for kind, shared in _SHARED.items()}
    for module in network.modules():
        if type(module) in own:
            module.__class__ = own[type(module)]


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
