"""Long work: one at a time, in the order it was asked for, with progress, and stopped on request."""

from __future__ import annotations

import itertools
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import RadiffuseError
from .refusal import Refused, known

WAITING = 8
"""Most jobs that may wait."""
KEPT = 50
"""Jobs that are remembered after they ended."""


class Cancelled(Exception):
    """The user stopped the job. Raised inside it."""


@dataclass
class Job:
    """One piece of work.

    Attributes:
        id: Number.
        title: For the user.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        step: What is being done now.
        done: Units of work that are done.
        total: Units in all; 0 where not known.
        error: One line, where it failed.
        result: What it returned, as JSON.
    """

    id: str
    title: str
    work: Callable[[Job], Any]
    state: str = "waiting"
    step: str = ""
    done: int = 0
    total: int = 0
    error: str = ""
    result: Any = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def begin(self, step: str, total: int = 0) -> None:
        """Say what comes now, and how much of it."""
        self.check()
        self.step, self.done, self.total = step, 0, total

    def advance(self, units: int = 1) -> None:
        """Count units of work.

        Raises:
            Cancelled: The user stopped the job.
        """
        self.check()
        self.done += units

    def check(self) -> None:
        """Raise ``Cancelled`` if the user stopped the job."""
        if self.stopped.is_set():
            raise Cancelled

    def view(self) -> dict[str, Any]:
        """What the page shows of it."""
        names = ("id", "title", "state", "step", "done", "total", "error", "result")
        return {name: getattr(self, name) for name in names}


class Jobs:
    """The queue, and the one thread that works through it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queue: queue.Queue[Job] = queue.Queue()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        threading.Thread(target=self._loop, name="jobs", daemon=True).start()

    def add(self, title: str, work: Callable[[Job], Any]) -> Job:
        """Queue a piece of work.

        Raises:
            Refused: Too many are waiting (429).
        """
        with self._lock:
            if sum(job.state == "waiting" for job in self._jobs.values()) >= WAITING:
                raise Refused(429, "Too many jobs are waiting; cancel one first.")
            job = Job(str(next(self._numbers)), title, work)
            self._jobs[job.id] = job
            ended = [j for j in self._jobs.values() if j.state not in ("waiting", "running")]
            for old in ended[: max(0, len(ended) - KEPT)]:
                del self._jobs[old.id]
        self._queue.put(job)
        return job

    def get(self, id: str) -> Job:
        """A job by its number.

        Raises:
            Refused: There is none (404).
        """
        return known(self._jobs, id, "job")

    def cancel(self, id: str) -> Job:
        """Stop a job: at once if it waits, else as soon as its present pass through a network is over."""
        job = self.get(id)
        job.stopped.set()
        with self._lock:
            if job.state == "waiting":
                job.state = "cancelled"
        return job

    def stop(self) -> None:
        """Stop all jobs."""
        for id in list(self._jobs):
            self.cancel(id)

    def _loop(self) -> None:
        while True:
            job = self._queue.get()
            with self._lock:
                if job.state != "waiting":
                    continue
                job.state = "running"
            try:
                job.result = job.work(job)
                state = "done"
            except Cancelled:
                state = "cancelled"
            except (RadiffuseError, Refused) as error:
                job.error, state = str(error), "failed"
            except MemoryError:
                job.error, state = "There is not enough memory for this.", "failed"
            except Exception as error:
                traceback.print_exc()
                job.error = f"{type(error).__name__}; see the terminal for details"
                state = "failed"
            job.work = _forgotten  # and with it the arrays it holds
            job.state = state


def _forgotten(job: Job) -> Any:
    raise AssertionError("a job runs once")
