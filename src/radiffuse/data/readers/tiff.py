"""TIFF: films of 8, 16 or 32 bit, gray, RGB or with a palette.

Several pages are refused, since they may be slices, times or channels; previews are ignored.
"""

from __future__ import annotations

import logging
import math
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
    JPEG_TOLERANCE,
    ORIENTATION,
    Header,
    check_extent,
    check_length,
    check_palette,
    check_upright,
    collapse_gray,
    native,
    truncated,
    without_alpha,
)

# It prints every odd tag; what matters is refused here.
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
    with tifffile.TiffFile(path) as file:
        return _header(path, file)


def read(path: Path, *, label: bool = False, lossy: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``lossy`` as in ``jpeg``."""
    with tifffile.TiffFile(path) as file:
        header, page = _header(path, file), file.pages.first
        inverted = page.photometric == PHOTOMETRIC.MINISWHITE
        if label and ((page.compression in _LOSSY and not lossy) or inverted):
            problem = "is compressed with loss or stored white-is-zero, so its values are no labels"
            raise InputError(path, problem, "Export the label map again as PNG")
        if page.compression in _CODESTREAMS:
            _check_codestreams(path, page)
        data = np.asarray(page.asarray(maxworkers=1)).reshape(page.shape)
        array = _channels_first(data, page)
        if len(array) in (2, 4):
            array = without_alpha(path, array, label=label)
        if page.photometric == PHOTOMETRIC.PALETTE:
            if label:
                check_palette(path, array, np.transpose(page.colormap))
            else:
                array = _through_palette(array[0], page.colormap)
        array = native(array)
        if inverted:
            if header.value_range is None:
                raise InputError(path, "is white-is-zero without a range", "Save it black-is-zero")
            array = (sum(header.value_range) - array).astype(array.dtype)
        lossy = page.compression in _LOSSY and array.dtype == np.uint8
        array = collapse_gray(array, tolerance=JPEG_TOLERANCE if lossy else 0)
    return header.scan(np.ascontiguousarray(array))


def _header(path: Path, file: tifffile.TiffFile) -> Header:
    page: Any = file.pages.first
    _check_single(path, file)
    shape = (int(page.imagelength), int(page.imagewidth))
    channels = _channels(path, page)
    check_extent(path, shape, max(channels, int(page.samplesperpixel)))
    if page.dtype is None or page.dtype.kind not in "buif" or page.imagedepth != 1:
        raise InputError(path, "has a pixel type that is not read", "Save it with 8 or 16 bit")
    if page.compression not in _COMPRESSIONS:
        compression = _name(page.compression)
        raise InputError(path, f"has the compression {compression}", "Save it with deflate or LZW")
    _check_segments(path, page)
    if tag := page.tags.get(ORIENTATION):
        check_upright(path, tag.value)
    dtype = np.dtype(np.uint8) if page.dtype.kind == "b" else page.dtype
    value_range = None
    if page.photometric == PHOTOMETRIC.PALETTE:
        value_range = (0.0, 255.0)
    elif dtype.kind == "u":
        value_range = (0.0, float(2 ** int(page.bitspersample) - 1))
    elif dtype.kind == "i":
        value_range = (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    return Header("tiff", shape, channels, str(dtype.newbyteorder("=")), value_range=value_range)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _check_single(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse several pages; ImageJ and tifffile may store them as a single one."""
    several = file.is_imagej and int((file.imagej_metadata or {}).get("images", 1)) > 1
    stacked = ((shape.get("shape") or [0]) for shape in file.shaped_metadata or ())
    several = several or any(math.prod(shape) > file.pages.first.size for shape in stacked)
    for index in range(1, 1000):
        try:
            page: Any = file.pages[index]
        except IndexError:
            break
        several = several or not (page.is_reduced or page.is_mask)
        if several:
            break
    if several:
        raise InputError(path, "has several pages", "Save each as a film, or a volume as NIfTI")


def _channels(path: Path, page: Any) -> int:
    samples = int(page.samplesperpixel)
    if page.photometric in _GRAY and samples in (1, 2):  # the second is alpha
        return 1
    legal = {PHOTOMETRIC.PALETTE: (1,), PHOTOMETRIC.RGB: (3, 4)}
    if page.compression in _LOSSY:
        legal[PHOTOMETRIC.YCBCR] = (3,)
    if samples in legal.get(page.photometric, ()):
        return 3
    problem = f"has the color model {_name(page.photometric)} with {samples} samples"
    raise InputError(path, problem, "Save it as gray or RGB")


def _check_segments(path: Path, page: Any) -> None:
    """Refuse a file that lacks a strip or tile, which would silently become zeros."""
    length = os.stat(path).st_size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(o <= 0 or n <= 0 or o + n > length for o, n in segments):
        raise truncated(path)
    if page.compression == COMPRESSION.NONE:
        pixels = int(page.imagelength) * int(page.imagewidth) * int(page.samplesperpixel)
        needed = pixels * int(page.bitspersample) // 8
        check_length(path, needed, available=sum(page.databytecounts))
    if page.rowsperstrip and not page.is_tiled:
        strips = -(-int(page.imagelength) // int(page.rowsperstrip))
        planes = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        if len(segments) < strips * planes:
            raise truncated(path)
    if page.is_tiled and int(page.tilewidth) * int(page.tilelength) > 2**26:
        raise InputError(path, "has tiles of an absurd size", DAMAGED)


def _check_codestreams(path: Path, page: Any) -> None:
    """Refuse a strip or tile that states far more pixels than its place has."""
    width, height = page.imagewidth, page.rowsperstrip
    if page.is_tiled:
        width, height = page.tilewidth, page.tilelength
    with path.open("rb") as file:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            claimed = frame_shape(file.read(min(count, 2**20)))
            if claimed is None or claimed[0] * claimed[1] > 4 * width * height + 2**16:
                size = "unknown size" if claimed is None else f"{claimed[0]} x {claimed[1]}"
                raise InputError(path, f"has a compressed piece of {size}", DAMAGED)


def _channels_first(data: Array, page: Any) -> Array:
    """``(C, rows, columns)``, alpha last."""
    if page.axes == "YX":
        return data[None]
    if page.axes == "YXS":
        data = np.moveaxis(data, -1, 0)
    elif page.axes != "SYX":
        raise ValueError(f"axes {page.axes}")
    return data


def _through_palette(indices: Array, colormap: Array) -> Array:
    """``(3, rows, columns)`` of 8 bits; TIFF keeps colors in 16 (TIFF 6.0, section 5)."""
    return np.asarray((np.asarray(colormap) >> 8)[:, indices], np.uint8)
