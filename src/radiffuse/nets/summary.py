"""The cost of a network, computed on the meta device, without memory for weights or activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import UNetConfig
from .unet import UNet


@dataclass(frozen=True)
class NetworkSummary:
    """Cost of one forward and backward pass.

    Attributes:
        parameters: Number of weights.
        forward_flops: Floating point operations of a forward pass; a training step takes three times as many.
        activation_bytes: Bytes that autograd keeps between the passes, in float32.
        checkpointed_bytes: The same with activation checkpointing: the inputs of all blocks, and the activations of the
            largest block.
        state_bytes: Bytes of weights, gradients, averaged weights and Adam's two moments, in float32.
    """

    parameters: int
    forward_flops: int
    activation_bytes: int
    checkpointed_bytes: int
    state_bytes: int

    def training_bytes(self, *, bfloat16: bool = False, checkpointed: bool = False) -> int:
        """Memory of a training step, without temporary buffers of convolutions.

        Args:
            bfloat16: Mixed precision, which halves the activations and keeps a bfloat16 copy of every weight.
            checkpointed: Whether activations are recomputed in the backward pass.
        """
        activations = self.checkpointed_bytes if checkpointed else self.activation_bytes
        if bfloat16:
            activations = activations // 2 + 2 * self.parameters
        return self.state_bytes + activations

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
            f"forward pass      {flops:.1f} GFLOP (training step {3 * self.forward_flops / 1e9:.1f})\n"
            f"training memory   {plain} GiB estimated in float32: {state:.1f} of weights and optimizer, "
            f"{activations:.1f} of activations\n"
            f"                  {half} GiB with bf16-mixed, {less} with checkpoint_activations, {least} with both"
        )


def summarize(config: UNetConfig, size: Sequence[int], batch_size: int = 1) -> NetworkSummary:
    """Cost of a U-Net for a batch of images of a spatial size.

    Raises:
        ValueError: The network cannot be built or the size does not fit it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = UNet(config)
        images = torch.empty(batch_size, config.in_channels, *size)
        timesteps = torch.zeros(batch_size)
    counter = FlopCounterMode(display=False)
    with counter:
        activations, largest = kept_bytes(network, images, timesteps)
    network.checkpoint_activations = True
    inputs, _ = kept_bytes(network, images, timesteps)
    parameters = sum(p.numel() for p in network.parameters())
    return NetworkSummary(
        parameters=parameters,
        forward_flops=int(counter.get_total_flops()),
        activation_bytes=activations,
        checkpointed_bytes=inputs + largest,
        state_bytes=5 * 4 * parameters,
    )


def kept_bytes(network: UNet, images: Tensor, timesteps: Tensor) -> tuple[int, int]:
    """Bytes that autograd keeps after a forward pass, on any device: in all, and in the block that keeps most.

    Blocks are the units of activation checkpointing.
    """
    weights = {_identity(p) for p in network.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is reused
    before: list[int] = []
    largest = 0

    def remember(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in weights:
            kept[_identity(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    def enter(module: nn.Module, inputs: Any) -> None:
        before.append(sum(kept.values()))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(kept.values()) - before.pop())

    blocks = [*network.down, network.middle, *network.up]
    blocks += [stage.resample for stage in network.up if stage.resample is not None]
    handles = [block.register_forward_pre_hook(enter) for block in blocks]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            network(images, timesteps)
    finally:
        for handle in handles:
            handle.remove()
    return sum(kept.values()), largest


def _identity(tensor: Tensor) -> int:
    """Identity of a tensor's storage: its address, or the object itself on the meta device."""
    storage = tensor.untyped_storage()
    return id(storage) if tensor.is_meta else storage.data_ptr()
