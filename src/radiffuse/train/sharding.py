"""Fully sharded data parallelism: each process keeps a part of weights, gradients, averages and optimizer state.

[related] Rajbhandari et al. 2020, ZeRO stage 3; ``torch.distributed.fsdp.fully_shard`` does the work. Checkpoints hold
whole tensors, so a run can resume with any number of processes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nets.blocks import AttentionBlock, ResidualBlock


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Divide a network, used through ``forward`` alone, among the processes of a mesh with the axis ``data_parallel``.

    The blocks of a U-Net are gathered one at a time.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = mesh["data_parallel"]
    for part in list(module.modules()):
        if isinstance(part, ResidualBlock | AttentionBlock):
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sharded tensors as whole ones; every process must call it."""
    from torch.distributed.tensor import DTensor

    return {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in tensors.items()}


def shard_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state dictionary of whole tensors, sharded as its parameters are."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    cut = {
        index: {
            key: distribute_tensor(value, parameter.device_mesh, parameter.placements)
            if isinstance(value, Tensor)
            and isinstance(parameter, DTensor)
            and value.shape == parameter.shape
            else value
            for key, value in state["state"][index].items()
        }
        for index, parameter in enumerate(parameters)
        if index in state["state"]
    }
    return {**state, "state": cut}


def gathered(network: nn.Module, template: nn.Module) -> nn.Module:
    """A copy of the template with the whole weights of a sharded network, on the CPU; every process must call it."""
    result = copy.deepcopy(template)
    result.load_state_dict({k: v.cpu() for k, v in whole_tensors(network.state_dict()).items()})
    return result
