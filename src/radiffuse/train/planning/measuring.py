"""How long a few real steps of a training take, before anything is prepared."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ...config import Machine, Training
from ...config.values import plain
from ...data.dataset import Case
from ...data.plan import Plan
from ...data.prepared import Prepared
from ...data.scan import Array
from ...errors import InputError, is_out_of_memory
from ...system.distributed import alone
from ...system.files import locked, make_folder, read_json, write_json
from ...system.hardware import forget_peak_memory
from ...system.heap import Heap
from ...system.waiting import Moment, Spent
from ..ahead import Ahead
from ..device import fixed_order, local_fabric
from ..passes import Passes, learns_from_batch
from ..step import Step, build_network, new_optimizer, without_gradient
from ..task import BatchesByStep, Task
from .configuration import Measured

SECONDS = 8.0
"""After a first step, others are timed for so long, at least two and at most ``STEPS``."""
STEPS = 5
LONGEST = 20.0
"""A first step of more seconds is not repeated. It is slower than others, since memory and kernels are made in it."""
FILE = Path("measured") / "steps.json"
"""In the cache folder: what was measured."""

MakeTask = Callable[[], tuple[Task, BatchesByStep]]
"""Makes the task of a training, and batches of data that need not exist."""


@dataclass(eq=False)
class Blank(Prepared):
    """Arrays of the right shapes that nobody prepared: noise, with every class somewhere.

    All cases have the same ones, made once: drawing a volume takes longer than a step of a GPU, and is no part of it.
    """

    shape: tuple[int, ...] = ()

    @classmethod
    def like(cls, plan: Plan, shape: tuple[int, ...], *, labelled: bool, count: int = 8) -> Blank:
        """``count`` cases of a shape on the grid of the plan."""
        cases = tuple(Case(f"blank-{i}", (), group=str(i)) for i in range(count))
        return cls(Path(), plan, cases, range(count), (), labelled, shape=shape)

    @cached_property
    def _image(self) -> Array:
        noise = np.random.default_rng(0).random((len(self.plan.channels), *self.shape), np.float32)
        return (2 * noise - 1).astype(np.float16)

    @cached_property
    def _label(self) -> Array:
        classes = max(2, len(self.plan.classes))
        return np.random.default_rng(1).integers(0, classes, self.shape, np.uint8)

    def image(self, index: int) -> Array:
        """Noise in [-1, 1]."""
        return self._image

    def label(self, index: int) -> Array:
        """Values of all classes."""
        return self._label

    def foreground(self, index: int) -> Array:
        """The middle, as the first class."""
        return np.asarray([[1, *(n // 2 for n in self.shape)]], np.int32)


class _Fixed(Passes):
    """Passes that do not shrink: what does not fit is for the planner to know."""

    def shrink(self, network: nn.Module, task: Task, reason: str) -> None:
        """Raise MemoryError."""
        raise MemoryError(reason)


def measure_steps(
    trial: MakeTask, training: Training, machine: Machine, processes: int = 1
) -> Measured | None:
    """Time steps of a training on this machine; None where it does not fit into memory.

    This process times its own part of the batch, alone: the others, if there are any, wait for it.

    Args:
        trial: Makes what is trained; it is made and dropped here.
        training: Of the steps: its batch and its micro-batch.
        machine: Its device, arithmetic and checkpointing; compilation is left out.
        processes: How many share the batch; what they exchange is not timed.

    Raises:
        InputError: As training would raise it; or sums are to have a fixed order, and what is trained has none.
    """
    fabric = local_fabric(machine)
    cuda = fabric.device.type == "cuda"
    with alone(), fixed_order(machine, fabric.device):
        try:
            return _time(trial, training, machine, fabric, processes)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        finally:
            gc.collect()  # networks lie in cycles, and the next trial needs their memory
            if cuda:
                torch.cuda.empty_cache()


def is_whole(trial: MakeTask, machine: Machine) -> bool:
    """Whether what is trained learns from its batch as a whole, see ``learns_from_batch``; nothing is trained."""
    with alone(), torch.random.fork_rng(devices=()):
        task, _ = trial()
        return learns_from_batch(build_network(task, machine).train(), task)


def remembered(
    cache: Path, facts: dict[str, Any], measure: Callable[[], Measured | None], *, keep: bool
) -> Measured | None:
    """What was measured under the same facts before, else now; ``keep`` it in the cache folder.

    What was measured while other work took the cores is not kept: it is only nearly as good.
    """
    key = hashlib.sha256(json.dumps(plain(facts), sort_keys=True).encode()).hexdigest()[:20]
    path = cache / FILE

    def known() -> dict[str, Any]:
        try:
            found = read_json(path)
        except InputError:  # missing, or damaged: it is only a cache
            return {}
        return found if isinstance(found, dict) else {}

    if isinstance(row := known().get(key), dict) and {"seconds", "slowed"} <= row.keys():
        return Measured(float(row["seconds"]), float(row["slowed"]))
    result = measure()
    if result is not None and keep and not result.busy:
        # Locking a folder clears it of what is half written, so others' arrays lie beside it. One in use, or a disk
        # that is full or read-only, costs a measurement.
        with contextlib.suppress(InputError):
            make_folder(path.parent)
            with locked(path.parent):
                write_json(path, known() | {key: plain(result)})
    return result


def _time(
    trial: MakeTask, training: Training, machine: Machine, fabric: Any, processes: int
) -> Measured:
    state = torch.get_rng_state()
    try:
        task, batches = trial()
        torch.manual_seed(0)
        network = build_network(task, machine)
        model = fabric.setup_module(network)
        task.averaged = without_gradient(network, fabric)
        optimizer = fabric.setup_optimizers(new_optimizer(network, training))
        size = training.micro_batch or training.batch
        step = Step(fabric, task, network, model, optimizer, training, _Fixed(size, "a trial"))

        heap = Heap(fabric.device.type, processes)
        forget_peak_memory()

        def timed(number: int) -> Spent:
            began = Moment.now()
            step(ahead(number), number)
            heap.settle()
            if fabric.device.type == "cpu":
                return Moment.now().since(began, torch.get_num_threads())
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            return Spent(Moment.now().clock - began.clock)

        with Ahead(batches, fabric.device, world=processes) as ahead, heap:
            return _steady(timed)
    finally:
        torch.set_rng_state(state)


def _steady(timed: Callable[[int], Spent]) -> Measured:
    """The fastest of step 1, 2, ..., as if it were alone: other work makes steps slower, nothing makes them faster."""
    times = [timed(0)]
    while times[0].seconds <= LONGEST and (
        len(times) < 3 or (len(times) <= STEPS and sum(s.seconds for s in times[1:]) < SECONDS)
    ):
        times.append(timed(len(times)))
    counted = times[1:] or times
    seconds, alone = sum(s.seconds for s in counted), sum(s.alone for s in counted)
    return Measured(min(s.alone for s in counted), seconds / alone if alone > 0 else 1.0)
