"""Files in, scans out, and masks back in the geometry of their scan.

Formats: PNG, JPEG, TIFF, DICOM (files and series), NIfTI, MetaImage (MHA, MHD), NRRD. The first
bytes of a file decide which it is. Every failure is an ``InputError`` that names the file; nothing
is unpickled or evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .common import MAX_PIXELS, MAX_VOXELS, Header
from .problems import problems
from .sniff import SUFFIXES, detect, is_dicom
from .write import label_suffix, write_image, write_label, write_marked_film

__all__ = [
    "MAX_PIXELS",
    "MAX_VOXELS",
    "SUFFIXES",
    "Header",
    "inspect",
    "is_dicom",
    "label_suffix",
    "problems",
    "read_label",
    "read_scan",
    "source_frames",
    "write_image",
    "write_label",
    "write_marked_film",
]

_MODULES = {
    "png": "pictures",
    "jpeg": "pictures",
    "tiff": "tiff",
    "dicom": "dicom",
    "nifti": "nifti",
    "metaimage": "metaimage",
    "nrrd": "nrrd",
}


def _module(format: str) -> Any:
    """The reader of a format; its library is imported only now."""
    return import_module(f"{__name__}.{_MODULES[format]}")


def read_scan(path: Path, *, series: Sequence[Path] = (), channels: int = 1) -> Scan:
    """Read one image.

    Args:
        path: The file; for a DICOM series the folder or file that errors of the whole series name.
        series: All files of a DICOM series, in any order, or () for every other file.
        channels: How many channels a four-dimensional NIfTI file is said to hold; with 1 such a
            file is refused, since its fourth axis may as well be time.

    Returns:
        ``(C, *spatial)`` as float32 or in the file's integer type. Films are ``(C, rows,
        columns)``, C = 1 or 3; a gray film stored as RGB has C = 1. Volumes are ``(channels, i, j,
        k)`` as in NIfTI. Only DICOM says that its values are HU; a CT in another format has the unit
        ``"gray"`` and ``value_range`` None.

    Raises:
        InputError: For whatever cannot be read as an image, or should not be.
    """
    if series:
        scan: Scan = _module("dicom").read(path, series)
    elif channels > 1 and detect(path) == "nifti":
        scan = _module("nifti").read(path, channels=channels)
    else:
        scan = _module(detect(path)).read(path)
    return scan


def read_label(path: Path) -> Scan:
    """Read one label map.

    Palette pictures give their indices, gray ones their values, floats their value where it is
    whole.

    Returns:
        ``(1, *spatial)`` of integers.

    Raises:
        InputError: As ``read_scan``, and for JPEG, DICOM, colors, and values that are not whole.
    """
    scan: Scan = _module(detect(path)).read(path, label=True)
    if len(scan.array) != 1:
        problem = "is in color, and a label map has one value per pixel"
        raise InputError(
            path, problem, "Export it as gray or palette PNG whose values are the labels"
        )
    return scan if scan.array.dtype.kind in "iu" else scan.with_array(_whole(path, scan.array))


def _whole(path: Path, array: Array) -> Array:
    """int32 from whole floats."""
    labels = (
        array.astype(np.int32) if np.abs(array).max() < 2**31 else np.zeros_like(array, np.int32)
    )
    count = int(np.count_nonzero(labels != array))
    if count:
        problem = f"has {count:,} values that are not whole numbers, so it is no label map"
        raise InputError(path, problem, "Give the label map, or round it")
    return labels


def source_frames(path: Path, series: Sequence[Path] = ()) -> list[tuple[Path, int]]:
    """File and frame behind every slice of a DICOM volume, in the order of ``read_scan``.

    Args:
        path: As in ``read_scan``.
        series: As in ``read_scan``.

    Raises:
        InputError: As ``read_scan``.
    """
    frames: list[tuple[Path, int]] = _module("dicom").source_frames(path, series)
    return frames


def inspect(path: Path, series: Sequence[Path] = (), channels: int = 1) -> Header:
    """Read what a file says about its image, without its pixels: thousands of files in seconds.

    Args:
        path: As in ``read_scan``.
        series: As in ``read_scan``.
        channels: As in ``read_scan``.

    Raises:
        InputError: For every fault that the header and the length of the file betray.
    """
    if series:
        header: Header = _module("dicom").read_header(path, series)
    elif channels > 1 and detect(path) == "nifti":
        header = _module("nifti").read_header(path, channels=channels)
    else:
        header = _module(detect(path)).read_header(path)
    return header
