"""How long work took by the clock, and how much of it this process only waited for cores that other work had."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .hardware import CGROUP, cores, quota

THREADS = Path("/proc/self/task")


@dataclass(frozen=True)
class Spent:
    """Seconds of some work.

    Attributes:
        seconds: By the clock.
        waited: For a core while other processes had it; 0 where the system does not tell.
    """

    seconds: float
    waited: float = 0.0

    @property
    def alone(self) -> float:
        """Seconds that it would have taken alone on these cores."""
        return self.seconds - self.waited


@dataclass(frozen=True)
class Moment:
    """A point in the life of this process, in seconds.

    Attributes:
        clock: Since some time in the past.
        processor: That all threads together have computed.
        waits: That each thread has waited for a core although it could compute; {} where the system does not tell.
    """

    clock: float
    processor: float
    waits: dict[str, float]

    @classmethod
    def now(cls) -> Moment:
        """This one."""
        waits = dict[str, float]()
        if THREADS.is_dir():
            for thread in THREADS.iterdir():
                # A thread may have ended, or the kernel does not count.
                with suppress(OSError, IndexError, ValueError):
                    waits[thread.name] = 1e-9 * int((thread / "schedstat").read_text().split()[1])
        return cls(time.perf_counter(), time.process_time(), waits)

    def since(self, before: Moment, threads: int) -> Spent:
        """What was spent between two moments on work of so many threads, which share it evenly.

        The thread that waited most held up the others. Without the waits of threads, a single one has waited whenever
        it did not compute. Threads that are more than the cores this process may use wait for each other: nothing
        is said of them. Nobody has waited while all computed: a thread that is stopped between the readings of its wait
        and of the clock seems to have.
        """
        seconds, computed = self.clock - before.clock, self.processor - before.processor
        both = self.waits.keys() & before.waits.keys()
        if threads > min(cores(), quota(CGROUP)):
            waited = 0.0
        elif both:
            waited = max(self.waits[name] - before.waits[name] for name in both)
        else:
            waited = seconds - computed if threads == 1 else 0.0
        return Spent(seconds, max(min(waited, seconds - computed / threads), 0.0))
