"""The parts of the U-Net of Dhariwal and Nichol 2021 (arXiv 2105.05233), for two and three spatial dimensions.

Activations are (B, C, *S). Every part keeps the memory format and, under bf16 autocast, the bfloat16 of what it
is given, so that a channels-last bf16 network runs without a single conversion between its convolutions.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from radiffuse.config import UNetConfig

from .channels_last_norm import runs_channels_last
from .convolution import Convolution2d, Convolution3d
from .norm import Norm

Direction = Literal["down", "up"]
RECOMPUTED = 1 << 19
"""Numbers of a volume above which what a convolution reads is computed again rather than kept."""


def convolution(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Conv2d | nn.Conv3d:
    """A convolution of 2 or 3 spatial dimensions that keeps the size where the stride is 1."""
    kind = Convolution2d if spatial_dims == 2 else Convolution3d
    padding = kernel_size // 2
    return kind(in_channels, out_channels, kernel_size, stride=stride, padding=padding)


def channels_last(spatial_dims: int) -> torch.memory_format:
    """The channels-last memory format for inputs and ``network.to(memory_format=...)``."""
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d


def timestep_embedding(timesteps: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines, then sines, of the timesteps at geometrically spaced frequencies (Vaswani et al. 2017).

    Args:
        timesteps: (B,) integers or floats, counted in training timesteps.
        width: Length of an embedding; an odd one ends in a zero.
        max_period: Slowest frequency, as 2 pi divided by its period.

    Returns:
        (B, width) float32.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    frequencies = torch.exp(-math.log(max_period) * exponents)
    angles = timesteps.float()[:, None] * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, width - 2 * half))


def halve(x: Tensor) -> Tensor:
    """Average of each 2 x 2 (x 2) neighborhood: (B, C, *S) to (B, C, *S/2)."""
    if x.ndim == 4:
        return F.avg_pool2d(x, 2)
    # The 3D pooling of the CPU leaves channels-last and bfloat16 behind; pairwise averages keep both.
    for axis in (2, 3, 4):
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.lerp(even, odd, 0.5)
    return x


def double(x: Tensor) -> Tensor:
    """Each element repeated along every spatial axis: (B, C, *S) to (B, C, *2S)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class Resample(nn.Module):
    """Half or twice the resolution by a learned convolution (where ``residual_updown`` is off)."""

    def __init__(self, config: UNetConfig, channels: int, direction: Direction) -> None:
        super().__init__()
        self.direction = direction
        stride = 2 if direction == "down" else 1
        self.conv = convolution(config.spatial_dims, channels, channels, 3, stride)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, *S) to (B, C, *S/2) or (B, C, *2S); the embedding is not used."""
        result: Tensor = self.conv(x if self.direction == "down" else double(x))
        return result


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip, told the time between them.

    Args:
        config: The network this stands in.
        in_channels: C of the input.
        out_channels: C of the output.
        direction: Halve or double the resolution on the way, or None.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        direction: Direction | None = None,
    ) -> None:
        super().__init__()
        dims = config.spatial_dims
        self.direction = direction
        self.scale_shift = config.scale_shift_norm
        self.norm1 = Norm(in_channels, config.num_groups, eps=config.norm_eps)
        self.conv1 = convolution(dims, in_channels, out_channels, 3)
        time_channels = 2 * out_channels if config.scale_shift_norm else out_channels
        self.time = nn.Linear(4 * config.width, time_channels)
        self.norm2 = Norm(out_channels, config.num_groups, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.conv2 = convolution(dims, out_channels, out_channels, 3)
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else convolution(dims, in_channels, out_channels, 1)
        )
        zero(self.conv2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C_in, *S) to (B, C_out, *S), *S/2 or *2S; embedding (B, 4 width) has passed its SiLU."""
        if self.direction is None:
            h = convolved(self.norm1, self.conv1, x)
        else:
            resample = halve if self.direction == "down" else double
            h, x = self.conv1(resample(self.norm1(x))), resample(x)
        modulation = self.time(embedding)
        if self.scale_shift:
            scale_shift = modulation.chunk(2, dim=1)
        else:
            scale_shift = ()
            h = h + modulation.to(h.dtype).reshape(*modulation.shape, *(1,) * (x.ndim - 2))
        if isinstance(self.dropout, nn.Identity):
            h = convolved(self.norm2, self.conv2, h, *scale_shift)
        else:
            h = self.conv2(self.dropout(self.norm2(h, *scale_shift)))
        return h + (x if isinstance(self.skip, nn.Identity) else pointwise(self.skip, x))


class AttentionBlock(nn.Module):
    """Every position attends to every other, with a residual.

    Channels per head are ``head_channels``, or the next larger number that divides the channels; a block with
    fewer channels has one head. The projection to queries, keys and values is laid out head by head,
    ``(heads, 3, head width)``, as in the released weights of guided-diffusion.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = attention_heads(channels, config.head_channels)
        self.norm = Norm(channels, config.num_groups, silu=False, eps=config.norm_eps)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) to the same shape."""
        tokens = (
            self.norm(x).flatten(2).transpose(1, 2)
        )  # (B, N, C), a view of a channels-last tensor
        qkv = self.qkv(tokens).unflatten(2, (self.heads, 3, -1))
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # (B, heads, N, head width)
        attended = F.scaled_dot_product_attention(query, key, value)
        result = self.out(attended.transpose(1, 2).flatten(2))
        mixed: Tensor = x + result.transpose(1, 2).reshape(x.shape)
        return mixed


def convolved(norm: Norm, layer: nn.Conv2d | nn.Conv3d, x: Tensor, *modulation: Tensor) -> Tensor:
    """``layer(norm(x, *modulation))``; of large volumes on the CPU both are computed again in the backward pass.

    There activations are most of the memory of a training step, and a normalization is little work.
    """
    large = x.ndim == 5 and x.numel() > RECOMPUTED and runs_channels_last(x)
    if not (large and torch.is_grad_enabled()):
        return cast(Tensor, layer(norm(x, *modulation)))

    def both(x: Tensor, *modulation: Tensor) -> Tensor:
        return cast(Tensor, layer(norm(x, *modulation)))

    result = checkpoint(both, x, *modulation, use_reentrant=False, preserve_rng_state=False)
    return cast(Tensor, result)


def attention_heads(channels: int, head_channels: int) -> int:
    """Number of heads: ``channels / head_channels``, or the next smaller number that divides the channels."""
    most = max(1, channels // head_channels)
    return max(heads for heads in range(1, most + 1) if channels % heads == 0)


def pointwise(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """A 1x1 convolution, as a matrix product where channels come last: without that, one thread takes a slow path."""
    if not runs_channels_last(x):
        return cast(Tensor, layer(x))
    return F.linear(x.movedim(1, -1), layer.weight.flatten(1), layer.bias).movedim(-1, 1)


def zero(layer: nn.Conv2d | nn.Conv3d | nn.Linear) -> None:
    """Sets a layer to zero, so that at first its block passes its input through."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def redraw(
    layer: nn.Conv2d | nn.Conv3d | nn.Conv1d | nn.Linear, generator: torch.Generator
) -> None:
    """Draws weight and bias anew, uniformly within 1 / sqrt(fan in), as PyTorch does by default."""
    bound = 1 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
