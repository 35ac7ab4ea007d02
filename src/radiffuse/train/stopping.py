"""SIGTERM, which a cluster sends when time is up, and Ctrl-C end a training with a checkpoint."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ..errors import RadiffuseError

CAUGHT = (signal.SIGTERM, signal.SIGINT)
STOPS = "stops after this step, with a checkpoint; Ctrl-C again: at once"


def _told(run: Path, step: int) -> str:
    return f"{run}: stopped after step {step}, as asked. The same command goes on from there."


class Stopped(RadiffuseError):
    """SIGTERM stopped a training, which left a checkpoint of ``step`` in its folder ``run``."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self, run: Path, step: int) -> None:
        self.step = step
        super().__init__(_told(run, step))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a training, which left a checkpoint of ``step`` in its folder ``run``."""

    def __init__(self, run: Path, step: int) -> None:
        self.step = step
        super().__init__(_told(run, step))


class Stop:
    """Catches the first SIGTERM or SIGINT inside the block; a second one does what it did before.

    Only the main thread can catch signals; in another one, such as the viewer's, nothing changes. A signal that is
    ignored, as SIGINT is in a shell's background jobs, stays so.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        """Install the handler."""
        for number in CAUGHT if self._main else ():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers that were there before."""
        self._restore()

    def stopped(self, run: Path, step: int) -> Stopped | Interrupted:
        """What ends a training that was asked to stop; of many processes, one may not have been asked itself."""
        kind = Interrupted if self.requested == signal.SIGINT else Stopped
        return kind(run, step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()
        if self.requested == signal.SIGINT:
            with suppress(RuntimeError):  # the signal came while something else was printed
                print(f"\nradiffuse: {STOPS}", file=sys.stderr, flush=True)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
