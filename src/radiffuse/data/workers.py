"""One function on many items: in this thread, in several, or on the workers of a dask cluster.

Dask gives the items of a worker that dies to another one. An item on which workers keep dying is tried
alone, and is bad if it kills again. Workers of a cluster see the same files at the same paths.
"""

from __future__ import annotations

import itertools
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import InputError
from ..system.hardware import cores
from ..system.installing import install
from ..system.privacy import private

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 64
"""Most results of threads held in memory."""
TASKS_PER_THREAD = 4
"""Tasks submitted for each thread of a cluster, so that none waits for work."""
CONNECT_SECONDS = 60


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    chunk: int = 1,
    name: Callable[[Item], str] = str,
) -> Generator[tuple[Item, Result | InputError], None, None]:
    """Apply a function to every item; yields each in order with its result or ``InputError``.

    Args:
        function: Raises ``InputError`` for a bad item. With a scheduler it is pickled with the items,
            and must be safe to repeat.
        items: What to do.
        scheduler: Address of a dask scheduler, such as ``tcp://10.0.0.1:8786``; None: this machine.
        workers: Threads of this machine; None: one per core that this process may use; 0: this thread.
        chunk: Items that go to a worker of a cluster together.
        name: What to call an item that kills every worker.

    Raises:
        InputError: No scheduler answers, or it has no worker.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            yield from _on_cluster(client, function, items, chunk, name)
    elif workers == 0:
        for item in items:
            yield item, _outcome(function, item)
    else:
        with ThreadPoolExecutor(workers or cores()) as pool:
            submitted = ((item, pool.submit(_outcome, function, item)) for item in items)
            for item, future in _ahead(submitted, WAITING):
                yield item, future.result()


# ------------------------------------------------------------------------------------------------ internal


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | InputError:
    try:
        return function(item)
    except InputError as error:
        return error


def _ahead(submitted: Iterator[tuple[Item, Any]], most: int) -> Iterator[tuple[Item, Any]]:
    """Items with their futures, in order, ``most`` at a time; those left are cancelled at the end."""
    waiting: deque[tuple[Item, Any]] = deque()
    try:
        for pair in submitted:
            waiting.append(pair)
            if len(waiting) >= most:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()


def _connected(scheduler: str) -> Any:
    where = f"--scheduler {scheduler}"
    try:
        from distributed import Client
    except ImportError:
        problem = "needs dask.distributed, which is not installed"
        raise InputError(where, problem, install("dask")) from None
    try:
        client = Client(scheduler, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError):
        remedy = "Start one with 'dask scheduler', and workers with 'dask worker ADDRESS'"
        raise InputError(where, "no dask scheduler answers there", remedy) from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        raise InputError(where, "has no worker", "Start some with 'dask worker ADDRESS'") from None
    return client


def _on_cluster(
    client: Any,
    function: Callable[[Item], Any],
    items: Iterable[Item],
    chunk: int,
    name: Callable[[Item], str],
) -> Iterator[tuple[Item, Any]]:
    from distributed import KilledWorker, WorkerPlugin

    class Carrier(WorkerPlugin):  # type: ignore[misc, unused-ignore]
        """Brings the function, which may hold a network, to every worker once, also to later ones."""

        def __init__(self) -> None:
            self.name = f"radiffuse-{uuid.uuid4().hex}"
            self.function = function

    carrier = Carrier()

    def submit(part: list[Item]) -> tuple[list[Item], Any]:
        return part, client.submit(_on_worker, carrier.name, part, pure=False)

    def outcomes(part: list[Item], future: Any) -> Iterator[tuple[Item, Any]]:
        try:
            yield from zip(part, future.result(), strict=True)
        except KilledWorker:
            if len(part) == 1:
                remedy = "Leave it out, or give workers more memory"
                yield part[0], InputError(name(part[0]), "kills every worker that tries it", remedy)
                return
            for item in part:  # only one of them may kill
                yield from outcomes(*submit([item]))

    client.register_plugin(carrier)
    try:
        most = TASKS_PER_THREAD * max(1, sum(client.nthreads().values()))
        remaining = iter(items)
        parts = iter(lambda: list(itertools.islice(remaining, chunk)), [])
        for part, future in _ahead(map(submit, parts), most):
            yield from outcomes(part, future)
    finally:
        client.unregister_worker_plugin(carrier.name)


def _on_worker(key: str, part: Sequence[Any]) -> list[Any]:
    from distributed import get_worker

    function = get_worker().plugins[key].function
    with private():
        return [_outcome(function, item) for item in part]
