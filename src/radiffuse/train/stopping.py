"""SIGTERM, which a cluster sends when time is up, ends a training with a checkpoint."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Self

from ..errors import RadiffuseError


class Stopped(RadiffuseError):
    """SIGTERM stopped a training, which left a checkpoint of ``step`` in its folder ``run``."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self, run: Path, step: int) -> None:
        self.step = step
        super().__init__(
            f"{run}: stopped after step {step}, as asked. The same command goes on from there."
        )


class Stop:
    """Catches the first SIGTERM inside the block; a second one ends the process.

    Only the main thread can catch signals; in another one, such as the viewer's, nothing changes.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        """Install the handler."""
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handler that was there before."""
        if self._main:
            self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        signal.signal(signal.SIGTERM, self._before or signal.SIG_DFL)
