"""Files in, scans out, and masks back in the geometry of their scan.

Formats: PNG, JPEG, TIFF, DICOM (files and series), NIfTI, MetaImage (MHA, MHD), NRRD; one file here
and one row of ``formats.FORMATS`` each. The first bytes of a file decide which it is. Every failure
is an ``InputError`` that names the file; nothing is unpickled or evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .common import MAX_PIXELS, MAX_VOXELS, Header, count_non_finite, guard
from .formats import FORMATS, SUFFIXES, detect, is_dicom
from .write import label_suffix, write_image, write_label, write_marked_film

__all__ = [
    "MAX_PIXELS",
    "MAX_VOXELS",
    "SUFFIXES",
    "Header",
    "count_non_finite",
    "inspect",
    "is_dicom",
    "label_suffix",
    "read_label",
    "read_scan",
    "source_files",
    "source_frames",
    "write_image",
    "write_label",
    "write_marked_film",
]


DETACHED = FORMATS["metaimage"].suffixes + FORMATS["nrrd"].suffixes
"""Suffixes of headers that may name another file for their voxels."""


def read_scan(path: Path, *, series: Sequence[Path] = (), channels: int = 1) -> Scan:
    """Read one image as ``(C, *spatial)``, float32 or the file's integer type.

    Films are ``(C, rows, columns)``, C = 1 or 3; a gray film stored as RGB has C = 1. Volumes are
    ``(C, i, j, k)`` as in NIfTI. Only DICOM states HU; a CT in another format has the unit "gray".

    Args:
        path: The file; for a DICOM series what errors of the whole series name.
        series: All files of a DICOM series, in any order; () for any other file.
        channels: Channels of a four-dimensional NIfTI file. With 1 such a file is refused, since
            its fourth axis may be time.

    Raises:
        InputError: The file cannot be read as an image.
    """
    return _finite(path, _call("read", path, series, channels))


def read_label(path: Path, threshold: float | None = None) -> Scan:
    """Read one label map as integers ``(1, *spatial)``; palette pictures give their indices.

    With a threshold, values from it on become 1 and lower ones 0, also in pictures that are
    compressed with loss.

    Raises:
        InputError: As ``read_scan``, and for DICOM, colors, and, without a threshold, JPEG and values
            that are not whole.
    """
    options = {"label": True}
    if threshold is not None and detect(path) in ("jpeg", "tiff"):
        options["lossy"] = True
    scan = _finite(path, _call("read", path, (), 1, **options))
    if len(scan.array) != 1:
        problem = "is in color, and a label map has one value per pixel"
        raise InputError(path, problem, "Export it as gray or palette PNG whose values are labels")
    if threshold is not None:
        return scan.with_array((scan.array >= threshold).astype(np.uint8))
    return scan if scan.array.dtype.kind in "iu" else scan.with_array(_whole(path, scan.array))


def inspect(path: Path, series: Sequence[Path] = (), channels: int = 1) -> Header:
    """Read the header alone, with the arguments of ``read_scan``; checks a series' geometry.

    Raises:
        InputError: The header or the length of a file shows a fault.
    """
    header: Header = _call("read_header", path, series, channels)
    return header


def source_files(path: Path, series: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The files that a scan is read from: of a detached header with the file of its voxels.

    Raises:
        InputError: As ``read_scan``.
    """
    if series or path.suffix.lower() not in DETACHED or detect(path) not in ("metaimage", "nrrd"):
        return tuple(series) or (path,)
    return tuple(dict.fromkeys((path, _call("voxel_file", path))))


def source_frames(path: Path, series: Sequence[Path] = ()) -> list[tuple[Path, int]]:
    """File and frame number behind each slice of a DICOM volume, in order; one entry for a film.

    Raises:
        InputError: As ``read_scan``.
    """
    frames: list[tuple[Path, int]] = _call("source_frames", path, series or (path,))
    return frames


def _call(
    function: str, path: Path, series: Sequence[Path] = (), channels: int = 1, **options: Any
) -> Any:
    """Call a function of the reader that suits a file; its library is imported only now."""
    format = "dicom" if series else detect(path)
    if series:
        options["series"] = series
    elif channels > 1 and format == "nifti":
        options["channels"] = channels
    reader = import_module(f"{__name__}.{FORMATS[format].reader}")
    with guard(path, format):
        return getattr(reader, function)(path, **options)


def _finite(path: Path, scan: Scan) -> Scan:
    if count := count_non_finite(scan.array):
        problem = f"has {count:,} of {scan.array.size:,} values that are not finite in float32"
        raise InputError(path, problem, "Replace NaN and infinity by the value of the background")
    return scan


def _whole(path: Path, array: Array) -> Array:
    """Whole floats as int32."""
    labels = np.zeros_like(array, np.int32)
    if np.abs(array).max() < 2**31:
        labels = array.astype(np.int32)
    if count := int(np.count_nonzero(labels != array)):
        problem = f"has {count:,} values that are not whole numbers, so it is no label map"
        remedy = "Give the label map, or say with --label-threshold where the foreground begins"
        raise InputError(path, problem, remedy)
    return labels
