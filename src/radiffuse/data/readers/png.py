"""PNG: films as pictures, without geometry."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from ...errors import InputError
from ..scan import Array, Scan
from .common import (
    DAMAGED,
    Header,
    check_extent,
    check_palette,
    check_picture,
    collapse_gray,
    without_alpha,
)

_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
"""Channels by color type, alpha not counted."""
_WITH_ALPHA = (4, 6)


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    header = _parse(path)[0]
    with PngImagePlugin.PngImageFile(path) as image:
        check_picture(path, image)
    return header


def read(path: Path, *, label: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``."""
    header, depth, color = _parse(path)
    # The plugin's own class, not Image.open: format and size have been checked.
    with PngImagePlugin.PngImageFile(path) as image:
        image.verify()  # all checksums, which decoding skips
    with PngImagePlugin.PngImageFile(path) as image:
        if getattr(image, "is_animated", False):
            raise InputError(path, "is animated", "Save each frame as a picture of its own")
        if image.size != header.spatial_shape[::-1]:
            raise InputError(path, "has a damaged image header", DAMAGED)
        deep = depth == 16 and color != 0
        array = _deep(path, header) if deep else _pixels(image, label=label)
        if label and image.mode == "P":
            check_palette(path, array, np.asarray(image.getpalette("RGB")).reshape(-1, 3))
        image.load()  # EXIF may follow the pixels
        check_picture(path, image)
    if color in _WITH_ALPHA:
        array = without_alpha(path, array, label=label)
    if label and color == 0 and depth in (2, 4):
        array = array // (255 // (2**depth - 1))  # Pillow stretches these to 0..255
    return header.scan(np.ascontiguousarray(collapse_gray(array)))


def _parse(path: Path) -> tuple[Header, int, int]:
    """The header, bit depth and color type, from the IHDR chunk (PNG specification, 11.2.2)."""
    with path.open("rb") as file:
        head = file.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise InputError(path, "is truncated or has no image header", DAMAGED)
    width, height, depth, color = struct.unpack(">IIBB", head[16:26])
    if color not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise InputError(path, "has a damaged image header", DAMAGED)
    check_extent(path, (height, width), _CHANNELS[color])
    top = 65535.0 if depth == 16 else 1.0 if (depth, color) == (1, 0) else 255.0
    dtype = "uint16" if depth == 16 else "uint8"
    header = Header("png", (height, width), _CHANNELS[color], dtype, value_range=(0.0, top))
    return header, depth, color


def _pixels(image: Any, *, label: bool) -> Array:
    """``(C, rows, columns)``, alpha last."""
    if image.mode == "P" and not label:
        image = image.convert("RGB")
    pixels = np.array(image)  # a copy: Pillow's memory is read-only, of which torch warns
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.uint8 if pixels.dtype == np.bool_ else np.uint16)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _deep(path: Path, header: Header) -> Array:
    """16-bit color, which Pillow would cut to 8 bits."""
    import imagecodecs

    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if pixels.dtype != np.uint16 or pixels.shape[:2] != header.spatial_shape or pixels.ndim != 3:
        raise InputError(path, "has a damaged image header", DAMAGED)
    return np.moveaxis(pixels, -1, 0)
