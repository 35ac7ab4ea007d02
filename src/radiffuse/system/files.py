"""Files and folders that are complete or absent, locks, JSON and YAML, hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ..config.values import misfit
from ..errors import (
    InputError,
    RadiffuseError,
    RunError,
    first_line,
    from_surroundings,
    is_out_of_memory,
)
from .distributed import rank

MOST_JSON = 2**30
"""Bytes of the largest JSON file that is read."""
MOST_YAML = 2**17
"""Bytes of the largest YAML file that is read: numbers such as 1:1:1:... take minutes in a longer one."""
DEEPEST_YAML = 64
"""Levels of the deepest YAML file that is read."""
SUMS = "SHA256SUMS"
"""Hashes of the files beside and below it, as ``sha256sum --check`` reads them."""
LOCKLESS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems without locks; there, folders are used unlocked, and nothing is cleared."""
PARTIAL = ".part"
"""Suffix of files and folders that are not complete yet; their names also begin with a dot."""


@contextlib.contextmanager
def whole(path: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when it is complete: it is written beside it, then renamed.

    Args:
        path: The file; its folder is there.
        sync: Wait until the content, and then the name, is on the disk, so that a power cut takes neither.

    Raises:
        InputError: The folder cannot be written or the disk is full; an older file stays as it was.
    """
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.{threading.get_ident()}{PARTIAL}")
    try:
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(partial, path)
            if sync:
                to_disk(path.parent)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
    except OSError as error:
        # A library that writes through the file may lose the number of the error.
        raise unwritable(path, error.strerror or "No space left on device") from error


def unwritable(path: Path, reason: object) -> InputError:
    """The error for a file or folder that cannot be written."""
    remedy = "Free the disk or choose another folder"
    return InputError(path, f"cannot be written ({reason})", remedy)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, with the folders above it.

    Of several processes that train together only rank 0 writes; the others do nothing here.

    Raises:
        InputError: The folder cannot be written or the disk is full; an older file stays as it was.
    """
    if rank() > 0:
        return
    data = content.encode("utf-8") if isinstance(content, str) else content
    make_folder(path.parent)
    with whole(path) as file:
        file.write(data)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, if they do not exist.

    Raises:
        InputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error.strerror) from None


def refuse_foreign(out: Path, *marks: str, flag: str = "--out") -> None:
    """Refuse to write into a folder that holds anything, but none of the files that show it to be the command's own.

    ``flag`` is what the folder was given by.

    Raises:
        InputError: It is such a folder, or a file.
    """
    if out.exists() and not out.is_dir():
        raise InputError(out, "is a file", f"Choose another {flag}")
    held = out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir())
    if held and not any((out / mark).exists() for mark in marks):
        problem = f"is not empty, and nothing in it is of this command ({' or '.join(marks[:2])})"
        raise InputError(out, problem, f"Choose another {flag}")


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that appears under its name only when it is complete; one that was there is replaced.

    Yields:
        An empty folder beside it, to be filled.

    Raises:
        InputError: The disk is full or may not be written; what was at ``path`` stays.
    """
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}{PARTIAL}")
    try:
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            for file in partial.rglob("*"):
                to_disk(file)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
            to_disk(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except RadiffuseError:
        raise
    except Exception as error:  # libraries report a full disk in errors of their own
        known = from_surroundings(error)
        if known is None or is_out_of_memory(error):
            raise
        raise unwritable(path, getattr(error, "strerror", None) or first_line(error)) from error


def remove_partials(folder: Path) -> None:
    """Remove what killed writers left half done, in the folder and below; the caller holds its lock."""
    for path in sorted(folder.rglob(f".*{PARTIAL}")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, waiting: str | None = None) -> Iterator[None]:
    """Lock a folder, and clear it of what killed writers left. The lock ends with the process, however it ends.

    Args:
        folder: An existing folder.
        waiting: If another process has the lock: print this and wait for it; None: do not wait.

    Raises:
        InputError: The folder cannot be written, or another process has it.
    """
    from filelock import FileLock, Timeout

    # The lock is one of the system, which ends with the process; one by existence of a file would not.
    lock = FileLock(folder / ".lock", thread_local=False, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if waiting is None:
                remedy = "Wait for it, or choose another --out"
                raise InputError(folder, "is in use by another process", remedy) from None
            print(f"radiffuse: {waiting}", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        if error.errno not in LOCKLESS:
            problem = f"cannot be written ({error.strerror})"
            raise InputError(folder, problem, "Choose another --out or --reader.cache") from None
    try:
        with contextlib.suppress(OSError):
            os.utime(folder / ".lock")  # says when the folder was used last
        if lock.is_locked:  # else another process may be writing one
            remove_partials(folder)
        yield
    finally:
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_atomic(path, json_text(value))


def json_text(value: Any) -> str:
    """A value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def end_last_line(path: Path) -> None:
    """End a line that a kill cut short, so that the next line starts afresh."""
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def append_line(path: Path, text: str) -> None:
    """Append a line, and wait until it is on the disk.

    Raises:
        InputError: The disk is full or the file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(text.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error.strerror) from None


def read_json(path: Path, kind: Any = Any) -> Any:
    """Read JSON of a kind, see ``config.values.misfit``, in which no key may be given twice.

    Raises:
        InputError: Missing, not JSON, larger than ``MOST_JSON``, or of another kind.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"larger than {MOST_JSON} bytes")
        # Of bytes, it finds out whether they are UTF-8, -16 or -32.
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise InputError(path, "is missing", "Give a complete folder") from None
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(path, f"is not readable JSON ({error})", "Correct or restore it") from None
    if fault := misfit(value, kind):
        raise InputError(path, f"is not what it should be: {fault}", "Correct or restore it")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is given twice")
    return values


def read_yaml(path: Path, text: str | None = None) -> dict[str, Any]:
    """A mapping from YAML, of which the text may be at hand: no objects, no aliases (which unfold without bound).

    Raises:
        InputError: Missing, not YAML, larger than ``MOST_YAML``, deeper than ``DEEPEST_YAML``, or no mapping.
    """
    import yaml

    remedy = "Restore or correct the file"
    try:
        if path.stat().st_size > MOST_YAML:
            raise InputError(path, f"is larger than {MOST_YAML} bytes", remedy)
        text = path.read_text(encoding="utf-8") if text is None else text
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
        _refuse_unfolding(yaml.parse(text, loader))
        content = yaml.load(text, loader)
    except FileNotFoundError:
        raise InputError(path, "is missing", "Give a complete folder") from None
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError(path, f"is not readable YAML ({first_line(error)})", remedy) from None
    if not isinstance(content, dict):
        raise InputError(path, "holds no settings", "Write 'name: value' lines in it")
    return content


def _refuse_unfolding(events: Iterable[Any]) -> None:
    """Refuse what cannot be composed in bounded memory and stack: aliases, and deep nesting.

    Raises:
        YAMLError: There is one.
    """
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_YAML:
            raise yaml.YAMLError(f"it has more than {DEEPEST_YAML} levels")


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, last: str, value: Any) -> None:
    """Complete a folder: the hashes of all its files into ``SHA256SUMS``, then a JSON file that marks it as whole.

    The JSON file, ``last``, holds ``value``, and has its hash too.
    """
    if rank() > 0:
        return
    text = json_text(value)
    hashes = {last: hashlib.sha256(text.encode("utf-8")).hexdigest()}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (*hashes, SUMS) and not path.name.startswith("."):
            hashes[name] = sha256(path)
    lines = [f"{value}  {name}\n" for name, value in sorted(hashes.items())]
    write_atomic(folder / SUMS, "".join(lines))
    write_atomic(folder / last, text)


def verify_sums(folder: Path, *names: str) -> None:
    """Compare the named files, or all that are listed and there, with ``SHA256SUMS``, where the folder has one.

    Raises:
        RunError: A file is not what was written.
    """
    path = folder / SUMS
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        value, _, name = line.partition("  ")
        file = folder / name
        inside = file.resolve().is_relative_to(folder.resolve())
        if (names and name not in names) or not inside or not file.is_file():
            continue
        if sha256(file) != value:
            problem = f"is damaged: it does not match {SUMS}"
            raise RunError(file, problem, "Restore it from a copy, or train again")


def reserve(file: IO[bytes], path: Path, size: int) -> None:
    """Allocate disk space now, so that a full disk is an error here and not a crash of the memory map.

    The file is open for writing, ``path`` its name for the message, ``size`` in bytes.

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
        problem = f"needs {size / 1e9:.3g} GB, which are not free ({error.strerror})"
        raise InputError(path, problem, "Free the disk or choose another folder") from None


def to_disk(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header.

    Raises:
        InputError: Damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(path, f"is not readable ({error})", "Restore the file") from None
