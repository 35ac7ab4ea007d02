"""Array files: mapped to memory, claimed on the disk before they are filled, and filled so that a kill costs one row.

A row counts as done when its line stands in ``rows.jsonl``, which is written after the row. So what was interrupted
goes on, and each line carries a checksum, so a damaged row is made again. Checksums of a whole folder are compared only
where a file of it has changed since they last agreed: that reads all of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..system.files import end_last_line, reserve, to_disk, whole, write_atomic
from .scan import Array
from .workers import each

ROWS = "rows.jsonl"
"""Log of finished rows."""
CHECKED = "checked"
"""File with the state in which all rows were whole."""

Item = TypeVar("Item")
Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def open_array(path: Path) -> Array:
    """An array file as a memory map: only the pages that are read take memory."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def save_array(path: Path, array: Array) -> None:
    """Write an array file whole or not at all."""
    with whole(path, sync=False) as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(path: Path, arrays: Array | Mapping[str, Array]) -> None:
    """Write an array as ``.npy``, or arrays by name as compressed ``.npz``, by ``write_atomic``."""
    buffer = io.BytesIO()
    if isinstance(arrays, Mapping):
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    else:
        np.save(buffer, arrays, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def allocate(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """An array file of that type and shape: the one that is there, else zeros whose room on the disk is claimed.

    Raises:
        InputError: There is not that much room.
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
    """Write rows ``first`` and following of an array file.

    By offset, not through a map: two machines that share a page of it would overwrite each other.
    """
    with path.open("r+b", buffering=0) as file:
        offset, shape, dtype = _layout(path, os.fstat(file.fileno()).st_ino)
        data = np.ascontiguousarray(values, dtype)
        if data.shape[1:] != shape[1:]:
            raise ValueError(f"rows of shape {data.shape[1:]} in an array of {shape}")
        place = offset + first * math.prod(shape[1:]) * dtype.itemsize
        os.pwrite(file.fileno(), data.tobytes(), place)


def checksum(*arrays: Array) -> int:
    """CRC-32 of the values of arrays, one after the other."""
    crc = 0
    for array in arrays:
        crc = zlib.crc32(np.ascontiguousarray(array).data, crc)
    return crc


def logged_rows(folder: Path) -> dict[int, int]:
    """Checksums by finished row, as the log of a folder has them."""
    log = folder / ROWS
    rows = {}
    if log.exists():
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    rows[int(entry["row"])] = int(entry["crc32"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill: its row is made again
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
    """Make the rows of a folder that are not there yet, or are damaged.

    Args:
        folder: Of the array files; the caller holds its lock.
        items: What each row is made of.
        make: Makes and writes the row of (row, item), and returns its checksum. It must be safe to apply it twice.
        read: Arrays of a row as they lie on the disk.
        skip_bad: Go on where a row cannot be made.
        progress: Called after each row.
        **workers: Who makes them, see ``workers.each``.

    Returns:
        Why rows cannot be made, by row.

    Raises:
        InputError: A row cannot be made and ``skip_bad`` is off. Finished rows are kept.
    """
    logged = logged_rows(folder)
    untouched = _checked(folder) == _state(folder)
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
            else:
                log.write(json.dumps({"row": row, "crc32": outcome}) + "\n")
                log.flush()
            if progress is not None:
                progress(count, len(items))
    changed = not untouched or len(bad) < len(todo)
    all_bad = len(bad) == len(items)
    if changed and not all_bad and not bad.keys() & logged.keys():
        # Those that are logged and bad are damaged, and cannot be made again.
        for path in _files(folder):
            to_disk(path)
        write_atomic(folder / CHECKED, _state(folder))
    return bad


# ------------------------------------------------------------------------------------------------ internal


@lru_cache(maxsize=16)
def _layout(path: Path, inode: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """First byte, shape and type of an array file; reading the header costs as much as writing a small film."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array.offset, array.shape, array.dtype


def _is_whole(read: Callable[[int], Sequence[Array]], row: int, crc: int) -> bool:
    try:
        return checksum(*read(row)) == crc
    except (OSError, ValueError, EOFError, IndexError):
        return False


def _files(folder: Path) -> list[Path]:
    return [
        folder / name
        for name in sorted(os.listdir(folder))
        if name.endswith(".npy") or name == ROWS
    ]


def _checked(folder: Path) -> str:
    path = folder / CHECKED
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _state(folder: Path) -> str:
    """What tells whether a file of the folder has been written since."""
    digest = hashlib.sha256()
    for path in _files(folder):
        status = path.stat()
        known = (path.name, status.st_ino, status.st_size, status.st_mtime_ns)
        digest.update(repr(known).encode())
    return digest.hexdigest()
