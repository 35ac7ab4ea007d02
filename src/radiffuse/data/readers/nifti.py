"""NIfTI-1 and NIfTI-2, plain or gzipped."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .common import (
    DAMAGED,
    Header,
    check_extent,
    check_finite,
    check_length,
    guard,
    native,
    unsupported,
)
from .geometry import NiftiScan, spacing_of, swap_film_axes, to_scan_order
from .payload import Inflater, read_payload

# It reports repaired headers on the terminal; what matters is refused here, in our words.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


def read_header(path: Path, *, channels: int = 1) -> Header:
    """See ``readers.inspect``."""
    with guard(path, "nifti"):
        return _parse(path, channels)[0]


def read(path: Path, *, label: bool = False, channels: int = 1) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``label`` changes nothing here."""
    with guard(path, "nifti"):
        header, raw, compressed = _parse(path, channels)
        dims = header.spatial_dims
        shape = tuple(int(n) for n in raw.get_data_shape()[:dims])
        if header.channels > 1:
            shape = (*shape, header.channels)
        offset = int(raw.get_data_offset())
        data = read_payload(
            path,
            shape,
            raw.get_data_dtype(),
            offset=0 if compressed else offset,
            compressed=compressed,
            inner_offset=offset if compressed else 0,
        )
        values = native(_rescale(data, *_slope_and_intercept(raw)))
        if header.channels > 1:
            values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        array = to_scan_order(values, dims)
        check_finite(path, array)
        sform, sform_code = raw.get_sform(coded=True)
        qform, qform_code = raw.get_qform(coded=True)
        return NiftiScan(
            array,
            header.spacing,
            header.affine,
            header.value_range,
            sform=(sform, int(sform_code)),
            qform=(qform, int(qform_code)),
        )


def _parse(path: Path, channels: int = 1) -> tuple[Header, Any, bool]:
    """The header in our words and in nibabel's, and whether the file is gzipped."""
    raw, compressed = _load(path)
    shape = tuple(int(n) for n in raw.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    held = 1
    if channels > 1 and len(shape) == 4:
        *shape_, held = shape
        shape = tuple(shape_)
        if held != channels:
            problem = f"holds {held} channels where the data set declares {channels}"
            raise InputError(path, problem, "Correct the file, or what dataset.json declares")
    if len(shape) not in (2, 3):
        text = " x ".join(str(n) for n in shape)
        problem = f"has {len(shape)} dimensions ({text}), not two or three"
        raise unsupported(path, problem, "Save each time point or channel as a file of its own")
    check_extent(path, shape, held)
    dtype = raw.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise unsupported(path, "holds colors or complex numbers", "Save it as one gray volume")
    offset = int(raw.get_data_offset())
    if not 0 < offset < 2**31:
        raise InputError(path, f"announces its voxels at byte {offset}", DAMAGED)
    size = math.prod(shape) * held * dtype.itemsize
    check_length(path, offset + size, compressed=compressed)
    if int(raw["xyzt_units"]) & 7 in (1, 3):
        unit = "meters" if int(raw["xyzt_units"]) & 7 == 1 else "micrometers"
        raise unsupported(path, f"gives its geometry in {unit}", "Convert it to millimeters")
    affine = raw.get_best_affine()
    spacing_of(path, affine, 3)
    if len(shape) == 2:
        affine, shape = swap_film_axes(affine), shape[::-1]
    scaled = _slope_and_intercept(raw) != (1.0, 0.0)
    header = Header(
        "nifti",
        shape,
        held,
        str(dtype.newbyteorder("=")),
        spacing_of(path, affine, len(shape)),
        affine,
        (0.0, 255.0) if dtype == np.uint8 and not scaled else None,
    )
    return header, raw, compressed


def _load(path: Path) -> tuple[Any, bool]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = Inflater(file) if compressed else file
        head = b""
        while len(head) < 540 and (piece := stream.read(540 - len(head))):
            head += piece
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise unsupported(path, "is the header of a two-file image", "Convert the pair to .nii.gz")
    kind = nib.Nifti2Header if head[4:8] == b"n+2\0" else nib.Nifti1Header
    return kind(head[: kind.sizeof_hdr], check=True), compressed


def _slope_and_intercept(raw: Any) -> tuple[float, float]:
    """(1, 0) where the header asks for no scaling; NIfTI marks that by a slope of 0 or NaN."""
    slope, intercept = raw.get_slope_inter()
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _rescale(data: Array, slope: float, intercept: float) -> Array:
    if (slope, intercept) == (1.0, 0.0):
        return data
    scaled = data.astype(np.float32)
    scaled *= slope
    scaled += intercept
    return scaled
