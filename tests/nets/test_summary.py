"""The cost of a network, in closed form, against published figures and against what real passes keep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from radiffuse.config import UNetConfig, network_for
from radiffuse.nets.memory_format import channels_last
from radiffuse.nets.summary import TRAINING, summarize
from radiffuse.nets.unet import UNet

SMALL = UNetConfig(width=16, multipliers=(1, 2, 4), attention_factors=(4,), head_channels=32)
KINDS: dict[str, tuple[UNetConfig, tuple[int, ...]]] = {
    "films": (SMALL, (64, 64)),
    "convolutions": (replace(SMALL, residual_updown=False, scale_shift_norm=False), (64, 64)),
    "folded": (network_for((128, 128), width=16, out_channels=3), (128, 128)),
    "volumes": (network_for((32, 32, 32), width=8, in_channels=2), (32, 32, 32)),
    "thin": (network_for((8, 32, 64), spacing=(4, 1, 1), width=8, folds=1), (8, 32, 64)),
}


def test_operations_of_the_published_network() -> None:
    """Peebles and Xie 2023 (DiT) give 1120 G multiply-adds for the 256 px network of width 256."""
    config = UNetConfig(in_channels=3, out_channels=6, width=256)
    summary = summarize(config, (256, 256))
    assert summary.forward_flops / 2e9 == pytest.approx(1120, rel=0.002)
    assert summary.state_bytes == 20 * summary.parameters


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_operations_are_those_that_torch_counts(kind: str) -> None:
    config, size = KINDS[kind]
    with torch.device("meta"):
        network, images = UNet(config), torch.empty(2, config.in_channels, *size)
        with FlopCounterMode(display=False) as counter:
            network(images, torch.empty(2))
    summary = summarize(config, size, 2)
    assert summary.parameters == sum(p.numel() for p in network.parameters())
    assert summary.forward_flops == counter.get_total_flops()


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


@pytest.mark.parametrize("kernels", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_what_a_pass_keeps(kind: str, kernels: str) -> None:
    """Kernels of the CPU in channels-last order; torch's own, as on a card, in the other."""
    config, size = KINDS[kind]
    network, images = UNet(config), torch.randn(2, config.in_channels, *size)
    if kernels == "cpu":
        order = channels_last(config.spatial_dims)
        network, images = network.to(memory_format=order), images.contiguous(memory_format=order)
    found = kept(network, lambda: network(images, torch.zeros(2)))
    summary = summarize(config, size, 2, kernels)  # type: ignore[arg-type]
    assert summary.activation_bytes == pytest.approx(found, rel=0.12)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_mixed_precision_and_checkpointing(bfloat16: bool, checkpointed: bool) -> None:
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
    estimate -= summary.state_bytes + int(TRAINING * summary.transient_bytes) // (1 + bfloat16)
    if bfloat16:
        estimate, found = (n - 2 * summary.parameters for n in (estimate, found))
    estimate = int(estimate / TRAINING)
    assert estimate == pytest.approx(found, rel=0.15)


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
