"""Voxels behind a header, raw or deflated: the common half of NIfTI, MetaImage and NRRD.

ITK is not used: it verifies no checksum of deflated voxels, opens whatever file a header names,
allocates what a header asks for, and prints to the terminal on damaged files.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np

from ...errors import InputError
from ..links import refuse_link
from ..scan import Array, Scan
from .common import (
    CONVERT,
    DAMAGED,
    ONE_EACH,
    Header,
    check_extent,
    check_length,
    native,
    truncated,
)
from .formats import first_bytes
from .geometry import spacing_of, swap_film_axes, to_scan_order

HEADER_BYTES = 2**18
"""Longest text header that is searched."""

_CHUNK = 2**16
_SLICE = 2**24


@dataclass(frozen=True)
class Voxels:
    """Where the voxels lie, and how they are stored.

    Attributes:
        format: A key of ``FORMATS``.
        shape: Extents, the fastest axis first, with the channel axis where there is one.
        channel_axis: Position of the channel axis in ``shape``, or None.
        affine: ``(4, 4)`` RAS+ for the spatial axes in file order; None where not given.
        data: The file that holds the voxels.
        offset: Their first byte; -1: they are the last bytes of the file.
        compressed: Whether they are deflated.
        whole: The header is deflated with them, so ``offset`` counts inflated bytes.
        declared: Channels that the data set declares; 1 and 3 are read in any case.
    """

    format: str
    shape: tuple[int, ...]
    channel_axis: int | None
    dtype: np.dtype[Any]
    affine: Array | None
    data: Path
    offset: int
    compressed: bool
    whole: bool = False
    declared: int = 1

    @property
    def size(self) -> int:
        """Bytes of the voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    def header(self, path: Path) -> Header:
        """The header, checked against limits and the file's length; ``path`` is for errors."""
        shape = tuple(n for axis, n in enumerate(self.shape) if axis != self.channel_axis)
        if len(shape) not in (2, 3):
            raise InputError(path, f"has {len(shape)} spatial axes, not two or three", CONVERT)
        channels = 1 if self.channel_axis is None else self.shape[self.channel_axis]
        if channels not in (1, 3, self.declared):
            raise InputError(path, f"has {channels} values per voxel", ONE_EACH)
        check_extent(path, shape, channels)
        check_length(self.data, self.size + max(0, self.offset), compressed=self.compressed)
        affine, spacing = self.affine, None
        if affine is not None:
            spacing_of(path, affine, 3)
            affine = swap_film_axes(affine) if len(shape) == 2 else affine
            spacing = spacing_of(path, affine, len(shape))
        return Header(
            self.format,
            shape[::-1] if len(shape) == 2 else shape,
            channels,
            str(self.dtype.newbyteorder("=")),
            spacing,
            affine,
            (0.0, 255.0) if self.dtype == np.uint8 else None,
        )

    def array(self) -> Array:
        """``(C, rows, columns)`` or ``(C, i, j, k)``, read without a second copy; call ``header`` first.

        Raises:
            InputError: The file is too short for the array.
            EOFError, zlib.error: The deflated stream is damaged.
        """
        flat = np.empty(self.size, np.uint8)
        start = self.offset if self.offset >= 0 else os.stat(self.data).st_size - self.size
        within = self.whole and self.compressed
        with self.data.open("rb") as file:
            file.seek(0 if within else start)
            stream: Any = Inflater(file) if self.compressed else file
            for skipped in range(0, start if within else 0, _CHUNK):
                self._fill(stream, memoryview(bytearray(min(start - skipped, _CHUNK))))
            self._fill(stream, flat.data)
            if self.compressed:
                # The checksum stands at the end of the stream, behind bytes that no voxel needs.
                for _ in range(_SLICE // _CHUNK):
                    if not stream.read(_CHUNK):
                        break
        data = flat.view(self.dtype).reshape(self.shape, order="F")
        if self.channel_axis is not None:
            data = np.moveaxis(data, self.channel_axis, 0)
        return to_scan_order(native(data), len(self.shape) - (self.channel_axis is not None))

    def scan(self, path: Path) -> Scan:
        """Header and voxels together; ``path`` is for errors."""
        return self.header(path).scan(self.array())

    def _fill(self, stream: Any, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            count = stream.readinto(view[filled : filled + _SLICE])
            if not count:
                raise truncated(self.data)
            filled += count


def reader_of(
    parse: Callable[[Path], Voxels],
) -> tuple[Callable[[Path], Header], Callable[..., Scan], Callable[[Path], Path]]:
    """``read_header``, ``read`` and ``voxel_file`` of a format, given what says where the voxels of a file lie."""

    def read(path: Path, *, label: bool = False) -> Scan:
        return parse(path).scan(path)  # a label map is read as any other

    return lambda path: parse(path).header(path), read, lambda path: parse(path).data


class Inflater(io.RawIOBase):
    """A zlib stream or gzip members; never inflates more than is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._engine = zlib.decompressobj(47)  # 32 + 15: zlib or gzip, whichever the header says

    def readable(self) -> bool:  # noqa: D102
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill part of the buffer; 0 at the end of the stream.

        Raises:
            EOFError: The stream breaks off.
            zlib.error: It is damaged, or its checksum is wrong.
        """
        view = memoryview(buffer).cast("B")
        while len(view):
            if self._engine.eof:
                left = self._engine.unused_data
                left += self._file.read(_CHUNK) if len(left) < 2 else b""
                if not left.startswith(b"\x1f\x8b"):  # no further member: padding, or other bytes
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


@dataclass(frozen=True)
class Fields:
    """Fields of a text header by name, without blanks in it; ``end`` is the first byte behind."""

    path: Path
    values: dict[str, str]
    end: int

    def __contains__(self, name: str) -> bool:
        return name.replace(" ", "") in self.values

    def text(self, name: str, default: str = "") -> str:
        """The text of a field."""
        return self.values.get(name.replace(" ", ""), default)

    def numbers(
        self, name: str, count: int | None = None, default: str = "", *, text: str | None = None
    ) -> list[float]:
        """Finite numbers from a field, or from the part of it given as ``text``.

        Raises:
            InputError: It holds something else, or not ``count`` numbers.
        """
        try:
            words = (self.text(name, default) if text is None else text).split()
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if not values or not np.isfinite(values).all() or count not in (None, len(values)):
            raise self.damaged(name)
        return values

    def integers(self, name: str, count: int, default: str = "") -> tuple[int, ...]:
        """Like ``numbers``, for integers."""
        values = self.numbers(name, count, default)
        if any(value != int(value) or abs(value) > 2**53 for value in values):
            raise self.damaged(name)
        return tuple(int(value) for value in values)

    def shape(self, dimensions: str, sizes: str, most: int) -> tuple[int, ...]:
        """The extents in field ``sizes``, as many as field ``dimensions`` says: 2 to ``most``."""
        (dims,) = self.integers(dimensions, 1)
        if not 2 <= dims <= most:
            raise InputError(self.path, f"has {dims} dimensions, not two or three", ONE_EACH)
        return self.integers(sizes, dims)

    def dtype(self, name: str, types: Mapping[str, str], *, big: bool) -> np.dtype[Any]:
        """The voxel type that the format calls ``name``; ``big`` is the byte order."""
        if name not in types:
            raise InputError(self.path, f"has the voxel type {name!r}", CONVERT)
        return np.dtype((">" if big else "<") + types[name])

    def damaged(self, name: str) -> InputError:
        """The error for a field that makes no sense."""
        return InputError(self.path, f"has a damaged header field, {name!r}", DAMAGED)

    def data_file(self, name: str) -> Path:
        """The voxel file that a detached header names, beside it or below: no other may be read."""
        if name.split()[:1] == ["LIST"] or "%" in name:
            problem = "spreads its voxels over several files"
            raise InputError(self.path, problem, "Save it as one .mha or .nrrd file")
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
            problem = f"says its voxels are in {name}, outside its folder"
            raise InputError(self.path, problem, "Put both files in one folder")
        try:
            first_bytes(self.path.parent / name)
            refuse_link(self.path.parent / name, self.path.parent)
        except InputError as error:
            problem = f"says its voxels are in {name}, which {error.problem}"
            raise InputError(self.path, problem, "Copy header and data together") from None
        return self.path.parent / name
