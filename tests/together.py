"""Runs commands in processes that train together, started with the variables that torchrun sets."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quick_endings import quick_endings

Job = tuple[str, Mapping[str, Any]]

PRELOADED = ["radiffuse.commands.pretrain", "lightning_fabric", "torch.utils.tensorboard"]
"""Imported once, by the process that the others are forked from."""
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}


def run_together(jobs: Sequence[Job], folder: Path, processes: int = 2) -> list[list[str]]:
    """Call commands one after the other, each by all processes.

    Args:
        jobs: Commands and their settings.
        folder: Where they read and write.
        processes: How many.

    Returns:
        For each process the files below ``folder`` that it opened for writing, made, renamed or removed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    told = context.SimpleQueue()
    started = []
    for rank in range(processes):
        variables = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "GROUP_RANK": 0,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "TORCHELASTIC_RUN_ID": "test",
        }
        arguments = (rank, jobs, str(folder), {k: str(v) for k, v in variables.items()}, told)
        started.append(context.Process(target=_work, args=arguments, daemon=True))
        started[-1].start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * processes
    return [written for _, written in sorted(told.get() for _ in started)]


def _work(
    rank: int, jobs: Sequence[Job], folder: str, variables: dict[str, str], told: Any
) -> None:
    os.environ.update(variables)
    folder = os.path.realpath(folder)
    written: set[str] = set()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            _, mode, flags = arguments
            writing = any(c in str(mode or "") for c in "wax+") or bool(
                (flags or 0) & (os.O_WRONLY | os.O_RDWR)
            )
        else:
            writing = event in CHANGES
        if writing and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(folder):
                written.add(path)

    sys.addaudithook(watch)
    import radiffuse

    for one in quick_endings():
        setattr(*one)
    for command, settings in jobs:
        getattr(radiffuse, command)(**settings)
    told.put((rank, sorted(written)))
