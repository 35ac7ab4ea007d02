"""One function on many items: in this process, in threads of it, or on the workers of a dask cluster.

A worker that dies takes nothing with it: dask gives its items to another one. An item on which workers keep dying is
tried alone, and is bad if it kills again. Workers of a cluster see the same files at the same paths.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ..errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 64
"""Most results of threads that wait to be taken, which bounds memory."""
TASKS_PER_THREAD = 4
"""Tasks under way for each thread of a cluster, so that none has to wait for work."""
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
    """Apply a function to every item; outcomes come in the order of the items.

    Args:
        function: Raises ``InputError`` where an item is bad. With a scheduler it and the items are pickled, and it must
            be safe to apply it twice to an item.
        items: What to do.
        scheduler: Address of a dask scheduler, such as ``tcp://10.0.0.1:8786``; None: this machine.
        workers: Threads of this machine; None: one per core; 0: this thread.
        chunk: Items that go to a worker of a cluster together.
        name: What an item is called in the error of one that kills every worker.

    Yields:
        Item and result, or item and the error that says why it is bad.

    Raises:
        InputError: No scheduler answers, or it has no worker.
    """
    if scheduler is not None:
        with _connected(scheduler) as client:
            yield from _Cluster(client, function, name).each(items, chunk)
        return
    if workers == 0:
        for item in items:
            yield item, _outcome(function, item)
        return
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        yield from _in_threads(pool, function, items)


# ------------------------------------------------------------------------------------------------ internal


def _outcome(function: Callable[[Item], Result], item: Item) -> Result | InputError:
    try:
        return function(item)
    except InputError as error:
        return error


def _in_threads(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result | InputError]]:
    waiting: deque[tuple[Item, Future[Result | InputError]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(_outcome, function, item)))
            if len(waiting) >= WAITING:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _connected(scheduler: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError(
            f"--scheduler {scheduler}",
            "needs dask.distributed, which is not installed",
            "pip install 'radiffuse[dask]'",
        ) from None
    try:
        client = Client(scheduler, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError):
        raise InputError(
            f"--scheduler {scheduler}",
            "no dask scheduler answers there",
            "Start one with 'dask scheduler', and workers with 'dask worker ADDRESS'",
        ) from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        raise InputError(
            f"--scheduler {scheduler}", "has no worker", "Start some with 'dask worker ADDRESS'"
        ) from None
    return client


def _carrier(name: str, function: Callable[[Any], Any]) -> Any:
    """Brings a function to every worker once, also to those that join later: it may hold a network."""
    from distributed import WorkerPlugin

    class Carrier(WorkerPlugin):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.name = name
            self.function = function

    return Carrier()


class _Cluster:
    """One function on the workers of a cluster, which is brought to each of them once."""

    def __init__(
        self, client: Any, function: Callable[[Any], Any], name: Callable[[Any], str]
    ) -> None:
        self.client = client
        self.name = name
        self.key = f"radiffuse-{uuid.uuid4().hex}"
        self.carrier = _carrier(self.key, function)

    def each(self, items: Iterable[Item], chunk: int) -> Iterator[tuple[Item, Any]]:
        self.client.register_plugin(self.carrier)
        try:
            waiting: deque[tuple[list[Item], Any]] = deque()
            room = TASKS_PER_THREAD * max(1, sum(self.client.nthreads().values()))
            for part in _parts(items, chunk):
                waiting.append((part, self._submit(part)))
                if len(waiting) >= room:
                    yield from self._take(*waiting.popleft())
            while waiting:
                yield from self._take(*waiting.popleft())
        finally:
            self.client.unregister_worker_plugin(self.key)

    def _submit(self, part: Sequence[Any]) -> Any:
        return self.client.submit(_on_worker, self.key, part, pure=False)

    def _take(self, part: list[Item], future: Any) -> Iterator[tuple[Item, Any]]:
        from distributed import KilledWorker

        try:
            outcomes = future.result()
        except KilledWorker:
            if len(part) > 1:  # one of them kills; the others must not suffer for it
                for item in part:
                    yield from self._take([item], self._submit([item]))
                return
            remedy = "Leave it out, or give workers more memory"
            outcomes = [InputError(self.name(part[0]), "kills every worker that tries it", remedy)]
        yield from zip(part, outcomes, strict=True)


def _on_worker(key: str, part: Sequence[Any]) -> list[Any]:
    from distributed import get_worker

    function = get_worker().plugins[key].function
    return [_outcome(function, item) for item in part]


def _parts(items: Iterable[Item], chunk: int) -> Iterator[list[Item]]:
    items = iter(items)
    while part := list(itertools.islice(items, chunk)):
        yield part
