"""The cost of a network, in closed form: nothing is built, so that a planner may ask for many networks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..config import UNetConfig
from .blocks import RECOMPUTED
from .channels_last_norm import MANY
from .unet import fine_channels, verify_config

Kernels = Literal["cpu", "cuda"]
"""Whose normalization: on the CPU in pieces, which keep one tensor for the backward pass where torch's keep two."""


TRAINING, PASSING, KERNELS_BYTES = 1.15, 1.3, 20 << 20
"""What the allocator takes for a byte of activations, with and without gradients, and the bytes of a network's kernels;
measured on a CPU, see results/memory.csv."""


@dataclass(frozen=True)
class Layer:
    """A block of the network: residual, resampling convolution, or attention.

    Attributes:
        kind: Of block.
        inputs: Channels that it takes.
        outputs: Channels that it gives.
        before: Positions of an image that it takes.
        after: Positions that it gives.
        begins: Whether a unit of activation checkpointing begins with it.
    """

    kind: Literal["residual", "resample", "attention"]
    inputs: int
    outputs: int
    before: int
    after: int
    begins: bool = True


@dataclass(frozen=True)
class NetworkSummary:
    """Cost of one forward and backward pass.

    Attributes:
        parameters: Number of weights.
        forward_flops: Floating point operations of a forward pass; a training step takes three times as many.
        activation_bytes: Bytes that autograd keeps between the passes, in float32.
        checkpointed_bytes: The same with activation checkpointing: the inputs of all blocks, and the activations of the
            largest block.
        transient_bytes: Bytes that come and go in the backward pass beside them, in float32: gradients of the largest
            block, and copies in the layout of the kernels.
        passing_bytes: Bytes of a pass without gradients in float32: skip connections, and the largest block.
        state_bytes: Bytes of weights, gradients, averaged weights and Adam's two moments, in float32.
    """

    parameters: int
    forward_flops: int
    activation_bytes: int
    checkpointed_bytes: int
    transient_bytes: int
    passing_bytes: int
    state_bytes: int

    def training_bytes(self, *, bfloat16: bool = False, checkpointed: bool = False) -> int:
        """Memory of a training step.

        Args:
            bfloat16: Mixed precision, which halves the activations and keeps a bfloat16 copy of every weight.
            checkpointed: Whether activations are recomputed in the backward pass.
        """
        activations = self.checkpointed_bytes if checkpointed else self.activation_bytes
        activations = int(TRAINING * (activations + self.transient_bytes))
        if bfloat16:
            activations = activations // 2 + 2 * self.parameters
        return self.state_bytes + activations

    def prediction_bytes(self, *, bfloat16: bool = False) -> int:
        """Memory of a pass without gradients, weights included."""
        extra = int(PASSING * self.passing_bytes)
        extra = extra // 2 + 2 * self.parameters if bfloat16 else extra
        return 4 * self.parameters + extra + KERNELS_BYTES

    def __str__(self) -> str:
        """A few lines for a person."""
        mixed, again = {"bfloat16": True}, {"checkpointed": True}
        plain, half, less, least = (
            f"{self.training_bytes(**chosen) / 2**30:.1f}"
            for chosen in ({}, mixed, again, mixed | again)
        )
        flops = self.forward_flops / 1e9
        state, activations = self.state_bytes / 2**30, self.activation_bytes / 2**30
        return (
            f"parameters        {self.parameters / 1e6:.1f} M\n"
            f"forward pass      {flops:.1f} GFLOP (10^9 operations); a training step {3 * flops:.1f}\n"
            f"training memory   {plain} GiB estimated in float32: {state:.1f} of weights and optimizer, "
            f"{activations:.1f} of activations\n"
            f"                  {half} GiB with bf16-mixed, {less} with checkpoint_activations, {least} with both"
        )


def summarize(
    config: UNetConfig, size: Sequence[int], batch_size: int = 1, kernels: Kernels = "cuda"
) -> NetworkSummary:
    """Cost of a U-Net for a batch of images of a spatial size; takes microseconds.

    ``kernels`` are those of the device that computes.

    Raises:
        ValueError: The network cannot be built or the size does not fit it.
    """
    verify_config(config)
    if len(size) != config.spatial_dims or any(
        n % m for n, m in zip(size, config.size_multiple, strict=True)
    ):
        raise ValueError(f"size {tuple(size)}: it must be a multiple of {config.size_multiple}")
    layers = tuple(blocks_of(config, size))
    kept = [_kept(config, layer, batch_size, kernels) for layer in layers]
    inputs = sum(layer.inputs * layer.before for layer in layers if layer.begins)
    units: list[int] = []
    for layer, count in zip(layers, kept, strict=True):
        units = [*units, count] if layer.begins else [*units[:-1], units[-1] + count]
    last, skips = _last_kept(config, math.prod(size)), _skips(config, size)
    spare = max(
        2 * layer.inputs * max(layer.before, layer.after) + layer.outputs * layer.after
        for layer in layers
    )
    if math.prod(config.fold) > 1:
        spare = max(spare, 3 * fine_channels(config) * math.prod(size))
    parameters = sum(_parameters(config, layer) for layer in layers) + _other_parameters(config)
    flops = sum(_flops(config, layer) for layer in layers)
    flops += _other_flops(config, math.prod(size))
    each = 4 * batch_size
    return NetworkSummary(
        parameters=parameters,
        forward_flops=batch_size * flops,
        activation_bytes=each * (sum(kept) + last),
        checkpointed_bytes=each * (inputs + max(units) + last),
        transient_bytes=each * spare,
        passing_bytes=each * (skips + spare),
        state_bytes=5 * 4 * parameters,
    )


def blocks_of(config: UNetConfig, size: Sequence[int]) -> Iterator[Layer]:
    """The blocks of the network for images of a size, in the order in which they are computed."""
    channels = [config.width * m for m in config.multipliers]
    places = [math.prod(size) // math.prod(factor) for factor in config.factors]
    kind: Literal["residual", "resample"] = "residual" if config.residual_updown else "resample"
    skips, last = [channels[0]], len(channels) - 1
    for level, (out, n) in enumerate(zip(channels, places, strict=True)):
        for _ in range(config.blocks):
            yield Layer("residual", skips[-1], out, n, n)
            if config.attends[level]:
                yield Layer("attention", out, out, n, n, begins=False)
            skips.append(out)
        if level < last:
            yield Layer(kind, out, out, n, places[level + 1])
            skips.append(out)
    width, n = channels[-1], places[-1]
    yield Layer("residual", width, width, n, n)
    yield Layer("attention", width, width, n, n, begins=False)
    yield Layer("residual", width, width, n, n, begins=False)
    for level in reversed(range(len(channels))):
        out, n = channels[level], places[level]
        for _ in range(config.blocks + 1):
            yield Layer("residual", width + skips.pop(), out, n, n)
            if config.attends[level]:
                yield Layer("attention", out, out, n, n, begins=False)
            width = out
        if level > 0:
            yield Layer(kind, out, out, n, places[level - 1])


# ------------------------------------------------------------------------------------------------ internal


def _convolution(config: UNetConfig, inputs: int, outputs: int) -> int:
    """Weights of a convolution by a kernel of side 3, without the bias."""
    return int(3**config.spatial_dims) * inputs * outputs


def _parameters(config: UNetConfig, layer: Layer) -> int:
    c, k = layer.inputs, layer.outputs
    if layer.kind == "attention":
        return 2 * c + 3 * c * (c + 1) + c * (c + 1)
    if layer.kind == "resample":
        return _convolution(config, c, k) + k
    modulation = k * (2 if config.scale_shift_norm else 1)
    skip = 0 if c == k else c * k + k
    both = _convolution(config, c, k) + _convolution(config, k, k) + 2 * k
    return 2 * c + 2 * k + both + (4 * config.width + 1) * modulation + skip


def _flops(config: UNetConfig, layer: Layer) -> int:
    """Two for every multiplication and addition of convolutions, linear layers and attention."""
    c, k, n = layer.inputs, layer.outputs, layer.after
    if layer.kind == "attention":
        return 2 * n * 4 * c * c + 4 * n * n * c
    if layer.kind == "resample":
        return 2 * n * _convolution(config, c, k)
    modulation = k * (2 if config.scale_shift_norm else 1)
    weights = _convolution(config, c, k) + _convolution(config, k, k) + (c * k if c != k else 0)
    return 2 * n * weights + 2 * 4 * config.width * modulation


def _kept(config: UNetConfig, layer: Layer, batch: int, kernels: Kernels) -> int:
    """Numbers of an image that autograd keeps of a block, its input included, its output not."""
    c, k, before, after = layer.inputs, layer.outputs, layer.before, layer.after

    def normalized(count: int, copies: int) -> int:
        """The copies that torch's own normalization keeps besides its input."""
        return 0 if kernels == "cpu" and count * batch > MANY[torch.float32] else copies * count

    def convolved(count: int) -> int:
        """The input of a convolution, which is computed again where a volume is large."""
        large = config.spatial_dims == 3 and count * batch > RECOMPUTED
        return 0 if kernels == "cpu" and large else count

    x = c * before
    if layer.kind == "attention":
        return x * (1 + 1 + 3 + 1)  # input, normalized, queries with keys and values, attended
    if layer.kind == "resample":
        return x if after < before else c * after
    inner = normalized(k * after, 2 if config.scale_shift_norm else 1) + k * after
    inner += convolved(k * after) + x + normalized(x, 1)
    if after == before:
        return inner + convolved(x)
    pooled = x if after < before and config.spatial_dims == 2 else 0  # pooling keeps its input
    return inner + pooled + c * after


def _last_kept(config: UNetConfig, whole: int) -> int:
    """Numbers that are kept around the blocks: the input, what enters the last layers, and the loss's."""
    first = config.width * config.multipliers[0] * (whole // math.prod(config.fold))
    fine = 2 * fine_channels(config) * whole if math.prod(config.fold) > 1 else 0
    return (2 * config.in_channels + 2 * config.out_channels) * whole + 3 * first + fine


def _skips(config: UNetConfig, size: Sequence[int]) -> int:
    """Numbers of all skip connections."""
    places = [math.prod(size) // math.prod(factor) for factor in config.factors]
    counts = [config.width * m * n for m, n in zip(config.multipliers, places, strict=True)]
    halved = [config.width * m * n for m, n in zip(config.multipliers, places[1:], strict=False)]
    return counts[0] + config.blocks * sum(counts) + sum(halved)


def _ends(config: UNetConfig) -> dict[str, int]:
    """Weights of convolutions around the blocks, without biases: at the first level's positions, and at the input's."""
    first, fold = config.width * config.multipliers[0], math.prod(config.fold)
    stem = _convolution(config, config.in_channels * fold, first)
    if fold == 1:
        return {"first": stem, "whole": _convolution(config, first, config.out_channels)}
    fine = fine_channels(config)
    whole = _convolution(config, config.in_channels + config.out_channels, fine)
    return {"first": stem + fine * fold * first, "whole": whole}


def _other_parameters(config: UNetConfig) -> int:
    width, first, fold = config.width, config.width * config.multipliers[0], math.prod(config.fold)
    time = 4 * width * (width + 1) + 4 * width * (4 * width + 1)
    biases = first + config.out_channels
    if fold > 1:
        biases += fine_channels(config) * (fold + 1)
    return time + 2 * first + biases + sum(_ends(config).values())


def _other_flops(config: UNetConfig, whole: int) -> int:
    weights, width = _ends(config), config.width
    convolutions = weights["first"] * whole // math.prod(config.fold) + weights["whole"] * whole
    return 2 * convolutions + 2 * (4 * width * width + 16 * width * width)
