"""What a network costs, worked out on the meta device: no weight and no activation is ever held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import UNetConfig
from .unet import UNet


@dataclass(frozen=True)
class NetworkSummary:
    """Cost of one forward and backward pass.

    Attributes:
        parameters: Number of weights.
        forward_flops: Floating point operations of a forward pass; a training step takes three times as many.
        activation_bytes: Bytes that autograd keeps between the passes, in float32.
        state_bytes: Bytes of weights, gradients, averaged weights and Adam's two moments, in float32.
    """

    parameters: int
    forward_flops: int
    activation_bytes: int
    state_bytes: int

    def __str__(self) -> str:
        """A few lines for a person."""
        return "\n".join(
            [
                f"parameters        {self.parameters / 1e6:.1f} M",
                f"forward pass      {self.forward_flops / 1e9:.1f} GFLOP "
                f"(training step {3 * self.forward_flops / 1e9:.1f})",
                f"training memory   {(self.activation_bytes + self.state_bytes) / 2**30:.1f} GiB estimated in "
                f"float32: {self.state_bytes / 2**30:.1f} of weights and optimizer, "
                f"{self.activation_bytes / 2**30:.1f} of activations",
            ]
        )


def summarize(config: UNetConfig, size: Sequence[int], batch_size: int = 1) -> NetworkSummary:
    """Cost of a U-Net at an image size.

    Args:
        config: The network.
        size: Spatial size of the input.
        batch_size: Images per pass.

    Raises:
        ValueError: The network cannot be built or the size does not fit it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = UNet(config)
        images = torch.empty(batch_size, config.in_channels, *size)
        timesteps = torch.zeros(batch_size)
        kept: dict[int, int] = {}

        def remember(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                kept[id(storage)] = storage.nbytes()
                alive.append(storage)
            return tensor

        alive: list[object] = []  # keeps ids unique while counting
        counter = FlopCounterMode(display=False)
        with counter, torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
            network(images, timesteps)
    parameters = sum(p.numel() for p in network.parameters())
    return NetworkSummary(
        parameters=parameters,
        forward_flops=int(counter.get_total_flops()),
        activation_bytes=sum(kept.values()),
        state_bytes=5 * 4 * parameters,
    )
