"""DICOM: a single frame is a film, several frames or the files of a series are a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan, narrowest
from .common import Header, check_extent, collapse_gray, guard
from .dicomfile import File, parse
from .formats import detect
from .stack import Frame, stack


def read_header(path: Path, series: Sequence[Path] = ()) -> Header:
    """See ``readers.inspect``."""
    return _header(path, _parse_all(path, series))[0]


def read(path: Path, series: Sequence[Path] = (), *, label: bool = False) -> Scan:
    """See ``readers.read_scan``; label objects are not read."""
    if label:
        remedy = "Convert the segmentation to NIfTI, or a film's to PNG"
        raise InputError(path, "is DICOM, which is not read as a label map", remedy)
    files = _parse_all(path, series)
    header, order = _header(path, files)
    return header.scan(_film(files[0]) if len(order) == 1 else _volume(files, header, order))


def source_frames(path: Path, series: Sequence[Path] = ()) -> list[tuple[Path, int]]:
    """See ``readers.source_frames``."""
    files = _parse_all(path, series)
    frames = [(file.path, number) for file in files for number in range(len(file.frames))]
    return [frames[index] for index in _header(path, files)[1]]


def _parse_all(path: Path, series: Sequence[Path]) -> list[File]:
    files = []
    for each in series or (path,):
        if series and detect(each) != "dicom":
            raise InputError(each, "is not DICOM, but is listed in a DICOM series", "Leave it out")
        with guard(each, "dicom"):
            files.append(parse(each))
    return files


def _header(path: Path, files: Sequence[File]) -> tuple[Header, list[int]]:
    """The header, and the order of all frames along the slice normal."""
    first = files[0]
    frames = [frame for file in files for frame in file.frames]
    dtype = f"{'int' if first.signed else 'uint'}{first.allocated}"
    channels = 1 if first.gray else 3
    value_range = None if first.unit == "HU" else _scaled_range(files)
    if len(frames) == 1:
        if not first.gray:
            top = 255 if first.photometric == "PALETTE COLOR" else 2**first.stored - 1
            value_range = (0.0, float(top))
        shape: tuple[int, ...] = (first.rows, first.columns)
        geometry = (first.film_spacing, None)
        return Header("dicom", shape, channels, dtype, *geometry, value_range, first.unit), [0]
    for what, names in (("size", ("rows", "columns")), ("kind", ("photometric", "unit"))):
        looks = [tuple(getattr(file, name) for name in names) for file in files]
        usual = Counter(looks).most_common(1)[0][0]  # the odd one may come first
        for file, look in zip(files, looks, strict=True):
            if look != usual:
                problem = f"differs in {what} from the rest of its series"
                raise InputError(file.path, problem, "Leave it out")
    if channels == 3:
        raise InputError(path, "has several color frames", "Save each frame as a film")
    shape = (first.columns, first.rows, len(frames))
    check_extent(path, shape)
    # a folder may hold several series
    where = f"{path} ({len(files)} files from {first.path.name})" if len(files) > 1 else path
    lie = stack(where, frames)
    about = (lie.spacing, lie.affine, value_range, first.unit, lie.note)
    return Header("dicom", shape, 1, dtype, *about), lie.order


def _scaled_range(files: Sequence[File]) -> tuple[float, float]:
    """Lowest and highest value that the stored bits can hold after slope and intercept."""
    ends = [
        frame.slope * end + frame.intercept
        for file in files
        for frame in file.frames
        for end in file.stored_range
    ]
    return (min(ends), max(ends))


def _target_dtype(files: Sequence[File]) -> np.dtype[Any]:
    """The smallest integer type that holds every rescaled value exactly, else float32."""
    frames = [frame for file in files for frame in file.frames]
    if all(f.slope == int(f.slope) and f.intercept == int(f.intercept) for f in frames):
        kinds = np.uint8, np.uint16, np.int16, np.int32
        return np.dtype(narrowest(*_scaled_range(files), kinds) or np.float32)
    return np.dtype(np.float32)


def _film(file: File) -> Array:
    """``(1, rows, columns)``, or ``(3, rows, columns)`` in color."""
    with guard(file.path, "dicom"):
        pixels = file.decode()[0]
        if file.gray:
            return _rescale(file, file.frames[0], pixels, _target_dtype([file]))[None]
        return np.ascontiguousarray(collapse_gray(np.moveaxis(pixels, -1, 0)))


def _volume(files: Sequence[File], header: Header, order: Sequence[int]) -> Array:
    """``(1, columns, rows, slices)``; each frame is written once, to its place."""
    columns, rows, count = header.spatial_shape
    dtype = _target_dtype(files)
    frames = np.empty((count, rows, columns), dtype)
    places = iter(np.argsort(order))
    for file in files:
        with guard(file.path, "dicom"):
            for frame, pixels in zip(file.frames, file.decode(), strict=True):
                frames[next(places)] = _rescale(file, frame, pixels, dtype)
    return frames.transpose(2, 1, 0)[None]


def _rescale(file: File, frame: Frame, pixels: Array, dtype: np.dtype[Any]) -> Array:
    """Stored values to output values.

    Bits beside those from ``HighBit`` down may hold old overlays and are dropped. MONOCHROME1 shows low values
    as white: films are inverted within the range of their bits, HU are not.
    """
    bits = pixels.dtype.itemsize * 8
    if bits > file.stored and pixels.dtype.kind in "iu":
        pixels = (pixels << (bits - 1 - file.high)) >> (bits - file.stored)
    low, high = file.stored_range
    if file.photometric == "MONOCHROME1" and file.unit != "HU":
        pixels = low + high - pixels.astype(np.int64)
    if (frame.slope, frame.intercept) == (1.0, 0.0):
        return pixels.astype(dtype, copy=False)
    scaled: Array = pixels * np.float64(frame.slope) + frame.intercept
    return scaled.astype(dtype)
