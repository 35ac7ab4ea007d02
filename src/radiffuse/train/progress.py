"""One live line on a terminal; a line now and then in a log file."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """Shows how far a piece of work is.

    Args:
        what: Name shown first.
        every: Seconds between lines where the output is no terminal.
    """

    def __init__(self, what: str, every: float = 30.0) -> None:
        self.what = what
        self.every = every
        self.live = sys.stderr.isatty()
        self.last = 0.0
        self.width = 0

    def update(self, done: int, total: int, detail: str = "") -> None:
        """Show ``done`` of ``total``, and a few words."""
        now = time.monotonic()
        last = done >= total
        if now - self.last < (0.1 if self.live else self.every) and not last:
            return
        self.last = now
        text = f"{self.what} {done}/{total}"
        if detail:
            text += f"  {detail}"
        if self.live:
            print(f"\r{text:<{self.width}}", end="\n" if last else "", file=sys.stderr, flush=True)
            self.width = len(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        """As ``update``, for callbacks."""
        self.update(done, total)


def duration(seconds: float) -> str:
    """Seconds in words: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
