"""Convolutions that stay fast for a single small image on the CPU.

torch 2 sends a float32 convolution of one image with few numbers to a kernel of its own, three to four times as slow
as oneDNN's (``ConvParams::use_mkldnn`` in aten/src/ATen/native/Convolution.cpp). Windows of a volume and 3D patches
come one at a time, so the lower levels of a U-Net would run there. Here they are sent to oneDNN.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .memory_format import order_of

FEW = 20480
"""Numbers of an image, without its last axis, up to which torch takes its own kernel."""


class Convolution2d(nn.Conv2d):
    """``nn.Conv2d`` that takes the fast kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        return convolve(input, self.weight, self.bias, self.stride, self.padding)


class Convolution3d(nn.Conv3d):
    """``nn.Conv3d`` that takes the fast kernel."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C', D', H', W')."""
        return convolve(input, self.weight, self.bias, self.stride, self.padding)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
    """A convolution of (B, C, *S), two or three spatial axes, by (C', C, *K), with zeros beyond the border."""
    if is_small(x):
        if not torch.is_grad_enabled():
            return _onednn(x, weight, bias, stride, padding)
        if _halved_axis(x, weight, stride, padding) is not None:
            result = _SmallConvolution.apply(x, weight, bias, padding)  # type: ignore[no-untyped-call]
            return cast(Tensor, result)
    function = F.conv2d if x.ndim == 4 else F.conv3d
    return function(x, weight, bias, stride, padding)


def is_small(x: Tensor) -> bool:
    """Whether torch would take its own kernel for ``x`` although oneDNN is there: eager, one float32 image."""
    # Compilers first: a question about the batch would tie what they make to its size.
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) == 1
        and x[..., 0].numel() <= FEW
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
    )


class _SmallConvolution(torch.autograd.Function):
    """A convolution of stride 1 of an image for which ``is_small`` holds."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.bias_size = padding, None if bias is None else len(bias)
        return _onednn(x, weight, bias, [1] * len(padding), padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        padding, ones = ctx.padding, [1] * len(ctx.padding)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:  # a convolution of the gradient with the mirrored kernel
            mirrored = weight.flip(tuple(range(2, x.ndim))).transpose(0, 1)
            mirrored = mirrored.contiguous(memory_format=order_of(x))
            grad_x = _onednn(grad, mirrored, None, ones, padding)
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(grad, x, weight, padding)
        if ctx.bias_size is not None and ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, *range(2, x.ndim)))
        return grad_x, grad_weight, grad_bias, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, ...]) -> Tensor:
    """From both halves of the image as a batch of two, which torch leaves to oneDNN."""
    ones, zeros = [1] * len(padding), [0] * len(padding)
    axis = _halved_axis(x, weight, ones, padding)
    assert axis is not None
    half, size, pad = x.shape[axis] // 2, weight.shape[axis], padding[axis - 2]
    padded = F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [pad, pad])
    inputs = torch.cat([padded.narrow(axis, start, half + size - 1) for start in (0, half)])
    grads = torch.cat([grad.narrow(axis, start, half) for start in (0, half)])
    rest = [0 if a == axis else p for a, p in enumerate(padding, start=2)]
    found: Tensor = torch.ops.aten.convolution_backward(
        grads.contiguous(memory_format=order_of(x)), inputs.contiguous(memory_format=order_of(x)),
        weight, None, ones, rest, ones, False, zeros, 1, [False, True, False],
    )[1]  # fmt: skip
    return found


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
    ones = [1] * (x.ndim - 2)
    result: Tensor = torch.ops.aten.mkldnn_convolution(
        x, weight, bias, list(padding), list(stride), ones, 1
    )
    return result


def _halved_axis(x: Tensor, weight: Tensor, stride: Any, padding: Any) -> int | None:
    """The first axis of even extent, where the convolution keeps the size; None where there is none."""
    keeps = all(
        s == 1 and k == 2 * p + 1 for s, k, p in zip(stride, weight.shape[2:], padding, strict=True)
    )
    even = [axis for axis in range(2, x.ndim) if x.shape[axis] % 2 == 0]
    return even[0] if keeps and even else None
