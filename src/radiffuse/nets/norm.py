"""Group normalization, modulation by the time and SiLU: what stands before every convolution of the U-Net."""

from __future__ import annotations

import sys
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ..errors import first_line, is_out_of_memory
from .channels_last_norm import prefers_pieces, runs_channels_last, silu_of_norm
from .memory_format import in_channels_last

USED: set[str] = set()
"""Whose kernels have normalized since it was emptied, what was compiled aside: ``torch``, ``triton`` (of
``triton_norm``) and ``pieces`` (of ``channels_last_norm``)."""
FAR = 4.0
"""Standard deviations from 0 up to which torch's channels-last kernel of the processor may find a mean: there the
variance, a difference of squares, is off by 2 * 10^-4, at 16 by .003, at 100 by .15."""


class Norm(nn.GroupNorm):
    """Group normalization, scale and shift, SiLU where there is to be one.

    The number of groups is the largest divisor of the channels up to ``num_groups``. Statistics are in float32; the
    result has the type and the memory format of the input.
    """

    def __init__(
        self, channels: int, num_groups: int, *, silu: bool = True, eps: float = 1e-5
    ) -> None:
        groups = max(g for g in range(1, min(num_groups, channels) + 1) if channels % g == 0)
        super().__init__(groups, channels, eps)
        self.silu = silu

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Normalize (B, C, *S), and apply ``* (1 + scale) + shift``, (B, C) each, where they are given."""
        if prefers_pieces(x):
            USED.add("pieces")
            gain, offset = self._gain_and_offset(len(x), scale, shift)
            return silu_of_norm(
                x, gain, offset, groups=self.num_groups, eps=self.eps, silu=self.silu
            )
        if prefers_triton(x):
            from . import triton_norm

            USED.add("triton")
            return triton_norm.silu_of_norm(
                x, self.weight, self.bias, scale, shift,
                groups=self.num_groups, eps=self.eps, silu=self.silu,
            )  # fmt: skip
        if not torch.compiler.is_compiling():
            USED.add("torch")
        h = self._normalize(x)
        if scale is not None and shift is not None:
            shape = (*scale.shape, *(1,) * (x.ndim - 2))
            h = torch.addcmul(
                shift.to(h.dtype).reshape(shape), h, 1 + scale.to(h.dtype).reshape(shape)
            )
        return F.silu(h) if self.silu else h

    def _gain_and_offset(
        self, images: int, scale: Tensor | None, shift: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What multiplies and what is added after normalizing: float32 (B, C) each."""
        gain, offset = self.weight[None].float(), self.bias[None].float()
        if scale is not None and shift is not None:
            factor = 1 + scale.float()
            gain, offset = gain * factor, offset * factor + shift.float()
        return gain.expand(images, -1), offset.expand(images, -1)

    def _normalize(self, x: Tensor) -> Tensor:
        if x.is_cuda and x.dtype != self.weight.dtype:
            # CUDA autocast would compute in float32 and hand float32 on; the kernel wants one type.
            with torch.autocast("cuda", enabled=False):
                weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
                return F.group_norm(x, self.num_groups, weight, bias, self.eps)
        if not (runs_channels_last(x) and x.dtype == self.weight.dtype == torch.float32):
            return super().forward(x)
        (images, channels), count = x.shape[:2], x[0, 0].numel()
        h, mean, inverse_std = torch.native_group_norm(
            x, self.weight, self.bias, images, channels, count, self.num_groups, self.eps
        )
        if float((mean * inverse_std).detach().abs().amax()) <= FAR:
            return h
        # Of what is left once the mean is taken away, the difference is exact; the result does not depend on it.
        about = mean.detach().repeat_interleave(channels // self.num_groups, 1)
        return super().forward(x - about.reshape(images, channels, *(1,) * (x.ndim - 2)))


def prefers_triton(x: Tensor) -> bool:
    """Whether ``x`` is normalized by the kernels of ``triton_norm``: eager, on a CUDA card, in channels-last order."""
    if not x.is_cuda or torch.compiler.is_compiling():
        return False
    return in_channels_last(x) and _triton_works(x.device)


@cache
def _triton_works(device: torch.device) -> bool:
    """Whether kernels can be compiled there and give what torch's give; a line says so where they do not."""
    try:
        _verify_triton(device)
    # No Triton, no C compiler, too old a card: whatever it is, torch has a way that works.
    except Exception as error:
        if is_out_of_memory(error):
            raise  # says nothing about the kernels
        line = f"radiffuse: {device}: Triton does not work there ({first_line(error)})"
        print(f"{line}; torch's slower kernels normalize", file=sys.stderr)
        return False
    return True


def _verify_triton(device: torch.device) -> None:
    """Hold values and gradients against torch's.

    This runs within the first forward pass of a network: what that does with tensors that are saved (activation
    checkpointing counts them), with gradients and with types must not reach it.
    """
    from .triton_norm import silu_of_norm

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        saved_tensors_hooks(lambda saved: saved, lambda saved: saved),
    ):
        x = (2 + 1.7 * torch.arange(2 * 48 * 9 * 7, device=device)).cos().reshape(2, 48, 9, 7)
        x = x.contiguous(memory_format=torch.channels_last)
        ours, theirs = (x.clone().requires_grad_() for _ in range(2))
        weight, bias = x[0, :, 0, 0].clone(), x[1, :, 0, 0].clone()
        found = silu_of_norm(ours, weight, bias, None, None, groups=16, eps=1e-5, silu=True)
        true = F.silu(F.group_norm(theirs, 16, weight, bias, 1e-5))
        slopes = (torch.autograd.grad(h, of, x)[0] for h, of in ((found, ours), (true, theirs)))
        torch.testing.assert_close(found, true, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)
