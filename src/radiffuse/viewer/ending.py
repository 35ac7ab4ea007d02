"""The folder of a server is removed when it ends, also by a signal, or at the next start if it was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISDIR
from types import FrameType

from ..errors import InputError
from ..system.files import locked

PREFIX = "radiffuse-view-"
YOUNG = 60.0
"""Seconds in which a new folder may not have its lock yet."""


@contextlib.contextmanager
def signals_end() -> Iterator[None]:
    """SIGTERM raises ``SystemExit``, so that what is to be done at the end is done; SIGHUP and SIGQUIT do the same.

    One that is ignored, as SIGHUP is under nohup, stays so. In other threads than the main one nothing changes.
    """

    def end(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)  # uvicorn ends in peace on this one
            return
        for kind in before:
            signal.signal(kind, signal.SIG_IGN)  # a second one does not disturb the end
        raise SystemExit(128 + number)

    kinds = [getattr(signal, f"SIG{name}", None) for name in ("TERM", "HUP", "QUIT")]
    main = threading.current_thread() is threading.main_thread()
    found = {kind: signal.getsignal(kind) for kind in kinds if kind is not None and main}
    before = {kind: handler for kind, handler in found.items() if handler != signal.SIG_IGN}
    try:
        for kind in before:
            signal.signal(kind, end)
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A new folder for this user alone, removed at the end; those of servers that were killed go first."""
    sweep_folders()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_folders() -> None:
    """Remove the folders of servers of this user that are dead: their locks are free."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, InputError):
            found = folder.lstat()
            own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
            old = S_ISDIR(found.st_mode) and time.time() - found.st_mtime > YOUNG
            if own and old:
                with locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
