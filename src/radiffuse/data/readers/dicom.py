"""DICOM: one film or slice, a multi-frame volume, or the files of a series.

Frames that have a position in space become a volume (``stack``); a single frame is a film.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.pixels import apply_color_lut, pixel_array

from ...errors import InputError
from ..scan import Array, Scan
from .codestream import check_frames
from .common import Header, check_extent, check_finite, collapse_gray, guard, unsupported
from .dicomfile import GRAY, File, load, parse
from .sniff import detect
from .stack import Frame, order_and_affine


def read_header(path: Path, series: Sequence[Path] = ()) -> Header:
    """See ``readers.inspect``; every file of a series is opened, and its geometry checked."""
    files = _parse_all(path, series)
    with guard(path, "dicom", private=True):
        return _header(path, files)[0]


def read(path: Path, series: Sequence[Path] = (), *, label: bool = False) -> Scan:
    """See ``readers.read_scan``.

    Args:
        path: The file, or the folder that errors of the whole series name.
        series: Files of a series, in any order.
        label: Refused: DICOM label objects are not read.
    """
    if label:
        problem = "is DICOM, which is not read as a label map"
        raise InputError(path, problem, "Convert the segmentation to NIfTI, or a film's to PNG")
    files = _parse_all(path, series)
    with guard(path, "dicom", private=True):
        header, order = _header(path, files)
    if header.spatial_dims == 2:
        with guard(files[0].path, "dicom", private=True):
            array = _film(files[0])
    else:
        array = _volume(path, files, header, order)
    check_finite(path, array)
    return Scan(array, header.spacing, header.affine, header.value_range, header.unit)


def source_frames(path: Path, series: Sequence[Path] = ()) -> list[tuple[Path, int]]:
    """Where each slice of what ``read`` gives comes from.

    Returns:
        File, and number of the frame in it, from 0, for every plane along the last axis; one entry for a film.
    """
    files = _parse_all(path, series)
    with guard(path, "dicom", private=True):
        _, order = _header(path, files)
    frames = [(file.path, number) for file in files for number in range(len(file.frames))]
    return [frames[index] for index in order]


def _parse_all(path: Path, series: Sequence[Path]) -> list[File]:
    files = []
    for each in series or (path,):
        if series and detect(each) != "dicom":
            raise InputError(each, "is not DICOM, but is listed in a DICOM series", "Leave it out")
        with guard(each, "dicom", private=True):
            files.append(parse(each))
    return files


def _header(path: Path, files: Sequence[File]) -> tuple[Header, list[int]]:
    """The header, and for volumes the order of all frames along the slice normal."""
    first = files[0]
    frames = [frame for file in files for frame in file.frames]
    scaled = _scaled_range(files)
    value_range = None if first.unit == "HU" else scaled
    dtype = f"{'int' if first.signed else 'uint'}{first.allocated}"
    channels = 1 if first.photometric in GRAY else 3
    if len(frames) == 1:
        shape: tuple[int, ...] = (first.rows, first.columns)
        spacing = first.film_spacing
        if channels == 3:
            top = 255 if first.photometric == "PALETTE COLOR" else 2**first.stored - 1
            value_range = (0.0, float(top))
        return Header("dicom", shape, channels, dtype, spacing, None, value_range, first.unit), [0]
    for file in files:
        if (file.rows, file.columns) != (first.rows, first.columns):
            raise InputError(
                file.path, "differs in size from the rest of its series", "Leave it out"
            )
        if (file.photometric, file.unit) != (first.photometric, first.unit):
            raise InputError(
                file.path, "differs in kind from the rest of its series", "Leave it out"
            )
    if channels == 3:
        raise unsupported(path, "has several color frames", "Save each frame as a film of its own")
    shape = (first.columns, first.rows, len(frames))
    check_extent(path, shape)
    order, affine, steps = order_and_affine(path, frames)
    return Header("dicom", shape, 1, dtype, steps, affine, value_range, first.unit), order


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
        low, high = _scaled_range(files)
        for kind in (np.uint8, np.uint16, np.int16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
    return np.dtype(np.float32)


def _film(file: File) -> Array:
    """``(1, rows, columns)``, or ``(3, rows, columns)`` in color."""
    if file.photometric in GRAY:
        return _rescale(file, file.frames[0], _decode(file)[0], _target_dtype([file]))[None]
    pixels = _decode(file)[0]
    array = np.moveaxis(pixels, -1, 0)
    return np.ascontiguousarray(collapse_gray(array))


def _volume(path: Path, files: Sequence[File], header: Header, order: Sequence[int]) -> Array:
    """``(1, columns, rows, slices)``; each frame is written once, to its place."""
    columns, rows, count = header.spatial_shape
    dtype = _target_dtype(files)
    with guard(path, "dicom", private=True):
        stack = np.empty((count, rows, columns), dtype)
    place = {index: slot for slot, index in enumerate(order)}
    index = 0
    for file in files:
        with guard(file.path, "dicom", private=True):
            for frame, pixels in zip(file.frames, _decode(file), strict=True):
                stack[place[index]] = _rescale(file, frame, pixels, dtype)
                index += 1
    return stack.transpose(2, 1, 0)[None]


def _decode(file: File) -> Array:
    """``(frames, rows, columns)`` of stored values, or ``(frames, rows, columns, 3)`` in RGB."""
    data = load(file.path, pixels=True)
    if "PixelData" not in data:
        raise InputError(file.path, "holds no pixels", "Export the file again")
    if data.file_meta.TransferSyntaxUID.is_encapsulated:
        check_frames(file.path, data.PixelData, len(file.frames), (file.rows, file.columns))
    try:
        pixels = np.asarray(pixel_array(data))
    except (RuntimeError, NotImplementedError) as error:
        if "plugin" not in str(error) and "decod" not in str(error):
            raise
        name = data.file_meta.TransferSyntaxUID.name[:80]
        problem = f"cannot be decompressed (damaged, or no decoder for {name})"
        raise InputError(file.path, problem, "Rewrite it uncompressed (gdcmconv --raw)") from None
    if file.photometric == "PALETTE COLOR":
        pixels = np.asarray(apply_color_lut(pixels, data))
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    color = () if file.photometric in GRAY else (3,)
    return pixels.reshape(len(file.frames), file.rows, file.columns, *color)


def _rescale(file: File, frame: Frame, pixels: Array, dtype: np.dtype[Any]) -> Array:
    """Stored values to output values.

    Bits above ``BitsStored`` may hold old overlays and are dropped. MONOCHROME1 shows low values
    white: films are turned over within the range of their bits, but Hounsfield units mean the same
    under either.
    """
    spare = pixels.dtype.itemsize * 8 - file.stored
    if spare and pixels.dtype.kind in "iu":
        pixels = (pixels << spare) >> spare
    low, high = file.stored_range
    if file.photometric == "MONOCHROME1" and file.unit != "HU":
        pixels = low + high - pixels.astype(np.int64)
    if (frame.slope, frame.intercept) == (1.0, 0.0):
        return pixels.astype(dtype, copy=False)
    scaled: Array = pixels * np.float64(frame.slope) + frame.intercept
    return scaled.astype(dtype)
