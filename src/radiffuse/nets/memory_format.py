"""The order of a tensor's axes in memory, for two and three spatial axes."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(spatial_dims: int) -> torch.memory_format:
    """The channels-last memory format for inputs and ``network.to(memory_format=...)``."""
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d


def in_channels_last(x: Tensor) -> bool:
    """Whether (B, C, *S) is in channels-last order alone: of a single channel or place both orders are the same."""
    last = x.is_contiguous(memory_format=channels_last(x.ndim - 2))
    return last and not x.is_contiguous()


def order_of(x: Tensor) -> torch.memory_format:
    """The order that (B, C, *S) is in: channels-last where both are the same, contiguous where it is in neither."""
    last = channels_last(x.ndim - 2)
    return last if x.is_contiguous(memory_format=last) else torch.contiguous_format
