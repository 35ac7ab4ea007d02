"""What a command says on stderr of what it is doing."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from .distributed import rank

MOMENT = 2.0
"""Seconds after which a person wants to know what is being done."""
_waiting: list[threading.Timer] = []
_said: list[str] = []
"""The last line."""


def say(text: str) -> None:
    """A line; of processes that train together rank 0 alone speaks. A text that begins with a space continues one."""
    hush()
    if rank() == 0:
        _print(text)


def _print_once(text: str) -> None:
    if _said != [text]:
        _print(text)


def _print(text: str) -> None:
    _said[:] = [text]
    line = text if text.startswith(" ") else f"radiffuse: {text}"
    print(line, file=sys.stderr, flush=True)


def soon(text: str) -> None:
    """A line about what begins now, if nothing else was said within a moment, nor this line before it."""
    hush()
    if not first():  # settled now: when the time is up, torch may be half imported
        return
    timer = threading.Timer(MOMENT, _print_once, (text,))
    timer.daemon = True
    _waiting.append(timer)
    timer.start()


def first() -> bool:
    """Whether this is rank 0, also before processes that were launched together are joined."""
    launched_as = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return rank() == 0 and launched_as == "0"


def hush() -> None:
    """Whatever ``soon`` had to say is no longer of interest."""
    while _waiting:
        _waiting.pop().cancel()


def near(path: Path) -> str:
    """A path as it is typed from here: relative where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path != here and path.is_relative_to(here) else path)
