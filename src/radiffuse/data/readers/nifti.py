"""NIfTI-1 and NIfTI-2, plain or gzipped."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ...errors import InputError
from ..scan import Array, Scan
from .common import DAMAGED, ONE_EACH, Header
from .geometry import TO_MILLIMETERS, NiftiScan, spans_space
from .voxels import Inflater, Voxels

QUATERNION_TOLERANCE = 1e-4
"""By how much the square of a qform's quaternion may exceed 1: rounding, a rotation all the same."""

# It prints repaired headers; what matters is refused here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


def read_header(path: Path, *, channels: int = 1) -> Header:
    """See ``readers.inspect``."""
    return _parse(path, channels)[0]


def read(path: Path, *, label: bool = False, channels: int = 1) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``label`` changes nothing here."""
    header, voxels, raw, forms = _parse(path, channels)
    array, (slope, intercept) = voxels.array(), _slope_and_intercept(raw)
    if (slope, intercept) != (1.0, 0.0):
        array = array.astype(np.float32)
        array *= slope
        array += intercept
    if header.channels > 1:
        array = np.ascontiguousarray(array)
    return NiftiScan(**vars(header.scan(array)), sform=forms.sform, qform=forms.qform)


class _Forms(NamedTuple):
    """The affine, or None, and sform and qform with their codes, (None, 0) where not given or of no use."""

    affine: Array | None
    sform: tuple[Array | None, int]
    qform: tuple[Array | None, int]


def _parse(path: Path, channels: int) -> tuple[Header, Voxels, Any, _Forms]:
    """Our header, where the voxels lie, nibabel's header, and the geometry."""
    raw, compressed, sized = _load(path)
    shape = tuple(int(n) for n in raw.get_data_shape())
    while len(shape) > 3 and shape[-1] in (0, 1):  # 0 in unused dimensions stands for 1
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
    if not 0 <= offset < 2**31:
        raise InputError(path, f"announces its voxels at byte {offset}", DAMAGED)
    if unit := {1: "meters", 3: "micrometers"}.get(int(raw["xyzt_units"]) & 7):
        raise InputError(path, f"gives its geometry in {unit}", TO_MILLIMETERS)
    forms = _forms(path, raw, sized)
    voxels = Voxels(
        format="nifti",
        shape=shape,
        channel_axis=3 if several else None,
        dtype=dtype,
        affine=forms.affine,
        data=path,
        offset=offset,
        compressed=compressed,
        whole=True,
        declared=channels,
    )
    placed = forms.sform[1] or forms.qform[1]
    header = replace(voxels.header(path), guessed=forms.affine is not None and not placed)
    if not offset:
        voxels = replace(voxels, offset=_offset(path, voxels, int(raw.sizeof_hdr)))
    if _slope_and_intercept(raw) != (1.0, 0.0):
        header = replace(header, value_range=None)
    return header, voxels, raw, forms


def _forms(path: Path, raw: Any, sized: bool) -> _Forms:
    """The sform is the affine, then the qform; a qform that is of no use does no harm to a sound sform.

    Without either (codes of 0, or a sform of zeros alone) sizes are known, and the place is not. A header that is not
    ``sized`` tells neither these nor, by its qform, the place: nibabel would take 1 mm.
    """
    raw.quaternion_threshold = QUATERNION_TOLERANCE
    sform, sform_code = raw.get_sform(coded=True)
    try:
        qform, qform_code = raw.get_qform(coded=True)
    except (ValueError, HeaderDataError):
        qform, qform_code = None, int(raw["qform_code"])
    forms = {
        "sform": (sform, int(sform_code)) if spans_space(sform) else (None, 0),
        "qform": (qform, int(qform_code)) if sized and spans_space(qform) else (None, 0),
    }
    if sform is not None and (spans_space(sform) or not np.isfinite(sform).all()):
        return _Forms(sform, **forms)  # one that is not finite is refused by its reader
    if forms["qform"][0] is not None:
        return _Forms(forms["qform"][0], **forms)
    if qform_code and sized:
        raise InputError(path, "has a qform that is no rotation, and no sound sform", DAMAGED)
    if sform is not None and sform[:3, :3].any():
        return _Forms(sform, **forms)
    return _Forms(raw.get_base_affine() if sized else None, **forms)


def _offset(path: Path, voxels: Voxels, header: int) -> int:
    """Where the voxels of a file begin that says 0: behind the header, by the length of the file.

    Programs disagree here: ITK starts right behind the header, others behind the four bytes that
    say whether extensions follow.
    """
    length, most = os.stat(path).st_size, header + 5 + voxels.size
    if voxels.compressed:
        with path.open("rb") as file:
            stream, length = Inflater(file), 0
            while length < most and (piece := stream.read(min(2**20, most - length))):
                length += len(piece)
    if (offset := length - voxels.size) in (header, header + 4):
        return offset
    problem = "does not say where its voxels begin (vox_offset 0), and its length does not show it"
    raise InputError(path, problem, DAMAGED)


def _load(path: Path) -> tuple[Any, bool, bool]:
    """Header of nibabel, whether the file is gzipped, and whether it says the size of a voxel."""
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
    head = head[: kind.sizeof_hdr]
    given = kind(head, check=False)  # the check puts 1 for sizes of 0
    sized = bool(given["pixdim"][1 : 1 + min(3, int(given["dim"][0]))].all())
    return kind(head, check=True), compressed, sized


def _slope_and_intercept(raw: Any) -> tuple[float, float]:
    """(1, 0) where the header asks for no scaling, by a slope of 0 or NaN."""
    slope, intercept = raw.get_slope_inter()
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))
