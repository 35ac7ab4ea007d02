"""How a run uses the machine, through lightning-fabric."""

from __future__ import annotations

import datetime
import inspect
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ..config import Machine
from ..errors import InputError, first_line
from ..system.distributed import connect, launched
from ..system.hardware import cores, processor
from ..system.saying import say
from .sharding import shard

TIMEOUT = datetime.timedelta(hours=2)
"""How long a process waits for another one within training; rank 0 may be writing a checkpoint."""
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
OTHERWISE = "it rounds otherwise from here on than if it had not been stopped"
UP_TO_ROUNDING = "a run that is interrupted then resumes up to rounding"


def make_fabric(machine: Machine) -> Any:
    """A launched ``lightning_fabric.Fabric`` for training; joins the processes that train together.

    Raises:
        InputError: The machine lacks what was asked for, or other processes were started than asked for.
    """
    devices, nodes = _processes(machine)
    strategy = _strategy(machine, devices * nodes)
    fabric = _launched(machine, devices=devices, num_nodes=nodes, strategy=strategy)
    connect()
    return fabric


@dataclass(frozen=True)
class Local:
    """This process and one device, without the libraries that training needs, whose import takes seconds.

    Attributes:
        device: What computes.
        precision: Arithmetic, resolved.
    """

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[Any]:
        """The context to compute in."""
        if self.precision != "bf16-mixed":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def local_device(machine: Machine) -> Local:
    """What predicts, samples and embeds; the device and the arithmetic are those that ``local_fabric`` would choose.

    Raises:
        InputError: The machine lacks what was asked for.
    """
    _set_threads(machine)
    name = accelerator_of(machine)
    device = torch.device(name, 0) if name != "cpu" else torch.device(name)
    return Local(device, resolve_precision(machine))


def local_fabric(machine: Machine) -> Any:
    """A launched ``Fabric`` of this process and one device, to try steps of a training.

    Raises:
        InputError: The machine lacks what was asked for.
    """
    from lightning_fabric.plugins.environments import LightningEnvironment

    return _launched(machine, devices=1, plugins=[LightningEnvironment()])


def _launched(machine: Machine, **options: Any) -> Any:
    from lightning_fabric import Fabric

    accelerator_of(machine)
    # What the libraries say that is of no use to a user.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    # Of 1x1 convolutions: another order of axes of length 1, the same bytes.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    precision = resolve_precision(machine)
    try:
        fabric = Fabric(accelerator=machine.accelerator, precision=precision, **options)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        where = f"--machine.accelerator {machine.accelerator}"
        raise InputError(where, first_line(error), "Choose what this machine has") from None
    _set_threads(machine)  # last: the launcher shares the cores out
    return fabric


@contextmanager
def fixed_order(machine: Machine, device: torch.device) -> Iterator[None]:
    """Where the settings ask for it, sums on a GPU have a fixed order within; afterwards all is as it was.

    Raises:
        InputError: Something has no such order, or cuBLAS is set up otherwise.
    """
    if not machine.deterministic or device.type == "cpu":
        yield
        return
    if device.type != "cuda":
        problem = f"{device.type} adds up in no fixed order"
        raise InputError("--machine.deterministic", problem, "Leave it out: " + UP_TO_ROUNDING)
    before = (torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark)
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    # Read when a process first multiplies matrices on the GPU.
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    memory.fill_uninitialized_memory = False  # nothing here reads it
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error).lower():
            raise
        problem, remedy = first_line(error), "Leave it out: " + UP_TO_ROUNDING
        if CUBLAS in str(error):
            problem = "comes too late: this process has multiplied matrices on the GPU without it"
            remedy = f"Start another one, or set {CUBLAS}=:4096:8 before"
        raise InputError("--machine.deterministic", problem, remedy) from None
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.benchmark = before[1]
        memory.fill_uninitialized_memory = filled


def _set_threads(machine: Machine) -> None:
    """As many as asked for; else PyTorch's own number, which does not see how many cores a container may use."""
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    elif torch.get_num_threads() > cores():
        torch.set_num_threads(cores())


def accelerator_of(machine: Machine) -> str:
    """What computes: what was asked for, or the best that is there; cuda, mps or cpu.

    Raises:
        InputError: This machine lacks what was asked for.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    asked = machine.accelerator
    name = next(name for name, found in there.items() if found) if asked == "auto" else asked
    if not there[name]:
        problem, remedy = f"this machine has no {name}", "Choose what it has"
        if machine.rate is not None:
            remedy += ", or leave it out: --machine.memory and --machine.rate describe another one"
        raise InputError(f"--machine.accelerator {name}", problem, remedy)
    return name


def processes(machine: Machine) -> int:
    """How many train together: those that a launcher started, else those that the settings ask for.

    Raises:
        InputError: Both say something else.
    """
    return math.prod(_processes(machine))


def _processes(machine: Machine) -> tuple[int, int]:
    """Processes per node and nodes: what the launcher started, else what the settings ask for."""
    asked = (machine.devices, machine.num_nodes)
    started = launched() or asked
    if started in ((1, 1), asked):
        return asked
    if asked != (1, 1):
        raise InputError(
            f"--devices {asked[0]} --num-nodes {asked[1]}",
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


def computes_by(device: torch.device, machine: Machine) -> dict[str, str | int]:
    """What the rounding of a training depends on beside its settings."""
    found: dict[str, str | int] = {"torch": torch.__version__.partition("+")[0]}
    found["precision"] = str(resolve_precision(machine))
    if device.type == "cuda":
        return found | {"device": torch.cuda.get_device_name(device)}
    if device.type != "cpu":
        return found | {"device": device.type}
    return found | {"device": processor(), "threads": torch.get_num_threads()}


def say_other(where: object, before: object, now: Mapping[str, str | int]) -> None:
    """Say it where a run goes on by something else than computed ``before``, as its checkpoint has it."""
    was: Mapping[str, object] = before if isinstance(before, dict) else now
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    if names:
        changes = (f"{name} {now.get(name, 'none')}, not {was.get(name, 'none')}" for name in names)
        say(f"{where} goes on with {'; '.join(changes)}: {OTHERWISE}")


def resolve_precision(machine: Machine) -> Any:
    """The arithmetic of the settings, and what ``auto`` stands for on this machine."""
    if machine.precision != "auto":
        return machine.precision
    if machine.accelerator in ("auto", "cuda") and torch.cuda.is_available():
        # Cards before Ampere compute it too, by emulation, which is slow.
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if fast else "32-true"
    # AVX512-BF16 alone was measured no faster than float32 here; matrix tiles (AMX) are.
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return "bf16-mixed" if tiles else "32-true"
