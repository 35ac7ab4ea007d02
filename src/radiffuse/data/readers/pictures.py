"""PNG and JPEG: films as pictures, without geometry."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from ...errors import InputError
from ..scan import Array, Scan
from .common import DAMAGED, Header, check_extent, collapse_gray, guard, unsupported

JPEG_CHROMA_TOLERANCE = 8
"""Largest difference between red, green and blue, of 255, that JPEG leaves in a gray film."""

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}
_JPEG_CHANNELS = {"L": 1, "RGB": 3}


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    with path.open("rb") as file:
        png = file.read(4) == b"\x89PNG"
    with guard(path, "png" if png else "jpeg"):
        if png:
            return _png_header(path)[0]
        with JpegImagePlugin.JpegImageFile(path) as image:
            return _jpeg_header(path, image)


def read(path: Path, *, label: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``.

    The orientation tag of photographs (EXIF) is not applied: pixels keep the order of the file, as
    masks do.

    Args:
        path: The picture.
        label: Return palette indices and the gray values of PNGs below 8 bit as they are stored.
            Refuses JPEG.
    """
    with path.open("rb") as file:
        png = file.read(4) == b"\x89PNG"
    return _read_png(path, label=label) if png else _read_jpeg(path, label=label)


def _png_header(path: Path) -> tuple[Header, int, int]:
    """The header, bit depth and color type, from the IHDR chunk (PNG specification, 11.2.2)."""
    with path.open("rb") as file:
        head = file.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise InputError(path, "is truncated or has no image header", DAMAGED)
    width, height, depth, color = struct.unpack(">IIBB", head[16:26])
    if color not in _PNG_CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise InputError(path, "has a damaged image header", DAMAGED)
    channels = _PNG_CHANNELS[color]
    check_extent(path, (height, width), channels)
    top = {1: 1.0, 16: 65535.0}.get(depth, 255.0) if color == 0 else 255.0
    if depth == 16:
        top = 65535.0
    dtype = "uint16" if depth == 16 else "uint8"
    return Header("png", (height, width), channels, dtype, value_range=(0.0, top)), depth, color


def _read_png(path: Path, *, label: bool) -> Scan:
    with guard(path, "png"):
        header, depth, color = _png_header(path)
        # The plugin's own class, not Image.open: the content is known, and so is our limit on size.
        with PngImagePlugin.PngImageFile(path) as image:
            image.verify()  # all checksums, which decoding skips
        if depth == 16 and color != 0:
            array = _decode_deep_png(path, header)
        else:
            with PngImagePlugin.PngImageFile(path) as image:
                if getattr(image, "is_animated", False):
                    raise unsupported(
                        path, "is animated", "Save each frame as a picture of its own"
                    )
                if image.size != header.spatial_shape[::-1]:
                    raise InputError(path, "has a damaged image header", DAMAGED)
                array = _pixels(image, label=label)
        if label and color == 0 and depth in (2, 4):
            array = array // (255 // (2**depth - 1))  # Pillow stretches these to 0..255
        array = collapse_gray(array) if len(array) == 3 else array
    return Scan(np.ascontiguousarray(array), value_range=header.value_range)


def _pixels(image: Any, *, label: bool) -> Array:
    """``(C, rows, columns)`` of an open picture, alpha dropped."""
    if image.mode == "P":
        pixels = np.array(image if label else image.convert("RGB"))
    elif image.mode in ("LA", "RGBA"):
        pixels = np.array(image)[..., :-1]
    else:
        pixels = np.array(image)  # a copy: Pillow's own memory is read-only, which torch dislikes
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = pixels.astype(np.uint16)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _decode_deep_png(path: Path, header: Header) -> Array:
    """16-bit color, which Pillow would cut to 8 bits."""
    import imagecodecs

    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    if pixels.dtype != np.uint16 or pixels.shape[:2] != header.spatial_shape or pixels.ndim != 3:
        raise InputError(path, "has a damaged image header", DAMAGED)
    return np.moveaxis(pixels[..., : header.channels], -1, 0)


def _jpeg_header(path: Path, image: Any) -> Header:
    shape = (int(image.size[1]), int(image.size[0]))
    channels = _JPEG_CHANNELS.get(image.mode)
    if channels is None:
        raise unsupported(path, f"has the color model {image.mode}", "Save it as gray or RGB")
    check_extent(path, shape, channels)
    return Header("jpeg", shape, channels, "uint8", value_range=(0.0, 255.0))


def _read_jpeg(path: Path, *, label: bool) -> Scan:
    if label:
        problem = "is a JPEG, whose compression smears label values along every edge"
        raise InputError(path, problem, "Export the label map again as PNG")
    with guard(path, "jpeg"), JpegImagePlugin.JpegImageFile(path) as image:
        header = _jpeg_header(path, image)
        array = _pixels(image, label=False)
        if header.channels == 3:
            array = collapse_gray(array, tolerance=JPEG_CHROMA_TOLERANCE)
    return Scan(np.ascontiguousarray(array), value_range=header.value_range)
