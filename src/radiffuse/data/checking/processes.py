"""Examining many cases in processes, any of which may die."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType

from ...system.hardware import cores
from ..dataset import Case, Dataset
from .examine import CaseRecord, died, examine

Job = tuple[int, ...]
"""Positions of cases that go to a worker together."""
CHUNK = 16
"""Most cases per job; fewer if every worker would not have several jobs."""


def examine_all(dataset: Dataset, *, decode: bool, workers: int | None) -> list[CaseRecord]:
    """A record for every case, in order, with the arguments of ``check_path``."""
    number = cores() if workers is None else workers
    size = max(1, min(CHUNK, len(dataset) // (4 * max(number, 1))))
    everything = range(len(dataset))
    jobs = deque(tuple(everything[start : start + size]) for start in everything[::size])
    records: dict[int, CaseRecord] = {}

    def keep(job: Job, found: Sequence[CaseRecord]) -> None:
        records.update(zip(job, found, strict=True))

    def work(job: Job) -> tuple[list[Case], tuple[str, ...], bool]:
        return [dataset.cases[i] for i in job], dataset.classes, decode

    if number > 0 and _processes_work():
        while jobs:
            suspects = _until_death(min(number, len(jobs)), jobs, work, keep)
            alone: deque[Job] = deque((i,) for job in suspects for i in job)
            while alone:  # one case at a time, so that a death has one suspect
                for job in _until_death(1, alone, work, keep, ahead=0):
                    keep(job, [died(dataset.cases[job[0]])])
    while jobs:
        job = jobs.popleft()
        keep(job, _examine_job(*work(job)))
    return [records[i] for i in everything]


def _examine_job(cases: Sequence[Case], classes: tuple[str, ...], decode: bool) -> list[CaseRecord]:
    return [examine(case, classes, decode) for case in cases]


class _Worker(SpawnProcess):
    """A process that does not know the caller's script: it would run it again, up to here and further."""

    def start(self) -> None:
        """Start it, with an empty module in place of the script, which is what a spawned process imports first."""
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            super().start()
        finally:
            sys.modules["__main__"] = script


class _Context(SpawnContext):
    """Spawned: a fork would copy the locks of torch's threads."""

    Process = _Worker


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """A worker whose parent is killed would wait for work forever; Ctrl-C ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _processes_work() -> bool:
    """False in a worker of somebody else, and where the machine starts none."""
    if multiprocessing.current_process().name != "MainProcess":
        return False
    try:
        with _pool(1) as pool:
            return pool.submit(os.getpid).result() != os.getpid()
    except (BrokenProcessPool, OSError):
        return False


def _until_death(
    workers: int,
    jobs: deque[Job],
    work: Callable[[Job], tuple[list[Case], tuple[str, ...], bool]],
    keep: Callable[[Job, Sequence[CaseRecord]], None],
    *,
    ahead: int = 1,
) -> list[Job]:
    """Work until nothing is left or a worker dies; returns the jobs that were in flight then.

    At most ``workers + ahead`` are in flight, so that a death has few suspects.
    """
    flying: dict[Future[list[CaseRecord]], Job] = {}
    suspects: list[Job] = []

    def land(future: Future[list[CaseRecord]]) -> None:
        job = flying.pop(future)
        try:
            keep(job, future.result())
        except BrokenProcessPool:
            suspects.append(job)

    with _pool(workers) as pool:
        while (jobs or flying) and not suspects:
            try:
                while jobs and len(flying) < workers + ahead:
                    flying[pool.submit(_examine_job, *work(jobs[0]))] = jobs[0]
                    jobs.popleft()
            except BrokenProcessPool:
                if not flying:  # else the futures in flight raise the same
                    return [jobs.popleft()]
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                land(future)
    for future in list(flying):
        land(future)
    return suspects
