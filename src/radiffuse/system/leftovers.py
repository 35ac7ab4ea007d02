"""What a command that failed or was killed leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .distributed import rank
from .files import locked, remove_partials


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


def sweep(folder: Path) -> None:
    """Remove what killed writers left half done, unless another process holds the folder or it cannot be written."""
    if (folder / ".lock").exists():
        with contextlib.suppress(InputError), locked(folder):
            pass  # taking it does
    else:  # of a command that takes none, and needs none left behind
        remove_partials(folder)
