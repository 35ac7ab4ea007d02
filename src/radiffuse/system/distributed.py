"""Several processes that train together: who writes, who waits, and what they exchange.

Rank 0 reads and prepares the data, writes and reports. The other ranks wait for it, read what it prepared, train along
and write nothing: there ``files.write_atomic`` does nothing. torch is not imported before processes are joined.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATIENCE = datetime.timedelta(days=14)
"""How long other ranks wait for rank 0, which may have a large data set to prepare."""


class _State:
    control: Any = None
    """Group of all processes that communicates over the CPU, whatever device computes."""
    unannounced = False
    """Rank 0: the others still wait for the run to begin."""
    alone = False
    """This process computes by itself, see ``alone``."""


def rank() -> int:
    """Number of this process among those that train together; 0 where it is alone."""
    group = _group()
    return int(group.get_rank()) if group else 0


def world_size() -> int:
    """How many processes train together."""
    group = _group()
    return int(group.get_world_size()) if group else 1


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Processes per node and number of nodes, as torchrun or ``srun`` started them; None where neither did."""
    torchrun = all(name in environment for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if torchrun:
        devices = int(environment["LOCAL_WORLD_SIZE"])
        return devices, int(environment["WORLD_SIZE"]) // devices
    if "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", "1"))
        return int(environment["SLURM_STEP_NUM_TASKS"]) // nodes, nodes
    return None


def connect() -> None:
    """Prepare joined processes for ``wait_for_main``; every rank calls it."""
    group = _group()
    if group and _State.control is None:
        _State.control = group.new_group(backend="gloo", timeout=PATIENCE)


def wait_for_main() -> None:
    """Wait until rank 0 gets here; rank 0 does not wait.

    Raises:
        SystemExit: Rank 0 has failed; it prints the reason.
    """
    if world_size() == 1:
        return
    if rank() == 0:
        if _State.unannounced:
            _State.unannounced = False
            _broadcast(True)
        _broadcast(True)
    elif not _broadcast(None):
        raise SystemExit(2)


@contextlib.contextmanager
def leading() -> Iterator[None]:
    """The work of rank 0. The other ranks start at its first ``wait_for_main`` and end with it, even if it fails."""
    _State.unannounced = world_size() > 1
    try:
        yield
    except BaseException:
        if world_size() > 1:
            with contextlib.suppress(RuntimeError):  # they may have left for the same reason
                _broadcast(False)
        raise
    wait_for_main()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """What rank 0 computes by itself while the others wait: inside, this process is the only one.

    So nothing is exchanged, which would wait for the others forever.
    """
    _State.alone = True
    try:
        yield
    finally:
        _State.alone = False


def gather_objects(value: Any) -> list[Any]:
    """A small value of every rank, by rank."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    _group().all_gather_object(found, value, group=_State.control)
    return found


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean over ranks of a tensor of one shape; gradients flow back to every rank."""
    return tensor if world_size() == 1 else _sum_over_ranks(tensor) / world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set on any rank; all ranks must call it, with the device that they compute on."""
    if world_size() == 1:
        return flag
    import torch

    return bool(_sum_over_ranks(torch.tensor(float(flag), device=device)) > 0)


def gather(tensor: Tensor) -> Tensor:
    """The ranks' tensors ``(B, ...)`` joined by rank, ``(world * B, ...)``; gradients flow back to every rank."""
    if world_size() == 1:
        return tensor
    # By a sum, since not every backend has the backward pass of a gather.
    place = tensor.new_zeros((world_size(), *[1] * tensor.ndim))
    place[rank()] = 1
    return _sum_over_ranks(tensor * place).flatten(0, 1)


def _group() -> Any:
    """``torch.distributed`` where processes were joined and this one is not ``alone``, else None."""
    torch = sys.modules.get("torch")
    if torch is None or _State.alone or not torch.distributed.is_available():
        return None
    return torch.distributed if torch.distributed.is_initialized() else None


def _sum_over_ranks(tensor: Tensor) -> Tensor:
    import torch

    class Sum(torch.autograd.Function):
        """Every rank's input is part of every rank's result, so gradients are summed as well."""

        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            total = values.clone()
            torch.distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return Sum.forward(ctx, grad.contiguous())

    total: Tensor = Sum.apply(tensor.contiguous())  # type: ignore[no-untyped-call]
    return total


def _broadcast(going: bool | None) -> bool:
    message = [going]
    _group().broadcast_object_list(message, src=0, group=_State.control)
    return bool(message[0])
