"""Examining many cases in processes, of which any may die without taking the rest with it."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ..dataset import Case, Dataset
from .examine import CaseRecord, died, examine

Progress = Callable[[int, int], None]
Job = tuple[int, ...]
"""Positions of cases that go to a worker together."""

CHUNK = 16
"""Most cases per job; fewer where there are few cases, so that every worker has several jobs."""


def examine_all(
    dataset: Dataset, *, decode: bool, workers: int | None = None, progress: Progress | None = None
) -> list[CaseRecord]:
    """A record for every case, in order.

    Args:
        dataset: The cases.
        decode: Read pixels.
        workers: Processes; None: one per core; 0: this process.
        progress: Called with (cases done, all cases).
    """
    number = (os.cpu_count() or 1) if workers is None else workers
    records: dict[int, CaseRecord] = {}

    def keep(job: Job, found: Sequence[CaseRecord]) -> None:
        records.update(zip(job, found, strict=True))
        if progress is not None:
            progress(len(records), len(dataset))

    size = max(1, min(CHUNK, len(dataset) // (4 * max(number, 1))))
    jobs = deque(
        tuple(range(start, min(start + size, len(dataset))))
        for start in range(0, len(dataset), size)
    )
    if number > 0 and _processes_work():
        _in_processes(dataset, decode, min(number, len(jobs)), jobs, keep)
    while jobs:
        job = jobs.popleft()
        keep(job, _examine_job([dataset.cases[i] for i in job], dataset.classes, decode))
    return [records[i] for i in range(len(dataset))]


def _examine_job(cases: Sequence[Case], classes: tuple[str, ...], decode: bool) -> list[CaseRecord]:
    return [examine(case, classes, decode) for case in cases]


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork would copy the locks of threads that torch may have started.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _processes_work() -> bool:
    """False in a script without ``if __name__ == "__main__"``, whose workers cannot start."""
    if multiprocessing.current_process().name != "MainProcess":
        return False
    try:
        with _pool(1) as pool:
            return pool.submit(os.getpid).result() != os.getpid()
    except (BrokenProcessPool, OSError):
        return False


def _in_processes(
    dataset: Dataset,
    decode: bool,
    workers: int,
    jobs: deque[Job],
    keep: Callable[[Job, Sequence[CaseRecord]], None],
) -> None:
    """Work through ``jobs``. Only few are in flight at a time, so that a death has few suspects."""
    while jobs:
        suspects = _until_death(dataset, decode, workers, jobs, keep)
        _one_by_one(dataset, decode, [i for job in suspects for i in job], keep)


def _one_by_one(
    dataset: Dataset,
    decode: bool,
    indices: Sequence[int],
    keep: Callable[[Job, Sequence[CaseRecord]], None],
) -> None:
    """Each case by itself, so that a death has one suspect."""
    todo = deque(indices)
    while todo:
        with _pool(1) as pool:
            try:
                while todo:
                    cases = [dataset.cases[todo[0]]]
                    work = pool.submit(_examine_job, cases, dataset.classes, decode)
                    keep((todo[0],), work.result())
                    todo.popleft()
            except BrokenProcessPool:
                i = todo.popleft()
                keep((i,), [died(dataset.cases[i])])


def _until_death(
    dataset: Dataset,
    decode: bool,
    workers: int,
    jobs: deque[Job],
    keep: Callable[[Job, Sequence[CaseRecord]], None],
) -> list[Job]:
    """Work until nothing is left or a worker dies; the jobs that were in flight then."""
    flying: dict[Future[list[CaseRecord]], Job] = {}
    suspects: list[Job] = []
    with _pool(workers) as pool:
        while (jobs or flying) and not suspects:
            try:
                while jobs and len(flying) < workers + 1:
                    cases = [dataset.cases[i] for i in jobs[0]]
                    flying[pool.submit(_examine_job, cases, dataset.classes, decode)] = jobs[0]
                    jobs.popleft()
            except BrokenProcessPool:
                if not flying:  # else the futures in flight tell the same
                    return [jobs.popleft()]
            done, _ = wait(flying, return_when=FIRST_COMPLETED)
            for future in done:
                job = flying.pop(future)
                try:
                    keep(job, future.result())
                except BrokenProcessPool:
                    suspects.append(job)
    for future, job in flying.items():
        try:
            keep(job, future.result())
        except BrokenProcessPool:
            suspects.append(job)
    return suspects
