"""A training that is asked to stop, as a cluster does when time is up, ends with a checkpoint."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ..errors import RadiffuseError


class Stopped(RadiffuseError):
    """A training stopped because it was asked to; its checkpoint is there.

    Args:
        run: Its folder.
        step: Steps that are done.
    """

    exit_code = 128 + signal.SIGTERM

    def __init__(self, run: Path, step: int) -> None:
        self.step = step
        super().__init__(
            f"{run}: stopped after step {step}, as asked. The same command goes on from there."
        )


class Stop:
    """Notes SIGTERM while it is entered, instead of dying of it. A second one ends the process.

    Signals reach the main thread alone; in another one, such as the viewer's, nothing changes.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        """Take the signal."""
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signal back."""
        if self._main:
            self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
