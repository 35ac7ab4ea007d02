"""Fused optimizers walk through memory: moments that come back must lie in it as the weights do."""

from __future__ import annotations

import torch
from torch import nn

from radiffuse.train.checkpoint import flatten_optimizer, in_order_of_weights, unflatten_optimizer


def test_a_resumed_optimizer_takes_the_same_steps() -> None:
    def begin() -> tuple[nn.Parameter, torch.optim.Optimizer]:
        weight = torch.randn((8, 4, 3, 3), generator=torch.Generator().manual_seed(0))
        parameter = nn.Parameter(weight.to(memory_format=torch.channels_last))
        return parameter, torch.optim.AdamW([parameter], lr=0.1, fused=True)

    def steps(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            gradient = torch.randn((8, 4, 3, 3), generator=torch.Generator().manual_seed(seed))
            parameter.grad = gradient.to(memory_format=torch.channels_last)
            optimizer.step()

    through, optimizer = begin()
    steps(through, optimizer, range(1, 7))

    stopped, before = begin()
    steps(stopped, before, range(1, 4))
    tensors, info = flatten_optimizer(before)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # as from a file
    resumed, after = begin()
    with torch.no_grad():
        resumed.copy_(stopped)
    after.load_state_dict(in_order_of_weights(after, unflatten_optimizer(after, tensors, info)))
    steps(resumed, after, range(4, 7))
    assert torch.equal(resumed, through)
