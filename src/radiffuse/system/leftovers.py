"""What a command that failed leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .distributed import rank


@contextlib.contextmanager
def leaves_nothing_empty(folder: Path) -> Iterator[None]:
    """If the block fails, the folders that it made, the given one and those above it, go where they hold no file."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        if made and rank() == 0:
            inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            for path in (*inner, *made):
                with contextlib.suppress(OSError):  # it holds something
                    if [held.name for held in path.iterdir()] == [".lock"]:
                        (path / ".lock").unlink()
                    path.rmdir()
        raise
