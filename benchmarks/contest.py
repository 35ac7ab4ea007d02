"""Sides that do the same work in turn, so that they see the same machine, and what is read off them."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Action = Callable[[], Mapping[str, float]]
"""Does the work once and returns what was measured by name, such as seconds."""


@dataclass(frozen=True)
class Comparison:
    """A row of the table.

    Attributes:
        what: What is compared.
        ours: Name of our side.
        rival: Name of the other side; '' where there is none.
        measure: Name of the value.
        unit: How the value is shown: ``s`` or ``MiB`` (the less, the better), or a rate with ``scale``.
        target: What the ratio should reach: rival / ours for seconds, ours / rival for memory.
        scale: A rate is ``scale`` divided by the value in seconds; 0: the value itself.
    """

    what: str
    ours: str
    rival: str
    measure: str = "seconds"
    unit: str = "s"
    target: float | None = None
    scale: float = 0.0


@dataclass
class Contest:
    """Sides that run in turn, and what is read off.

    Attributes:
        actions: Side by name.
        comparisons: Gives the rows, once every side has run.
        threads: Of arithmetic.
        note: What a reader of the table should know.
        warm: Whether every side runs once before the first turn.
        clock: Which clock was read, where it is not the one of ``timed``.
    """

    actions: dict[str, Action]
    comparisons: Callable[[], list[Comparison]]
    threads: int = 1
    note: str = ""
    warm: bool = True
    clock: str = ""
    turns: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)


def timed(work: Callable[[], object], threads: int = 1) -> Mapping[str, float]:
    """Seconds of a piece of work: of the processor with one thread, else of the wall."""
    clock = time.process_time if threads == 1 else time.perf_counter
    began = clock()
    work()
    return {"seconds": clock() - began}


def in_a_child(work: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """What a piece of work measures in a fork of this process, whose memory goes with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(dict(work())).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    if not content:
        raise SystemExit("a measurement died: is there enough memory?")
    return dict(json.loads(content))
