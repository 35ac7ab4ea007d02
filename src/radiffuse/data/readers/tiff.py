"""TIFF: films of 8, 16 or 32 bit, gray, RGB or with a palette.

A file of several pages is refused, since nothing in it says whether they are slices, times or
channels; smaller copies of the first page (previews) are ignored.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from tifffile import COMPRESSION, PHOTOMETRIC

from ...errors import InputError
from ..scan import Array, Scan
from .codestream import frame_shape
from .common import (
    DAMAGED,
    Header,
    check_extent,
    check_finite,
    check_length,
    collapse_gray,
    guard,
    native,
    truncated,
    unsupported,
)

# It reports every odd tag on the terminal; what matters is refused here, in our words.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

_GRAY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
_LOSSY = (COMPRESSION.JPEG, COMPRESSION.JPEG_2000_LOSSY)
_CODESTREAMS = (*_LOSSY, COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_RGB)
_COMPRESSIONS = (
    *_CODESTREAMS,
    *(COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE),
    *(COMPRESSION.PACKBITS, COMPRESSION.LZMA, COMPRESSION.ZSTD),
    *(COMPRESSION.CCITTRLE, COMPRESSION.CCITTFAX3, COMPRESSION.CCITTFAX4),
)


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    with guard(path, "tiff"), tifffile.TiffFile(path) as file:
        return _header(path, file)


def read(path: Path, *, label: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``.

    Args:
        path: The file.
        label: Return palette indices as they are stored. Refuses lossy compression and
            white-is-zero.
    """
    with guard(path, "tiff"), tifffile.TiffFile(path) as file:
        header = _header(path, file)
        page = file.pages.first
        if label and (page.compression in _LOSSY or page.photometric == PHOTOMETRIC.MINISWHITE):
            problem = "is compressed with loss or stored white-is-zero, so its values are no labels"
            raise InputError(path, problem, "Export the label map again as PNG")
        if page.compression in _CODESTREAMS:
            _check_codestreams(path, page)
        data = np.asarray(page.asarray(maxworkers=1)).reshape(page.shape)
        array = _channels_first(data, page)
        if page.photometric == PHOTOMETRIC.PALETTE and not label:
            array = _through_palette(array[0], page.colormap)
        array = native(array)
        if page.photometric == PHOTOMETRIC.MINISWHITE:
            if header.value_range is None:
                raise unsupported(
                    path, "is white-is-zero without a known range", "Save it black-is-zero"
                )
            array = (sum(header.value_range) - array).astype(array.dtype)
        if len(array) == 3:
            tolerance = 8 if page.compression in _LOSSY and array.dtype == np.uint8 else 0
            array = collapse_gray(array, tolerance=tolerance)
        check_finite(path, array)
    return Scan(np.ascontiguousarray(array), value_range=header.value_range)


def _header(path: Path, file: tifffile.TiffFile) -> Header:
    page: Any = file.pages.first
    _check_single(path, file)
    shape = (int(page.imagelength), int(page.imagewidth))
    channels = _channels(path, page)
    check_extent(path, shape, max(channels, int(page.samplesperpixel)))
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise unsupported(path, "has a pixel type that is not read", "Save it with 8 or 16 bit")
    if page.compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", str(page.compression))
        raise unsupported(path, f"has the compression {name}", "Save it with deflate or LZW")
    _check_segments(path, page)
    dtype = np.dtype(np.uint8) if page.dtype.kind == "b" else page.dtype
    value_range = None
    if page.photometric == PHOTOMETRIC.PALETTE:
        value_range = (0.0, 255.0)
    elif dtype.kind == "u":
        value_range = (0.0, float(2 ** int(page.bitspersample) - 1))
    elif dtype.kind == "i":
        value_range = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return Header("tiff", shape, channels, str(dtype.newbyteorder("=")), value_range=value_range)


def _check_single(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse several pages; ImageJ may hide them behind a single one."""
    hidden = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
    for index in range(1, 1000):
        try:
            page: Any = file.pages[index]
        except IndexError:
            break
        if not page.is_reduced and not page.is_mask:
            hidden += 1
            break
    if hidden > 1:
        remedy = "Save each page as a film of its own, or a volume as NIfTI with its spacing"
        raise unsupported(path, "has several pages", remedy)


def _channels(path: Path, page: Any) -> int:
    samples = int(page.samplesperpixel)
    if page.photometric in _GRAY and samples in (1, 2):  # the second is alpha
        return 1
    if page.photometric == PHOTOMETRIC.PALETTE and samples == 1:
        return 3
    if page.photometric == PHOTOMETRIC.RGB and samples in (3, 4):
        return 3
    if page.photometric == PHOTOMETRIC.YCBCR and samples == 3 and page.compression in _LOSSY:
        return 3
    name = getattr(page.photometric, "name", str(page.photometric))
    raise unsupported(
        path, f"has the color model {name} with {samples} samples", "Save it as gray or RGB"
    )


def _check_segments(path: Path, page: Any) -> None:
    """Every strip or tile must lie in the file: missing ones would silently become zeros."""
    length = os.stat(path).st_size
    if not page.dataoffsets or any(
        offset <= 0 or count <= 0 or offset + count > length
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        raise truncated(path)
    pixels = int(page.imagelength) * int(page.imagewidth) * int(page.samplesperpixel)
    available = sum(page.databytecounts)
    if page.compression == COMPRESSION.NONE:
        check_length(
            path, pixels * int(page.bitspersample) // 8, compressed=False, available=available
        )
    if page.rowsperstrip and not page.is_tiled:
        strips = -(-int(page.imagelength) // int(page.rowsperstrip))
        planes = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        if len(page.dataoffsets) < strips * planes:
            raise truncated(path)
    if page.is_tiled and int(page.tilewidth) * int(page.tilelength) > 2**26:
        raise InputError(path, "has tiles of an absurd size", DAMAGED)


def _check_codestreams(path: Path, page: Any) -> None:
    """Refuse a strip or tile that claims far more pixels than its place: see ``codestream``."""
    place = (
        page.tilewidth * page.tilelength if page.is_tiled else page.imagewidth * page.rowsperstrip
    )
    with path.open("rb") as file:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            claimed = frame_shape(file.read(min(count, 2**16)))
            if claimed is not None and claimed[0] * claimed[1] > 4 * place + 2**16:
                raise InputError(
                    path, f"has a compressed piece of {claimed[0]} x {claimed[1]}", DAMAGED
                )


def _channels_first(data: Array, page: Any) -> Array:
    """``(C, rows, columns)`` with alpha dropped."""
    if page.axes == "YX":
        return data[None]
    if page.axes == "YXS":
        data = np.moveaxis(data, -1, 0)
    elif page.axes != "SYX":
        raise ValueError(f"axes {page.axes}")
    return data[:3] if len(data) >= 3 else data[:1]


def _through_palette(indices: Array, colormap: Array) -> Array:
    """``(3, rows, columns)`` of 8 bit; TIFF keeps the colors in 16 (TIFF 6.0, section 5)."""
    colors = np.asarray(colormap) >> 8
    return np.asarray(colors[:, indices], np.uint8)
