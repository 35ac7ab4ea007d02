"""JPEG: films as pictures, without geometry; never label maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import JpegImagePlugin

from ...errors import InputError
from ..scan import Scan
from .common import JPEG_TOLERANCE, Header, check_extent, check_picture, collapse_gray

_CHANNELS = {"L": 1, "RGB": 3}


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    with JpegImagePlugin.JpegImageFile(path) as image:
        return _header(path, image)


def read(path: Path, *, label: bool = False, lossy: bool = False) -> Scan:
    """See ``readers.read_scan``; ``lossy`` allows label maps, to be cut at a threshold."""
    if label and not lossy:
        problem = "is a JPEG, whose compression smears label values along every edge"
        remedy = (
            "Export it again as PNG, or say where the foreground begins (--label-threshold 128)"
        )
        raise InputError(path, problem, remedy)
    with JpegImagePlugin.JpegImageFile(path) as image:
        header = _header(path, image)
        pixels = np.array(image)
    array = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    return header.scan(np.ascontiguousarray(collapse_gray(array, tolerance=JPEG_TOLERANCE)))


def _header(path: Path, image: Any) -> Header:
    shape = (int(image.size[1]), int(image.size[0]))
    channels = _CHANNELS.get(image.mode)
    if channels is None:
        raise InputError(path, f"has the color model {image.mode}", "Save it as gray or RGB")
    check_extent(path, shape, channels)
    check_picture(path, image)
    return Header("jpeg", shape, channels, "uint8", value_range=(0.0, 255.0))
