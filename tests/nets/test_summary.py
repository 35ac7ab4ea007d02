"""The cost of a network against published figures, and against what a real pass keeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor

from radiffuse.config import UNetConfig
from radiffuse.nets.summary import summarize
from radiffuse.nets.unet import UNet

SMALL = UNetConfig(width=16, multipliers=(1, 2, 4), attention_factors=(4,), head_channels=32)


def test_operations_of_the_published_network() -> None:
    """Peebles and Xie 2023 (DiT) give 1120 G multiply-adds for the 256 px network of width 256."""
    config = UNetConfig(in_channels=3, out_channels=6, width=256)
    summary = summarize(config, (256, 256))
    assert summary.forward_flops / 2e9 == pytest.approx(1120, rel=0.002)
    assert summary.state_bytes == 20 * summary.parameters


def kept(network: UNet, pass_: Callable[[], Tensor]) -> int:
    """Bytes of all that a pass on the CPU saves for its backward pass, but for the weights."""
    weights = {p.data_ptr() for p in network.parameters()}
    found: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        pass_()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_memory_is_what_a_pass_keeps(bfloat16: bool, checkpointed: bool) -> None:
    network = UNet(SMALL, checkpoint_activations=checkpointed)
    images = torch.randn((4, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    timesteps = torch.zeros(4)

    def arithmetic() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()

    with arithmetic():
        found = kept(network, lambda: network(images, timesteps))
    if checkpointed:
        found += most_of_one_block(network, images, timesteps, arithmetic)
    summary = summarize(SMALL, (64, 64), 4)
    estimate = summary.training_bytes(bfloat16=bfloat16, checkpointed=checkpointed)
    assert estimate - summary.state_bytes == pytest.approx(found, rel=0.15)


def most_of_one_block(
    network: UNet,
    images: Tensor,
    timesteps: Tensor,
    arithmetic: Callable[[], AbstractContextManager[object]],
) -> int:
    """The most that one block saves when it runs alone, as it does in the backward pass."""
    calls = []
    blocks = [*network.down, network.middle, *network.up]
    for block in blocks:
        block.register_forward_hook(lambda module, inputs, _: calls.append((module, inputs)))
    with torch.no_grad(), arithmetic():
        network(images, timesteps)
    return max(alone(network, block, inputs, arithmetic) for block, inputs in calls[: len(blocks)])


def alone(
    network: UNet,
    block: torch.nn.Module,
    inputs: tuple[Tensor, ...],
    arithmetic: Callable[[], AbstractContextManager[object]],
) -> int:
    h, embedding = (tensor.detach().requires_grad_() for tensor in inputs)
    with arithmetic():
        return kept(network, lambda: block(h, embedding))


def test_the_four_ways_to_train_are_told_apart() -> None:
    summary = summarize(SMALL, (64, 64), 4)
    plain, half, less, least = (
        summary.training_bytes(bfloat16=b, checkpointed=c)
        for c, b in ((False, False), (False, True), (True, False), (True, True))
    )
    assert least < less < plain
    assert least < half < plain
    assert "with checkpoint_activations" in str(summary)
