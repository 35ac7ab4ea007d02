"""SIGTERM ends a command as Ctrl-C does, and one line says what was kept.

Light: the signal may come while torch is half imported. Steps of a training end by ``train.stopping``.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ..commands import COMMANDS
from ..errors import printable
from ..system.saying import first


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM raises ``Terminated`` inside the block; a second one ends the process at once.

    Nothing changes where somebody else handles or ignores it, outside the main thread, and in processes other than
    rank 0: these wait for it deep in a library, where no handler of Python would run.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    main = threading.current_thread() is threading.main_thread()
    if not (main and first()) or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


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
