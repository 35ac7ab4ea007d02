"""One live line on a terminal; a line now and then in a log file."""

from __future__ import annotations

import sys
import time

from ..errors import printable
from ..system.saying import hush, say

EVERY = 30.0
"""Seconds between lines where the output is no terminal."""


class ProgressLine:
    """Shows how far a piece of work is, behind its name ``what``."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.live = sys.stderr.isatty()
        self.last = 0.0
        self.width = 0

    def update(self, done: int, total: int, detail: str = "") -> None:
        """Show ``done`` of ``total``, and a few words."""
        hush()
        now = time.monotonic()
        last = done >= total
        if now - self.last < (0.1 if self.live else EVERY) and not last:
            return
        self.last = now
        text = f"{self.what} {done}/{total}"
        if detail:
            text += f"  {printable(detail)}"
        if self.live:
            print(f"\r{text:<{self.width}}", end="\n" if last else "", file=sys.stderr, flush=True)
            self.width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def leave(self) -> None:
        """End the live line, so that something else can be said below it."""
        if self.width:
            print(file=sys.stderr)
            self.width = 0

    def __call__(self, done: int, total: int) -> None:
        """As ``update``, for callbacks."""
        self.update(done, total)


class Countdown:
    """Says which run of many begins, and how long those that are left take, by the mean of those that were done.

    Args:
        total: Number of runs.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.number = 0
        self.begun: list[float] = []

    def skip(self) -> None:
        """The next run is there already."""
        self.number += 1

    def begin(self, what: str) -> None:
        """The next run begins."""
        self.number += 1
        self.begun.append(time.monotonic())
        left, done = self.total - self.number + 1, len(self.begun) - 1
        seconds = (self.begun[-1] - self.begun[0]) / max(done, 1) * left
        rest = f"; about {duration(seconds)} left of the whole" if done else ""
        say(f"run {self.number} of {self.total}: {what}{rest}")


def duration(seconds: float) -> str:
    """Seconds in words: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
