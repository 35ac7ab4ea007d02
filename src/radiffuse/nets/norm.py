"""Group normalization, modulation by the time and SiLU: what stands before every convolution of the U-Net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .channels_last_norm import prefers_pieces, silu_of_norm


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
            gain, offset = self._gain_and_offset(len(x), scale, shift)
            return silu_of_norm(
                x, gain, offset, groups=self.num_groups, eps=self.eps, silu=self.silu
            )
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
        return super().forward(x)
