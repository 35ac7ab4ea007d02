"""Raw or deflated voxels behind a header: the common half of NIfTI, MetaImage and NRRD."""

from __future__ import annotations

import io
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..scan import Array
from .common import check_length, truncated

_CHUNK = 2**16
_SLICE = 2**24


class Inflater(io.RawIOBase):
    """A zlib stream or gzip members; never inflates more than it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._engine = zlib.decompressobj(47)  # 32 + 15: zlib or gzip, whichever the header says

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as one step goes; 0 at the end of the stream.

        Raises:
            EOFError: Where the stream breaks off.
            zlib.error: Where it is damaged, including a wrong checksum.
        """
        view = memoryview(buffer).cast("B")
        while len(view):
            if self._engine.eof:
                left = self._engine.unused_data or self._file.read(_CHUNK)
                if not left.strip(b"\0"):
                    return 0
                self._engine = zlib.decompressobj(47)
            else:
                left = self._engine.unconsumed_tail or self._file.read(_CHUNK)
            data = self._engine.decompress(left, len(view))
            if data:
                view[: len(data)] = data
                return len(data)
            if not left and not self._engine.eof:
                raise EOFError
        return 0


def read_payload(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    offset: int,
    compressed: bool,
    inner_offset: int = 0,
) -> Array:
    """Read an array whose first axis varies fastest.

    Memory is one copy of the array: bytes go straight into it.

    Args:
        path: The file that holds the voxels.
        shape: Extents, the fastest first.
        dtype: Stored type, with its byte order.
        offset: Where in the file the voxels or their deflated stream begin.
        compressed: Whether they are deflated (zlib or gzip).
        inner_offset: Bytes to pass over inside the deflated stream.

    Returns:
        The array in Fortran order, in its stored type.

    Raises:
        InputError: Where the file is too short for the array.
        EOFError, zlib.error: Where the deflated stream is damaged.
    """
    size = math.prod(shape) * dtype.itemsize
    check_length(path, size + inner_offset + (0 if compressed else offset), compressed=compressed)
    with path.open("rb") as file:
        file.seek(offset)
        stream: Any = Inflater(file) if compressed else file
        _skip(path, stream, inner_offset)
        flat = np.empty(size, np.uint8)
        _fill(path, stream, flat.data)
        if compressed:
            stream.read(1)  # meets the end of the stream, where the checksum is verified
    return flat.view(dtype).reshape(shape, order="F")


def _skip(path: Path, stream: Any, count: int) -> None:
    while count > 0:
        passed = len(stream.read(min(count, _CHUNK)) or b"")
        if not passed:
            raise truncated(path)
        count -= passed


def _fill(path: Path, stream: Any, view: memoryview) -> None:
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + _SLICE])
        if not count:
            raise truncated(path)
        filled += count
