"""What all readers share: the header, limits on size, and errors of decoders as ``InputError``."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .formats import FORMATS, UNREADABLE

MAX_PIXELS = 2**28
"""Most pixels of a film: 35 x 43 cm at 25 um. More is a decompression bomb or a damaged header."""

MAX_VOXELS = 2**31
"""Most voxels of a volume, 1290 cubed."""

JPEG_TOLERANCE = 8
"""Largest difference between red, green and blue, of 255, that JPEG leaves in a gray film."""

DAMAGED = "Copy or export the file again, or leave it out"
CONVERT = "Convert it to NIfTI or PNG"
ORIENTATION = 274
"""Tag of EXIF and TIFF that says how stored pixels are to be turned and mirrored; 1: not at all."""
ONE_EACH = "Save each time point or channel as a file of its own"


@dataclass(frozen=True)
class Header:
    """What a file says about its image before any pixel is decoded.

    Attributes:
        format: A key of ``FORMATS``.
        spatial_shape: Extent of the spatial axes in the order of ``Scan.array``.
        channels: As stored: 3 for a gray film stored as RGB, which has 1 once it is read.
        dtype: Name of the stored type, such as ``"uint8"``; the array read may be wider.
        spacing: As in ``Scan``; so are ``affine``, ``value_range``, ``unit``, ``note`` and ``guessed``.
    """

    format: str
    spatial_shape: tuple[int, ...]
    channels: int
    dtype: str
    spacing: tuple[float, ...] | None = None
    affine: Array | None = None
    value_range: tuple[float, float] | None = None
    unit: str = "gray"
    note: str = ""
    guessed: bool = False

    @property
    def spatial_dims(self) -> int:
        """Two for films, three for volumes."""
        return len(self.spatial_shape)

    def scan(self, array: Array) -> Scan:
        """The decoded ``(C, *spatial)`` with the geometry of this header."""
        about = (self.spacing, self.affine, self.value_range, self.unit, self.note, self.guessed)
        as_color = self.spatial_dims == 2 and self.channels == 3 and len(array) == 1
        return Scan(array, *about, as_color=as_color)


@contextmanager
def guard(path: Path, format: str) -> Iterator[None]:
    """Turn every ``Exception`` of the block into an ``InputError``, and silence warnings.

    The text of a DICOM decoder is left out: it may quote the patient.
    """
    private = format == "dicom"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError:
            raise
        except MemoryError:
            remedy = "Resample or crop it, or use a larger machine"
            raise InputError(path, "needs more memory than is free", remedy) from None
        except PermissionError:
            raise InputError(path, *UNREADABLE) from None
        except EOFError:
            raise truncated(path) from None
        except Exception as error:  # decoders raise whatever they like on damaged files
            words = str(error).strip().splitlines()
            detail = "" if private or not words else f", {words[0].rstrip('.')[:160]}"
            problem = f"cannot be read as {FORMATS[format].title} ({type(error).__name__}{detail})"
            raise InputError(path, problem, DAMAGED) from (None if private else error)


def truncated(path: Path) -> InputError:
    """The error for a file that ends before its image does."""
    return InputError(path, "is truncated: it ends before its image does", DAMAGED)


def check_extent(path: Path, spatial_shape: tuple[int, ...], channels: int = 1) -> None:
    """Refuse an image without pixels, or above ``MAX_PIXELS`` or ``MAX_VOXELS``.

    Channels beyond three count towards the limit.
    """
    text = " x ".join(str(n) for n in spatial_shape)
    if any(n < 1 for n in spatial_shape) or channels < 1:
        raise InputError(path, f"has no pixels ({text})", DAMAGED)
    limit = MAX_PIXELS if len(spatial_shape) == 2 else MAX_VOXELS
    if math.prod(spatial_shape) * max(1, channels // 3) > limit:
        problem = f"is too large: {text} is more than {limit:,} pixels"
        raise InputError(path, problem, "Crop or resample it, or check its header for damage")


def check_length(
    path: Path, needed: int, *, compressed: bool = False, available: int | None = None
) -> None:
    """Refuse a file too short for its image before memory is allocated.

    ``needed`` counts the bytes of the decoded image and what precedes it, ``available`` those there
    are (None: the whole file). Deflate shrinks data by at most 1032 to 1 (zlib's manual).
    """
    length = os.stat(path).st_size if available is None else available
    if needed > (length * 1040 + 1024 if compressed else length):
        raise truncated(path)


def check_upright(path: Path, orientation: object) -> None:
    """Refuse a picture that its tag ``ORIENTATION`` asks to turn or mirror.

    Some programs follow the tag and others do not, so whether labels were drawn before or after the
    turn is not known.
    """
    if orientation in range(2, 9):
        problem = f"is stored turned or mirrored (EXIF or TIFF orientation {orientation})"
        remedy = (
            "Save it upright without the tag (mogrify -auto-orient), and see that its label fits"
        )
        raise InputError(path, problem, remedy)


def check_picture(path: Path, image: Any) -> None:
    """``check_upright`` for a picture of Pillow: what EXIF or XMP say as far as it has been read."""
    from PIL import Image

    try:
        orientation = Image.Image.getexif(image).get(ORIENTATION)
    except Exception:  # damaged EXIF turns nothing
        return
    check_upright(path, orientation)


def without_alpha(path: Path, array: Array, *, label: bool) -> Array:
    """The channels ``(C, rows, columns)`` without the last one, which is alpha.

    Raises:
        InputError: It is a label map, and its shape is in the alpha channel.
    """
    seen, alpha = array[:-1], array[-1]
    if label and alpha.min() < alpha.max():
        flat = all(channel.min() == channel.max() for channel in seen)
        if flat or (seen.any(axis=0) & (alpha == 0)).any():
            problem = "has its mask in the alpha channel (transparency), which is not read"
            raise InputError(path, problem, "Save it as gray values without transparency")
    return seen


def check_palette(path: Path, indices: Array, colors: Array) -> None:
    """Refuse a palette label map whose background is not 0, as programs that sort colors by their number write.

    ``indices`` are its pixels, ``colors`` ``(N, 3)`` the color of each index. Background is taken to be black.
    """
    used = np.unique(indices)
    black = [int(n) for n in used if n < len(colors) and not colors[n].any()]
    if black and black[0] > 0 and colors[0].any():
        problem = (
            f"is a palette picture whose black, the background, has the number {black[0]}, not 0"
        )
        remedy = "Save it as gray values that are the labels: palettes that programs choose differ from file to file"
        raise InputError(path, problem, remedy)


def native(array: Array) -> Array:
    """The array in this machine's byte order, as an integer type or float32; bool becomes uint8."""
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "iu":
        native_type: np.dtype[Any] = array.dtype.newbyteorder("=")
        return array.astype(native_type, copy=False)
    return array.astype(np.float32, copy=False)


def count_non_finite(array: Array) -> int:
    """How many values are NaN or infinite; one pass without a copy where all are finite."""
    if array.dtype.kind != "f" or math.isfinite(float(np.sum(array, dtype=np.float64))):
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(array)))


def collapse_gray(array: Array, *, tolerance: int = 0) -> Array:
    """One channel of a gray film stored as RGB ``(3, rows, columns)``; other films unchanged.

    Channels that differ by up to ``tolerance`` (JPEG rounds chroma) become ITU-R BT.601 luma.
    """
    if len(array) != 3:
        return array
    red, green, blue = array
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return array[:1]
    signed = array.astype(np.int32) if tolerance else array
    if not tolerance or int(np.max(signed.max(0) - signed.min(0))) > tolerance:
        return array
    luma: Array = (299 * signed[0] + 587 * signed[1] + 114 * signed[2] + 500) // 1000
    return luma[None].astype(array.dtype)
