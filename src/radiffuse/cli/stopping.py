"""SIGTERM ends a command as Ctrl-C does, and one line says what was kept.

Light: the signal may come while torch is half imported. Steps of a training end by ``train.stopping``.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from ..commands import COMMANDS
from ..errors import printable
from ..system.saying import first

MOMENT = 0.05
"""Seconds after which a signal is sent again that came where nothing can be raised."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` inside the block; a second one ends the process at once.

    What either signal raises is lost where Python discards errors, as while it collects garbage: then it comes again.
    Nothing changes where somebody else handles or ignores SIGTERM, outside the main thread, and in processes other than
    rank 0: these wait for it deep in a library, where no handler of Python would run.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    def lost(error: Any) -> None:
        if not isinstance(error.exc_value, KeyboardInterrupt):
            hook(error)
        elif isinstance(error.exc_value, Terminated):
            signal.signal(signal.SIGTERM, end)
            _thread.start_new_thread(_send_again, (signal.SIGTERM,))
        else:
            _thread.start_new_thread(_send_again, (signal.SIGINT,))

    main = threading.current_thread() is threading.main_thread()
    if not (main and first()) or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, lost
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.unraisablehook = hook


def _send_again(number: int) -> None:
    time.sleep(MOMENT)
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)  # which also ends what it waits for


def stopped(name: str, out: str | None) -> str:
    """What is said of a command that was stopped: what is kept in its folder, and how it goes on."""
    if not out:
        return "stopped, as asked. The same command starts again."
    where = f"{printable(out)}: stopped, as asked"
    if COMMANDS[name].anew:
        return f"{where}. Nothing is half written, and the same command starts again."
    if not Path(out).exists():
        return f"{where}, before anything was written there. The same command starts again."
    kept = ", ".join(_trained(Path(out))) or "what was finished"
    return f"{where}. Kept: {kept}. The same command goes on from there."


def finished(name: str, result: Any) -> str:
    """The same of one that had written all it writes, and was stopped while it said so."""
    where = getattr(result, "folder", result)
    place = f"{printable(str(where))}: " if isinstance(where, Path) else ""
    return f"{place}{name} is done; only its last lines were stopped, as asked."


def _trained(out: Path) -> Iterator[str]:
    """Networks of a run and its stages that are trained or begun, or how many parts of a study are finished."""
    if ended := len(list(out.glob("runs/*/report.html"))):
        yield f"{ended} finished run{'s' * (ended > 1)}"
    for run in sorted(out.glob("*")):
        if state := _state(run, "trained"):
            yield f"{run.name} ({state})"
    if state := _state(out, "the trained network"):
        yield state


def _state(run: Path, trained: str) -> str:
    """``trained`` where a run is; else its newest step, if there is a checkpoint."""
    if (run / "model" / "config.json").is_file():
        return trained
    reached = max((path.name for path in run.glob("state/step-*")), default="")
    return reached and f"step {reached.removeprefix('step-').lstrip('0')}"
