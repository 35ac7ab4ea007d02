"""The machine that a training is planned for: this one, or another that is described."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ...config import Machine
from ...system.hardware import cores, free_memory, processor
from ..device import accelerator_of, processes, resolve_precision

CORE_RATE = 60e9
"""Operations per second of a CPU core in training, until it is measured."""
GPU_RATE = {"32-true": 30e12, "bf16-mixed": 60e12}
"""The same of a GPU: of a fast one, for the first steps that are timed must keep it busy."""
MPS_RATE = 10e12
"""The same of Apple's GPUs."""
SHARE = {"cpu": 0.8, "cuda": 0.92, "mps": 0.8}
"""Share of the free memory that is used."""
Precision = Literal["32-true", "bf16-mixed"]
GIB = 2**30
UNITS = {"GB": 10**9, "MB": 10**6, "GiB": 2**30, "MiB": 2**20}


@dataclass(frozen=True)
class MachineFacts:
    """A machine, or its part that one training uses.

    Attributes:
        device: cpu, cuda or mps.
        name: For tables.
        memory: Bytes that the training may take, per device.
        rate: Floating point operations per second in training, of all devices.
        bfloat16: Whether bfloat16 is fast.
        described: Whether it is another machine than this one, or its speed is given.
        processes: How many train together, on a device each.
    """

    device: str
    name: str
    memory: float
    rate: float
    bfloat16: bool
    described: bool = False
    processes: int = 1

    def arithmetic(self, given: str) -> Precision:
        """The arithmetic that a setting of ``Machine.precision`` stands for."""
        bfloat16 = self.bfloat16 if given == "auto" else given == "bf16-mixed"
        return "bf16-mixed" if bfloat16 else "32-true"

    @property
    def why_precision(self) -> str:
        """The reason of ``arithmetic`` where nothing is given."""
        here = "as here: " * self.described
        return f"{here}bfloat16 is {'fast' if self.bfloat16 else 'not faster'} on {self.name}"


@dataclass(frozen=True)
class Pace:
    """How long a step takes: something in any case, and more for each operation.

    A GPU waits for its kernels to be launched in a small step, and so takes as long for one that is ten times as large.

    Attributes:
        rate: Floating point operations per second, beyond ``overhead``.
        overhead: Seconds of a step without any.
    """

    rate: float
    overhead: float = 0.0

    def seconds(self, operations: float) -> float:
        """Of a step with so many operations."""
        return self.overhead + operations / self.rate

    @classmethod
    def of(cls, timed: Sequence[tuple[float, float]], facts: MachineFacts) -> Pace:
        """From (operations, seconds) of steps that were timed, the last one last.

        On a processor the last one counts. On a GPU it is a line through the smallest and the largest step, which is
        no steeper than the largest step shows and no flatter than ``facts.rate``.
        """
        if not timed:
            return cls(facts.rate)
        operations, seconds = timed[-1]
        if facts.device == "cpu" or len(timed) == 1:
            return cls(operations / seconds)
        (few, short), (many, long) = min(timed), max(timed)
        rate = (many - few) / (long - short) if long > short else math.inf
        rate = min(max(rate, many / long), max(facts.rate, many / long))
        return cls(rate, long - many / rate)


def facts_of(machine: Machine) -> MachineFacts:
    """This machine, except where the settings describe another one.

    Raises:
        InputError: It lacks the accelerator that was asked for.
    """
    device, precision = accelerator_of(machine), resolve_precision(machine)
    if device == "cuda":
        free, name = torch.cuda.mem_get_info()[0], torch.cuda.get_device_name()
        rate = GPU_RATE[precision]
    else:
        number = machine.threads or cores()
        free, name = free_memory(), f"{number} core{'s' * (number > 1)} of {processor()}"
        rate = MPS_RATE if device == "mps" else CORE_RATE * number
    memory = SHARE[device] * (free if machine.memory is None else in_bytes(machine.memory))
    count = processes(machine)
    rate = rate * count if machine.rate is None else machine.rate * 1e12
    given = machine.rate is not None
    return MachineFacts(device, name, memory, rate, precision == "bf16-mixed", given, count)


def in_bytes(text: str) -> float:
    """Bytes of a text such as ``8GiB``."""
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return float(text.removesuffix(unit)) * UNITS[unit]
