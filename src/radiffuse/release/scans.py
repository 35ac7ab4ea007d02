"""One image given to a segmenter, an array or files, as a scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Data
from ..data.cases import join_channels, read_case_image
from ..data.layouts import open_dataset
from ..data.scan import Array, Scan, in_color
from ..errors import InputError


def verify_channels(array: Array, dims: int, channels: int) -> None:
    """Refuse an array whose first axis holds no channels of the run, such as one with its colors last.

    Raises:
        InputError: Says what axes it has, what they should be, and how to get there.
    """
    held = array.shape[0] if array.ndim == dims + 1 else 1
    if held == channels or in_color(held, dims, channels):
        return
    axes = "rows, columns" if dims == 2 else "i, j, k"
    wanted = f"({axes}) or (1, {axes})" if channels == 1 else f"({channels}, {axes})"
    if channels == 1 and dims == 2:
        wanted += f", or (3, {axes}) in color"
    problem = f"has the shape {array.shape}, and {wanted} is expected"
    remedy = "Give the channels that the run was trained on"
    last = array.shape[-1] if array.ndim == dims + 1 else 0
    if last == channels or in_color(last, dims, channels):
        remedy = "Put its channels first: np.moveaxis(array, -1, 0)"
    elif dims == 2 and last == 4 and channels == 1:
        remedy = "Leave out its transparency and put its colors first: np.moveaxis(array[..., :3], -1, 0)"
    raise InputError("array", problem, remedy)


def verify_unmasked(image: Any) -> None:
    """Refuse a masked array, or a scan of one: networks see every value, also those behind the mask.

    Raises:
        InputError: Values are masked.
    """
    values = getattr(image, "array", image)
    if np.ma.isMaskedArray(values) and np.ma.is_masked(values):
        count = int(np.asarray(values.mask).sum())
        problem = f"is a masked array, of which {count} values are masked, and no mask is obeyed"
        raise InputError("array", problem, "Say what stands there: array.filled(value)")


def array_scan(
    array: Array, dims: int, spacing: Sequence[float] | None = None, affine: Array | None = None
) -> Scan:
    """An array ``(*spatial)`` or ``(C, *spatial)`` of ``dims`` axes, with its geometry; see ``Segmenter.predict``.

    Raises:
        InputError: The array has other axes, or values that are no numbers; a volume has no geometry.
    """
    if array.dtype == object:
        problem = "is no array of numbers, Scan, path, or list of these"
        remedy = "Give an array, as np.asarray(image.dataobj) with affine=image.affine, or the file"
        raise InputError("image", problem, remedy)
    if array.ndim not in (dims, dims + 1) or not array.size:
        problem = (
            f"of shape {array.shape} has no {dims} spatial axes, with or without channels first"
        )
        raise InputError("array", problem, "Give one image; a list of arrays for several")
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise InputError("array", "holds values that are no finite numbers", "Replace them")
    array = array if array.ndim == dims + 1 else array[None]
    if affine is not None and spacing is not None:
        raise InputError("spacing and affine", "say the same twice", "Give one of the two")
    if affine is None and spacing is None:
        if dims == 3:
            problem = "is a volume without a spacing"
            raise InputError("array", problem, "Give spacing=(mm, mm, mm), or affine=...")
        return Scan(array)
    if affine is not None:
        matrix = _matrix(affine)
        lengths = tuple(float(v) for v in np.linalg.norm(matrix[:3, :dims], axis=0))
        return Scan(array, lengths, matrix)
    try:
        given = tuple(float(v) for v in listed(spacing, "spacing"))
    except (TypeError, ValueError):
        given = ()
    if len(given) != dims or not all(0 < v < math.inf for v in given):
        raise InputError(
            f"spacing {spacing}", "does not fit", f"Give {dims} positive numbers in mm"
        )
    return Scan(array, given, np.diag([*given, 1.0]) if dims == 3 else None)


def listed(value: Any, name: str) -> list[Any]:
    """The values of a sequence.

    Raises:
        InputError: It is a single value.
    """
    try:
        return list(value)
    except TypeError:
        raise InputError(name, f"is {value}, and a sequence is needed", "Give one") from None


def read_one(paths: Sequence[Path], channels: int) -> tuple[Scan, str]:
    """One scan from its file, its DICOM series, or a file per channel; and its name.

    Args:
        paths: A single path, or one per channel.
        channels: What a single four-dimensional file may hold.

    Raises:
        InputError: There is no scan, or there are several.
    """
    if not paths:
        raise InputError("image", "is no file", "Give one, or one for each channel")
    cases = []
    for path in paths:
        found = open_dataset(path, Data()).cases
        if len(found) != 1:
            problem = f"holds {len(found)} scans where one is needed"
            raise InputError(path, problem, "Give a list of files, or use radiffuse predict")
        cases.append(found[0])
    first = cases[0]
    if len(cases) == 1:
        held = max(first.file_channels, channels)
        return read_case_image(replace(first, file_channels=held)), first.name
    # each by itself, since each may be a series of its own files
    scans = [read_case_image(replace(case, file_channels=1)) for case in cases]
    return join_channels(scans, [case.images[0] for case in cases]), first.name


def _matrix(affine: Any) -> Array:
    """An affine as a 4 x 4 matrix that can be inverted.

    Raises:
        InputError: It is none.
    """
    with suppress(TypeError, ValueError):
        matrix = np.asarray(affine, np.float64)
        finite = matrix.shape == (4, 4) and np.isfinite(matrix).all()
        if finite and abs(np.linalg.det(matrix)) >= 1e-12:
            return matrix
    raise InputError("affine", "is no invertible 4 x 4 matrix", "Give that of the image")
