"""One number for each image, brought beside all its channels and positions."""

from __future__ import annotations

from torch import Tensor


def expand(values: Tensor, like: Tensor) -> Tensor:
    """``values`` with further axes of length 1 behind its own, as many axes as ``like``: (B,) as (B, 1, 1, ...)."""
    return values.reshape(*values.shape, *[1] * (like.ndim - values.ndim))
