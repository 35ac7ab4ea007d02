"""NIfTI-1 and NIfTI-2, plain or gzipped."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ...errors import InputError
from ..scan import Scan
from .common import DAMAGED, ONE_EACH, Header
from .geometry import TO_MILLIMETERS, NiftiScan
from .voxels import Inflater, Voxels

# It prints repaired headers; what matters is refused here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


def read_header(path: Path, *, channels: int = 1) -> Header:
    """See ``readers.inspect``."""
    return _parse(path, channels)[0]


def read(path: Path, *, label: bool = False, channels: int = 1) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``label`` changes nothing here."""
    header, voxels, raw = _parse(path, channels)
    array, (slope, intercept) = voxels.array(), _slope_and_intercept(raw)
    if (slope, intercept) != (1.0, 0.0):
        array = array.astype(np.float32)
        array *= slope
        array += intercept
    if header.channels > 1:
        array = np.ascontiguousarray(array)
    sform, sform_code = raw.get_sform(coded=True)
    qform, qform_code = raw.get_qform(coded=True)
    forms: dict[str, Any] = {"sform": (sform, int(sform_code)), "qform": (qform, int(qform_code))}
    return NiftiScan(**vars(header.scan(array)), **forms)


def _parse(path: Path, channels: int) -> tuple[Header, Voxels, Any]:
    """Our header, where the voxels lie, and nibabel's header."""
    raw, compressed = _load(path)
    shape = tuple(int(n) for n in raw.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    several = channels > 1 and len(shape) == 4
    if several and shape[-1] != channels:
        problem = f"holds {shape[-1]} channels where the data set declares {channels}"
        raise InputError(path, problem, "Correct the file, or what dataset.json declares")
    if len(shape) - several not in (2, 3):
        text = " x ".join(str(n) for n in shape)
        raise InputError(path, f"has {len(shape)} dimensions ({text}), not two or three", ONE_EACH)
    dtype = raw.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(path, "holds colors or complex numbers", "Save it as one gray volume")
    offset = int(raw.get_data_offset())
    if not 0 < offset < 2**31:
        raise InputError(path, f"announces its voxels at byte {offset}", DAMAGED)
    if unit := {1: "meters", 3: "micrometers"}.get(int(raw["xyzt_units"]) & 7):
        raise InputError(path, f"gives its geometry in {unit}", TO_MILLIMETERS)
    voxels = Voxels(
        format="nifti",
        shape=shape,
        channel_axis=3 if several else None,
        dtype=dtype,
        affine=raw.get_best_affine(),
        data=path,
        offset=offset,
        compressed=compressed,
        whole=True,
        declared=channels,
    )
    header = voxels.header(path)
    if _slope_and_intercept(raw) != (1.0, 0.0):
        header = replace(header, value_range=None)
    return header, voxels, raw


def _load(path: Path) -> tuple[Any, bool]:
    """Header of nibabel, and whether the file is gzipped."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = Inflater(file) if compressed else file
        head = b""
        while len(head) < 540 and (piece := stream.read(540 - len(head))):
            head += piece
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise InputError(path, "is the header of a two-file image", "Convert the pair to .nii.gz")
    kind = nib.Nifti2Header if head[4:8] == b"n+2\0" else nib.Nifti1Header
    return kind(head[: kind.sizeof_hdr], check=True), compressed


def _slope_and_intercept(raw: Any) -> tuple[float, float]:
    """(1, 0) where the header asks for no scaling, by a slope of 0 or NaN."""
    slope, intercept = raw.get_slope_inter()
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))
