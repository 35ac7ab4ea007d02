"""What a machine has: cores, accelerators, memory, disk, and how fast bfloat16 is on it."""

from __future__ import annotations

import functools
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

CHANNELS, SIDE = 32, 32
"""Size of the convolution that is timed: that of a small U-Net on a small patch, which takes milliseconds."""
ROUNDS = 3
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """Something to compute on.

    Attributes:
        kind: cpu, cuda or mps.
        name: What its maker calls it.
        count: Cores that this process may use; for an accelerator its index.
        memory: In bytes, of an accelerator; None where it is the machine's.
        milliseconds: A convolution forward and back, by arithmetic: ``float32``, ``bfloat16``.
    """

    kind: str
    name: str
    count: int
    memory: int | None
    milliseconds: dict[str, float]

    @property
    def gain(self) -> float | None:
        """How many times faster bfloat16 is; None where one of the two was not measured."""
        both = self.milliseconds.get("float32"), self.milliseconds.get("bfloat16")
        return both[0] / both[1] if both[0] and both[1] else None


@dataclass(frozen=True)
class Memory:
    """Main memory, in bytes.

    Attributes:
        total: Of the machine.
        available: Free or easily freed.
        limit: Of the container that this process runs in; None: none.
    """

    total: int
    available: int
    limit: int | None


def devices() -> list[Device]:
    """The CPU, and every accelerator that torch can use, each measured in less than a second."""
    import torch

    found = [Device("cpu", processor(), cores(), None, measure(torch.device("cpu")))]
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = int(torch.cuda.get_device_properties(i).total_memory)
        times = measure(torch.device("cuda", i))
        found.append(Device("cuda", torch.cuda.get_device_name(i), i, memory, times))
    if torch.backends.mps.is_available():
        found.append(Device("mps", platform.machine(), 0, None, measure(torch.device("mps"))))
    return found


def cores() -> int:
    """Cores that this process may use: of its job, and no more than its container may keep busy."""
    process = psutil.Process()
    there = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count()
    limit = quota(CGROUP)
    return int(min(there, max(1, math.ceil(limit)))) if math.isfinite(limit) else int(there)


def quota(cgroup: Path) -> float:
    """Cores that a container may keep busy, by its control group of version 2 or 1; infinite without a limit.

    Args:
        cgroup: Where the control groups are mounted.
    """
    first = cgroup / "cpu"
    for paths in ([cgroup / "cpu.max"], [first / "cpu.cfs_quota_us", first / "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError):  # missing, or "max"
            limit, period = map(int, " ".join(path.read_text() for path in paths).split())
            return limit / period if limit > 0 else math.inf
    return math.inf


def measure(device: torch.device) -> dict[str, float]:
    """Milliseconds of a 3x3 convolution forward and back, in float32 and under bfloat16 autocast, where supported.

    The two take turns, and the fastest of each counts, so that other work on the machine affects both alike.
    """
    import torch

    network = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(device)
    images = torch.zeros(2, CHANNELS, SIDE, SIDE, device=device)

    def once(lower: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=lower):
            loss = network(images).float().sum()
        loss.backward()

    fastest: dict[str, float] = {}
    for _ in range(ROUNDS + 1):  # the first round warms up, and is the slowest
        for name in ("float32", "bfloat16"):
            try:
                spent = _timed(functools.partial(once, name == "bfloat16"), device)
            except RuntimeError:
                continue
            fastest[name] = min(spent, fastest.get(name, spent))
    return fastest


def memory() -> Memory:
    """Main memory of the machine and of the container."""
    main = psutil.virtual_memory()
    return Memory(main.total, main.available, memory_limit(CGROUP, main.total))


def memory_limit(cgroup: Path, total: int) -> int | None:
    """The limit that a container sets, in bytes; None where there is none below the machine's own memory.

    Args:
        cgroup: Where the control groups are mounted; version 2 and version 1 are known.
        total: Memory of the machine.
    """
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            limit = int(path.read_text().strip())
        except (OSError, ValueError):
            continue
        return limit if limit < total else None
    return None


def free_memory() -> int:
    """Bytes of main memory that this process may still take."""
    found = memory()
    if found.limit is None:
        return found.available
    return min(found.available, max(0, found.limit - int(psutil.Process().memory_info().rss)))


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    return int(psutil.disk_usage(str(existing)).free)


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed. 0 where it is missing."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:  # gone while looking
                continue
    return total


def processor() -> str:
    """Name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def this_machine(accelerator: str = "auto") -> str:
    """What computes, in words: the card, if there is one and ``accelerator`` takes it, else the processor's cores."""
    import torch

    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    number = cores()
    return f"{number} core{'s' * (number > 1)} of {processor()}"


def peak_memory() -> int:
    """Most bytes taken since ``forget_peak_memory``, or else since the start: of the GPU, or of this process."""
    import torch

    if torch.cuda.is_available() and (most := torch.cuda.max_memory_reserved()):
        return int(most)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # of POSIX alone

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def forget_peak_memory() -> None:
    """Count the most memory from now on, where the system can, without what a plan tried or another training took."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        with suppress(OSError):  # not every container may
            Path("/proc/self/clear_refs").write_text("5")


# ------------------------------------------------------------------------------------------------ internal


def _timed(work: Callable[[], None], device: torch.device) -> float:
    import torch

    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return (time.perf_counter() - start) * 1e3
