"""``radiffuse cache``: what the cache holds, how long it has not been used, and deleting it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..config import Cache
from ..data.prepare import cache_folder
from ..errors import InputError, missing
from ..system.files import locked
from ..system.hardware import folder_size

KINDS = ("prepared", "features")
"""Folders whose arrays are made again when they are needed; splits are decisions, and stay."""


class Entry(NamedTuple):
    """Arrays of one data set under one plan, or features of one network.

    Attributes:
        path: Their folder.
        bytes: Size.
        days: Since a command opened them last.
    """

    path: Path
    bytes: int
    days: float


def cache(settings: Cache) -> None:
    """Print the entries of the cache, the longest unused first, and delete those that are asked for.

    Raises:
        InputError: The folder is no cache, or an entry cannot be deleted.
    """
    folder = cache_folder(settings.cache)
    if settings.cache is not None and not folder.is_dir():
        raise missing(folder)
    entries = sorted(held(folder), key=lambda entry: -entry.days)
    unused = [entry for entry in entries if entry.days >= settings.days]
    for entry in entries:
        note = f"  unused for {settings.days} days" if entry in unused else ""
        name = entry.path.relative_to(folder)
        print(f"{name!s:<30}  {entry.bytes / 1e6:>10,.1f} MB  {entry.days:>6.1f} days{note}")
    total, idle = (sum(entry.bytes for entry in part) / 1e6 for part in (entries, unused))
    print(f"{folder}: {total:,.1f} MB, of which {idle:,.1f} MB unused for {settings.days} days")
    if settings.delete is not None:
        chosen = entries if settings.delete == "all" else unused
        freed = sum(entry.bytes for entry in chosen if delete(entry.path))
        print(f"deleted {freed / 1e6:,.1f} MB")


def held(folder: Path) -> Iterator[Entry]:
    """The entries of a cache folder. Their lock is opened, and so dated anew, whenever they are used."""
    for kind in KINDS:
        for path in sorted((folder / kind).glob("*")):
            if path.is_dir() and not path.is_symlink():
                lock = path / ".lock"
                last = (lock if lock.exists() else path).stat().st_mtime
                yield Entry(path, folder_size(path), max(0.0, time.time() - last) / 86400)


def delete(path: Path) -> bool:
    """Delete an entry, unless a command is filling it; whether it is gone.

    Raises:
        InputError: It cannot be deleted.
    """
    try:
        with locked(path):
            shutil.rmtree(path)
    except InputError as error:
        print(f"warning: {path} stays: it {error.problem}", file=sys.stderr)
        return False
    except OSError as error:
        remedy = "Change its permissions"
        raise InputError(path, f"cannot be deleted ({error.strerror})", remedy) from None
    return True
