"""What MetaImage and NRRD have in common: a text header that points to raw or deflated voxels.

They are read here rather than through ITK, which prints to the terminal on damaged files, opens
whatever file a header names, and holds the voxels twice.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .common import Header, check_extent, check_finite, check_length, native, unsupported
from .geometry import spacing_of, swap_film_axes, to_scan_order
from .payload import read_payload
from .sniff import check_file

HEADER_BYTES = 2**18
"""Longest text header that is searched."""


@dataclass(frozen=True)
class RawVolume:
    """Where the voxels lie and how.

    Attributes:
        format: A key of ``FORMATS``.
        shape: Extents, the fastest axis first, with the channel axis where there is one.
        channel_axis: Position of the channel axis in ``shape``, or None.
        dtype: Stored type.
        affine: ``(4, 4)`` RAS+ for the spatial axes in file order, or None where the file does not
            say.
        data: The file that holds the voxels.
        offset: Their first byte; -1: they are the last bytes of the file.
        compressed: Whether they are deflated.
    """

    format: str
    shape: tuple[int, ...]
    channel_axis: int | None
    dtype: np.dtype[Any]
    affine: Array | None
    data: Path
    offset: int
    compressed: bool

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Extents of the spatial axes in file order."""
        return tuple(n for axis, n in enumerate(self.shape) if axis != self.channel_axis)


def header_of(path: Path, volume: RawVolume) -> Header:
    """Check a parsed header against limits and file length, and put it in the order of ``Scan``."""
    shape = volume.spatial_shape
    if len(shape) not in (2, 3):
        raise unsupported(path, f"has {len(shape)} spatial dimensions, not two or three")
    channels = 1 if volume.channel_axis is None else volume.shape[volume.channel_axis]
    if channels not in (1, 3):
        raise unsupported(
            path, f"has {channels} values per voxel", "Save each channel as a file of its own"
        )
    check_extent(path, shape, channels)
    check_length(
        volume.data,
        math.prod(volume.shape) * volume.dtype.itemsize + max(0, volume.offset),
        compressed=volume.compressed,
    )
    affine = volume.affine
    spacing = None
    if affine is not None:
        spacing_of(path, affine, 3)
        affine = swap_film_axes(affine) if len(shape) == 2 else affine
        spacing = spacing_of(path, affine, len(shape))
    return Header(
        volume.format,
        shape[::-1] if len(shape) == 2 else shape,
        channels,
        str(volume.dtype.newbyteorder("=")),
        spacing,
        affine,
        (0.0, 255.0) if volume.dtype == np.uint8 else None,
    )


def scan_of(path: Path, volume: RawVolume) -> Scan:
    """Read the voxels that a parsed header points to."""
    header = header_of(path, volume)
    size = math.prod(volume.shape) * volume.dtype.itemsize
    offset = os.stat(volume.data).st_size - size if volume.offset < 0 else volume.offset
    data = read_payload(
        volume.data, volume.shape, volume.dtype, offset=offset, compressed=volume.compressed
    )
    if volume.channel_axis is not None:
        data = np.moveaxis(data, volume.channel_axis, 0)
    array = to_scan_order(native(data), header.spatial_dims)
    check_finite(path, array)
    return Scan(array, header.spacing, header.affine, header.value_range)


def data_file(path: Path, name: str) -> Path:
    """The voxel file that a detached header names, which must lie beside it or below.

    A header that could name any file would be a way to read whatever this user may read.
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or ".." in windows.parts:
        problem = f"says its voxels are in {name}, outside its folder"
        raise InputError(path, problem, "Put both files in one folder")
    found = path.parent / name
    try:
        check_file(found)
    except InputError as error:
        problem = f"says its voxels are in {name}, which {error.problem}"
        raise InputError(path, problem, "Copy header and data together") from None
    return found


def numbers(path: Path, text: str, count: int | None, field: str) -> list[float]:
    """Finite numbers from a header field.

    Raises:
        InputError: Where it holds something else, or another count of them.
    """
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if not values or not np.isfinite(values).all() or (count is not None and len(values) != count):
        raise InputError(path, f"has a damaged header field, {field!r}", "Export the file again")
    return values


def integers(path: Path, text: str, count: int | None, field: str) -> tuple[int, ...]:
    """Like ``numbers``, for whole numbers."""
    values = numbers(path, text, count, field)
    if any(value != int(value) or abs(value) > 2**53 for value in values):
        raise InputError(path, f"has a damaged header field, {field!r}", "Export the file again")
    return tuple(int(value) for value in values)
