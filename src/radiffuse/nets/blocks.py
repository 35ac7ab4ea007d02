"""The parts of the U-Net of Dhariwal and Nichol 2021 (arXiv 2105.05233), for two and three spatial dimensions.

Activations are (B, C, *S). Every part keeps the memory format of its input and, under bf16 autocast, its bfloat16, so a
channels-last bf16 network runs without a conversion between its convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import UNetConfig
from .channels_last_norm import runs_channels_last
from .convolution import Convolution2d, Convolution3d
from .norm import Norm

Direction = Literal["down", "up"]
RECOMPUTED = 1 << 19
"""Numbers of a volume above which the input of a convolution is recomputed rather than kept."""


def convolution(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int | Sequence[int] = 1,
) -> nn.Conv2d | nn.Conv3d:
    """A convolution of 2 or 3 spatial dimensions that keeps the size where the stride is 1."""
    kind = Convolution2d if spatial_dims == 2 else Convolution3d
    padding = kernel_size // 2
    steps = stride if isinstance(stride, int) else tuple(stride)
    return kind(in_channels, out_channels, kernel_size, stride=steps, padding=padding)  # type: ignore[arg-type]


MAX_PERIOD = 10_000.0
"""The slowest frequency of ``timestep_embedding``, as 2 pi divided by its period."""


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of the timesteps at geometrically spaced frequencies (Vaswani et al. 2017).

    Args:
        timesteps: (B,) integers or floats, counted in training timesteps.
        width: Length of an embedding; an odd one ends in a zero.

    Returns:
        (B, width) float32.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    frequencies = torch.exp(-math.log(MAX_PERIOD) * exponents)
    angles = timesteps.float()[:, None] * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, width - 2 * half))


def shrink(x: Tensor, step: Sequence[int]) -> Tensor:
    """Averages over neighbors: (B, C, *S) to (B, C, *S/step), with a step of 1 or 2 along each axis."""
    if x.ndim == 4:
        return F.avg_pool2d(x, tuple(step))
    # The CPU's 3D pooling keeps neither channels-last nor bfloat16; pairwise averages keep both.
    for axis in (axis for axis, n in enumerate(step, start=2) if n == 2):
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.lerp(even, odd, 0.5)
    return x


def enlarge(x: Tensor, step: Sequence[int]) -> Tensor:
    """Each element repeated along each spatial axis: (B, C, *S) to (B, C, *S * step)."""
    return F.interpolate(x, scale_factor=[float(n) for n in step], mode="nearest")


def fold(x: Tensor, step: Sequence[int]) -> Tensor:
    """Neighbors as channels ("pixel unshuffle", Shi et al. 2016): (B, C, *S) to (B, C * prod(step), *S/step).

    The channels that one channel becomes follow each other, in the order of the positions in memory.
    """
    dims, split = len(step), x
    for axis in range(dims):
        split = split.unflatten(2 + 2 * axis, (-1, step[axis]))
    places = range(2, 2 + 2 * dims)
    folded: Tensor = split.permute(0, 1, *places[1::2], *places[::2]).flatten(1, 1 + dims)
    return folded


def unfold(x: Tensor, step: Sequence[int]) -> Tensor:
    """Channels as neighbors, which undoes ``fold``: (B, C * prod(step), *S) to (B, C, *S * step)."""
    dims = len(step)
    split = x.unflatten(1, (-1, *step))
    mixed = [axis for k in range(dims) for axis in (2 + dims + k, 2 + k)]
    last = split.permute(0, *mixed, 1)  # channels last, so that such activations stay so
    for axis in range(dims):
        last = last.flatten(1 + axis, 2 + axis)
    result: Tensor = last.movedim(-1, 1)
    return result.contiguous() if x.is_contiguous() else result


class Resample(nn.Module):
    """Less or more resolution by a learned convolution (where ``residual_updown`` is off)."""

    def __init__(
        self, config: UNetConfig, channels: int, direction: Direction, step: Sequence[int]
    ) -> None:
        super().__init__()
        self.direction, self.step = direction, tuple(step)
        stride = step if direction == "down" else 1
        self.conv = convolution(config.spatial_dims, channels, channels, 3, stride)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, *S) to (B, C, *S/step) or (B, C, *S * step); the embedding is not used."""
        result: Tensor = self.conv(x if self.direction == "down" else enlarge(x, self.step))
        return result


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, modulated by the time between them, beside a skip connection.

    Args:
        config: The network that it is part of.
        in_channels: C of the input.
        out_channels: C of the output.
        direction: Reduce or enlarge the resolution, or None.
        step: By how much along each axis, 1 or 2.
    """

    def __init__(
        self,
        config: UNetConfig,
        in_channels: int,
        out_channels: int,
        direction: Direction | None = None,
        step: Sequence[int] = (),
    ) -> None:
        super().__init__()
        dims = config.spatial_dims
        self.direction, self.step = direction, tuple(step)
        self.scale_shift = config.scale_shift_norm
        self.norm1 = Norm(in_channels, config.num_groups, eps=config.norm_eps)
        self.conv1 = convolution(dims, in_channels, out_channels, 3)
        time_channels = 2 * out_channels if config.scale_shift_norm else out_channels
        self.time = nn.Linear(4 * config.width, time_channels)
        self.norm2 = Norm(out_channels, config.num_groups, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.conv2 = convolution(dims, out_channels, out_channels, 3)
        same = in_channels == out_channels
        self.skip = nn.Identity() if same else convolution(dims, in_channels, out_channels, 1)
        zero(self.conv2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C_in, *S) to (B, C_out, *S), *S/step or *S * step; embedding (B, 4 width) has passed its SiLU."""
        if self.direction is None:
            h = convolved(self.norm1, self.conv1, x)
        else:
            resample = shrink if self.direction == "down" else enlarge
            h, x = self.conv1(resample(self.norm1(x), self.step)), resample(x, self.step)
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
    fewer channels has one head; ``heads`` takes precedence. The projection to queries, keys and values is laid out head
    by head, ``(heads, 3, head width)``, as in most released weights of guided-diffusion.
    """

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = config.heads or attention_heads(channels, config.head_channels)
        if channels % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide {channels} channels")
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
    """``layer(norm(x, *modulation))``; for large volumes on the CPU both are recomputed in the backward pass.

    There activations dominate the memory of a training step, and a normalization is little work.
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
    """Set a layer to zero, so that its block is initially the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def redraw(
    layer: nn.Conv2d | nn.Conv3d | nn.Conv1d | nn.Linear, generator: torch.Generator
) -> None:
    """Draw weight and bias again, uniformly within 1 / sqrt(fan in), as PyTorch does by default."""
    bound = 1 / math.sqrt(layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def redraw_all(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions and linear layers again, and reset all group normalizations."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            redraw(module, generator)
        elif isinstance(module, nn.GroupNorm):
            module.reset_parameters()
