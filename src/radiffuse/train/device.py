"""How a run uses the machine, through lightning-fabric."""

from __future__ import annotations

import datetime
import inspect
import logging
import warnings
from typing import Any

import torch

from ..config import Machine
from ..errors import InputError
from ..system.distributed import connect, launched
from .sharding import shard

TIMEOUT = datetime.timedelta(hours=2)
"""How long a process waits for another one within training; rank 0 may be writing a checkpoint."""


def make_fabric(machine: Machine) -> Any:
    """A launched ``lightning_fabric.Fabric`` for training; joins the processes that train together.

    Raises:
        InputError: The machine lacks what was asked for, or other processes were started than asked for.
    """
    from lightning_fabric import Fabric

    devices, nodes = _processes(machine)
    _quieten()
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=_strategy(machine, devices * nodes),
            precision=_precision(machine),
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise _lacking(machine, error) from None
    _set_threads(machine)  # last: the launcher shares the cores out
    connect()
    return fabric


def local_fabric(machine: Machine) -> Any:
    """A launched ``Fabric`` of this process and one device, for all that is not training.

    Raises:
        InputError: The machine lacks what was asked for.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    _set_threads(machine)
    _quieten()
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=1,
            precision=_precision(machine),
            plugins=[LightningEnvironment()],
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise _lacking(machine, error) from None
    return fabric


def resolve_precision(machine: Machine) -> str:
    """The arithmetic that ``auto`` stands for on this machine."""
    return str(_precision(machine))


def _processes(machine: Machine) -> tuple[int, int]:
    """Processes per node and nodes: what the launcher started, else what the settings ask for."""
    asked = (machine.devices, machine.num_nodes)
    started = launched() or asked
    if started in ((1, 1), asked):
        return asked
    if asked != (1, 1):
        raise InputError(
            f"--machine.devices {asked[0]} --machine.num_nodes {asked[1]}",
            f"{started[0]} processes on each of {started[1]} nodes were started",
            "Leave both out: the launcher decides",
        )
    return started


def _strategy(machine: Machine, processes: int) -> Any:
    from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

    if processes == 1:
        return "auto"
    if machine.strategy == "fsdp":
        return ModelParallelStrategy(
            shard, data_parallel_size=processes, tensor_parallel_size=1, timeout=TIMEOUT
        )
    # Buffers are the same on every rank by themselves, and DDP would overwrite those that a step fills.
    known = inspect.signature(torch.nn.parallel.DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DDPStrategy(timeout=TIMEOUT, **{name: False})


def _quieten() -> None:
    """What the libraries say that is of no use to a user."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # Of 1x1 convolutions: another order of axes of length 1, the same bytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def _set_threads(machine: Machine) -> None:
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)


def _lacking(machine: Machine, error: Exception) -> InputError:
    reason = str(error).splitlines()[0].rstrip(".")
    return InputError(
        f"--machine.accelerator {machine.accelerator}", reason, "Choose what this machine has"
    )


def _precision(machine: Machine) -> Any:
    if machine.precision != "auto":
        return machine.precision
    if machine.accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if _fast_bfloat16_cpu() else "32-true"


def _fast_bfloat16_cpu() -> bool:
    # AVX512-BF16 alone was measured no faster than float32 here; matrix tiles (AMX) are.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
