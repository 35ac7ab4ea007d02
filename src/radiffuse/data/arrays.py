"""Array files: NumPy's ``.npy``, mapped to memory, claimed on the disk before they are filled, and written by row."""

from __future__ import annotations

import math
import os
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..system.files import reserve, whole
from .scan import Array


def open_array(path: Path) -> Array:
    """An array file as a memory map: only the pages that are read take memory."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def save_array(path: Path, array: Array) -> None:
    """Write an array file whole or not at all."""
    with whole(path, sync=False) as file:
        np.save(file, array, allow_pickle=False)


def write_blank(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """An array file of zeros whose room on the disk is claimed.

    Raises:
        InputError: There is not that much room.
    """
    with whole(path, sync=False) as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype)) | {"shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        start = file.tell()
        reserve(file, path, start + math.prod(shape) * np.dtype(dtype).itemsize)


def is_whole(path: Path, dtype: Any, shape: tuple[int, ...]) -> bool:
    """Whether a file holds an array of that type and shape."""
    try:
        array = open_array(path)
    except (OSError, ValueError, EOFError):
        return False
    return array.dtype == dtype and array.shape == shape


def allocate(path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    """An array file of that type and shape: the one that is there, else a blank one.

    Raises:
        InputError: There is not that much room.
    """
    if not is_whole(path, dtype, shape):
        write_blank(path, dtype, shape)


def write_row(path: Path, row: int, values: Array) -> None:
    """Write one row of an array file.

    By offset, not through a map: two machines that share a page of it would overwrite each other.
    """
    with path.open("r+b", buffering=0) as file:
        offset, shape, dtype = _layout(path, os.fstat(file.fileno()).st_ino)
        data = np.ascontiguousarray(values, dtype)
        if data.shape != shape[1:]:
            raise ValueError(f"a row of shape {data.shape} in an array of {shape}")
        os.pwrite(file.fileno(), data.tobytes(), offset + row * data.nbytes)


def checksum(array: Array, start: int = 0) -> int:
    """CRC-32 of an array's values, going on from another one."""
    return zlib.crc32(np.ascontiguousarray(array).data, start)


# ------------------------------------------------------------------------------------------------ internal


@lru_cache(maxsize=16)
def _layout(path: Path, inode: int) -> tuple[int, tuple[int, ...], np.dtype[Any]]:
    """First byte, shape and type of an array file; reading the header costs as much as writing a small film."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    return whole.offset, whole.shape, whole.dtype
