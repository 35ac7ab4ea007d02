"""Writing files so that no half-written one is ever taken for a whole one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

from .distributed import rank
from .errors import InputError


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all: into a neighbor first, flushed to disk, then renamed.

    Of several processes that train together only rank 0 writes; the others do nothing here.

    Raises:
        InputError: The folder cannot be written or the disk is full; an older file stays as it was.
    """
    if rank() > 0:
        return
    data = content.encode("utf-8") if isinstance(content, str) else content
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise InputError(
            path, f"cannot be written ({error.strerror})", "Free the disk or choose another folder"
        ) from None


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        InputError: Missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, "is missing", "Give a complete folder") from None
    except (ValueError, OSError) as error:
        raise InputError(path, f"is not readable JSON ({error})", "Restore the file") from None


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reserve(file: IO[bytes], path: Path, size: int) -> None:
    """Claim room on the disk now, so that a full one is an error here and not a crash when memory is mapped.

    Args:
        file: Open for writing.
        path: Where it is, for the message.
        size: In bytes.

    Raises:
        InputError: There is not that much room.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot promise
            file.truncate(size)
            return
        raise InputError(
            path,
            f"needs {size / 1e9:.3g} GB that cannot be had ({error.strerror})",
            "Free the disk or choose another folder",
        ) from None
