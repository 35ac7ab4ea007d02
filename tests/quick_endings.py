"""A tiny run takes longer over what it leaves for its readers than over training: here is what makes that short."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Here:
    """A pool whose work is done here, for a process takes longer to start than to check a few small films.

    What would go to a process and back is pickled all the same.
    """

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        work, arguments = pickle.loads(pickle.dumps((work, arguments)))
        future.set_result(pickle.loads(pickle.dumps(work(*arguments))))
        return future


def quick_endings() -> list[tuple[Any, str, Any]]:
    """Module, name and value of what is set: blank figures, few steps of samples and timing, no processes in checks."""
    from radiffuse.data.checking import processes
    from radiffuse.inference import draw
    from radiffuse.reports import exports, html, style
    from radiffuse.synthesis import training
    from radiffuse.train.planning import measuring

    return [
        (html, "_svg", lambda *_: "<svg></svg>"),
        (exports, "_drawn", lambda figure, name, kind: kind.encode()),
        (style, "SETTINGS", style.SETTINGS | {"figure.constrained_layout.use": False}),
        (measuring, "SECONDS", 0.0),
        (processes, "_pool", Here),
        (processes, "_processes_work", lambda: True),
        (draw, "SAMPLE_STEPS", 2),
        (training, "SAMPLE_STEPS", 2),
    ]
