"""What reaches the terminal: nothing that a hostile name could steer it with."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO, cast

from ..errors import printable


class Plain:
    """A stream that writes out control and format characters, but for line ends and tabs.

    Args:
        stream: Where to. ``rich`` writes there itself, with its styles: its texts are made printable before.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        self.rich_proxied_file.write(printable(text, "\n\r\t"))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self.rich_proxied_file, name)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Both streams of this process are ``Plain`` within."""
    out, err = (cast(TextIO, Plain(stream)) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
