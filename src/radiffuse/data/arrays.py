"""Memory-mapped array files that are filled row by row, so that an interruption costs one row at most.

A row is done when its line with a checksum is in ``rows.jsonl``; a damaged one is made again. As that
reads the whole folder, checksums are compared only if a file has changed since they last agreed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from ..errors import InputError
from ..system.files import end_last_line, reserve, to_disk, whole, write_atomic
from .scan import Array
from .workers import each

ROWS = "rows.jsonl"
"""Log of finished rows."""
MOST_BYTES = 2**31
"""Bytes of all arrays of a file that is read whole."""
CHECKED = "checked"
"""File with the state of the folder in which all rows were intact."""
_HEADER = threading.Lock()
"""NumPy parses headers as Python, where CPython 3.11 fails now and then with two threads inside (gh-106905)."""

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def open_array(path: Path) -> Array:
    """An array file as a memory map."""
    with _HEADER:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def map_array(path: Path) -> Array:
    """As ``open_array``, for files of ``save_array``, whose header is parsed once."""
    offset, shape, dtype = _layout(path, path.stat().st_ino)
    return np.memmap(path, dtype, "r", offset, shape)


def read_arrays(path: Path, *names: str) -> dict[str, Array]:
    """All arrays of an ``.npz`` file by name, or that of an ``.npy`` file as ``array``.

    Args:
        path: The file.
        *names: Arrays that must be there.

    Raises:
        InputError: It is damaged, holds objects, a header that lies or more than ``MOST_BYTES``, or lacks a name.
    """
    remedy = "Remove it, or run the command that writes it again"
    try:
        if path.suffix == ".npy":
            size = path.stat().st_size
            with path.open("rb") as opened:
                return {"array": _read_array(opened, size, size)}
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
            arrays = {}
            for member in archive.infolist():
                with archive.open(member) as file:
                    array = _read_array(file, member.file_size, total)
                arrays[member.filename.removesuffix(".npy")] = array
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for damaged files
        raise InputError(path, f"not readable ({error})", remedy) from None
    if missing := [name for name in names if name not in arrays]:
        raise InputError(path, f"not readable (it lacks {missing[0]})", remedy)
    return arrays


def _read_array(file: IO[bytes], size: int, total: int) -> Array:
    """An array whose header agrees with its size, from a file whose arrays take ``total`` bytes in all.

    Raises:
        ValueError: It is too large, or the header is another.
    """
    if total > MOST_BYTES:
        raise ValueError(f"it unfolds to more than {MOST_BYTES} bytes")
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with _HEADER:
        shape, by_columns, dtype = read[version](file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError("its header does not describe what follows")
    if not dtype.itemsize or not math.prod(shape):
        return np.empty(shape, dtype)
    flat = np.frombuffer(file.read(), dtype)
    return flat.reshape(shape[::-1]).T if by_columns else flat.reshape(shape)


def save_array(path: Path, array: Array) -> None:
    """Write an array file whole or not at all, in the order of C, which readers of its pages rely on."""
    with whole(path, sync=False) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def write_arrays(path: Path, arrays: Array | Mapping[str, Array]) -> None:
    """Write an array as ``.npy``, or arrays by name as compressed ``.npz``, by ``write_atomic``."""
    buffer = io.BytesIO()
    if isinstance(arrays, Mapping):
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    else:
        np.save(buffer, arrays, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def allocate(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """Keep an array file of that type and shape, or make one of zeros with its disk space reserved.

    Raises:
        InputError: The disk has too little space.
    """
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = open_array(path)
        if array.dtype == dtype and array.shape == shape:
            return
    with whole(path, sync=False) as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        reserve(file, path, file.tell() + math.prod(shape) * np.dtype(dtype).itemsize)


def write_rows(path: Path, first: int, values: Array) -> None:
    """Write rows from ``first`` on, by offset: machines that map the same page overwrite each other."""
    with path.open("r+b", buffering=0) as file:
        offset, shape, dtype = _layout(path, os.fstat(file.fileno()).st_ino)
        data = np.ascontiguousarray(values, dtype)
        if data.shape[1:] != shape[1:]:
            raise ValueError(f"rows of shape {data.shape[1:]} in an array of {shape}")
        place = offset + first * math.prod(shape[1:]) * dtype.itemsize
        os.pwrite(file.fileno(), data.tobytes(), place)


def checksum(*arrays: Array) -> int:
    """CRC-32 over the values of arrays."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def logged_rows(folder: Path) -> dict[int, int]:
    """Checksums by finished row, from the log of a folder; a row without one was lost, and cannot be made again."""
    rows: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / ROWS).read_text(encoding="utf-8", errors="replace").splitlines():
            # A line cut short by a kill is passed over: its row is made again.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["crc32"] is None:
                    rows.pop(int(entry["row"]), None)
                else:
                    rows[int(entry["row"])] = int(entry["crc32"])
    return rows


def fill_rows(
    folder: Path,
    items: Mapping[int, Item],
    make: Callable[[tuple[int, Item]], int],
    read: Callable[[int], Sequence[Array]],
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
    **workers: Any,
) -> dict[int, InputError]:
    """Make the rows of a folder that are missing or damaged; the caller holds its lock.

    Args:
        folder: Of the array files.
        items: What each row is made of.
        make: Writes the row of (row, item) and returns its checksum; must be safe to repeat.
        read: Arrays of a row on the disk.
        skip_bad: Go on where a row cannot be made.
        progress: Called after each row.
        **workers: See ``workers.each``.

    Returns:
        Why rows cannot be made, by row.

    Raises:
        InputError: A row cannot be made and ``skip_bad`` is off. Finished rows are kept.
    """
    logged = logged_rows(folder)
    checked = folder / CHECKED
    text = checked.read_text(encoding="utf-8", errors="replace") if checked.is_file() else ""
    untouched = text == _state(folder)
    done = {row for row, crc in logged.items() if untouched or _is_whole(read, row, crc)}
    todo = [(row, item) for row, item in items.items() if row not in done]
    bad: dict[int, InputError] = {}
    end_last_line(folder / ROWS)
    with (
        (folder / ROWS).open("a", encoding="utf-8") as log,
        contextlib.closing(each(make, todo, **workers)) as outcomes,
    ):
        for count, ((row, _), outcome) in enumerate(outcomes, start=len(done) + 1):
            if isinstance(outcome, InputError):
                bad[row] = outcome
                if not skip_bad:
                    raise outcome
            if row not in bad or row in logged:  # other processes read the log
                crc = None if row in bad else outcome
                log.write(json.dumps({"row": row, "crc32": crc}) + "\n")
                log.flush()
            if progress is not None:
                progress(count, len(items))
    changed = not untouched or len(bad) < len(todo)
    all_bad = len(bad) == len(items)
    if changed and not all_bad and not bad.keys() & logged.keys():
        # Rows that are both logged and bad are damaged and cannot be made again.
        for path in _files(folder):
            to_disk(path)
        write_atomic(checked, _state(folder))
    return bad


# ------------------------------------------------------------------------------------------------ internal


@lru_cache(maxsize=2**16)
def _layout(path: Path, inode: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """First byte, shape and type of an array file; cached, as reading it takes as long as a film."""
    array = open_array(path)
    return array.offset, array.shape, array.dtype  # type: ignore[attr-defined]


def _is_whole(read: Callable[[int], Sequence[Array]], row: int, crc: int) -> bool:
    try:
        return checksum(*read(row)) == crc
    except (OSError, ValueError, EOFError, IndexError):
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.suffix == ".npy" or path.name == ROWS]


def _state(folder: Path) -> str:
    """A hash that changes when a file of the folder is written."""
    digest = hashlib.sha256()
    for path in _files(folder):
        status = path.stat()
        known = (path.name, status.st_ino, status.st_size, status.st_mtime_ns)
        digest.update(repr(known).encode())
    return digest.hexdigest()
