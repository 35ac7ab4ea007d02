"""MetaImage, .mha and .mhd: lines of ``Key = Value``, then the voxels or the name of their file.

https://itk.org/Wiki/MetaIO/Documentation. ``TransformMatrix`` lists the directions of the axes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ..scan import Array
from .common import DAMAGED
from .geometry import affine_from_axes
from .voxels import HEADER_BYTES, Fields, Voxels, reader_of

_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    **dict.fromkeys(("MET_UINT", "MET_ULONG"), "u4"),
    **dict.fromkeys(("MET_INT", "MET_LONG"), "i4"),
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SYNONYMS = {
    **dict.fromkeys(("Position", "Origin"), "Offset"),
    **dict.fromkeys(("Orientation", "Rotation"), "TransformMatrix"),
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}


def _fields(path: Path) -> Fields:
    """The header's fields, synonyms under one name."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < HEADER_BYTES:
            line = file.readline(HEADER_BYTES).decode("utf-8", "replace")
            key, separator, value = (part.strip() for part in line.partition("="))
            if not separator:
                break
            fields[_SYNONYMS.get(key, key)] = value
            if key == "ElementDataFile":
                return Fields(path, fields, file.tell())
    raise InputError(path, "has a header without ElementDataFile", DAMAGED)


def _parse(path: Path) -> Voxels:
    fields = _fields(path)
    shape = fields.shape("NDims", "DimSize", most=3)
    (channels,) = fields.integers("ElementNumberOfChannels", 1, "1")
    big = _true(fields.text("BinaryDataByteOrderMSB"))
    dtype = fields.dtype(fields.text("ElementType").removesuffix("_ARRAY"), _TYPES, big=big)
    if not _true(fields.text("BinaryData", "True")):
        raise InputError(path, "stores its voxels as text", "Save it in binary form")
    (skip,) = fields.integers("HeaderSize", 1, "0")
    name = fields.text("ElementDataFile")
    local = name.upper() == "LOCAL"
    return Voxels(
        format="metaimage",
        shape=(channels, *shape) if channels != 1 else shape,
        channel_axis=0 if channels != 1 else None,
        dtype=dtype,
        affine=_affine(fields, len(shape)),
        data=path if local else fields.data_file(name),
        offset=fields.end if local else max(-1, skip),
        compressed=_true(fields.text("CompressedData")),
    )


def _true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def _affine(fields: Fields, dims: int) -> Array | None:
    spacing = next((n for n in ("ElementSpacing", "ElementSize") if n in fields), None)
    if spacing is None:
        return None
    identity = " ".join(str(value) for value in np.eye(dims).ravel())
    rows = fields.numbers("TransformMatrix", dims * dims, identity)
    axes = np.zeros((3, dims))
    axes[:dims] = np.reshape(rows, (dims, dims)).T * fields.numbers(spacing, dims)
    origin = fields.numbers("Offset", dims, "0 " * dims)
    return affine_from_axes(axes, np.array([*origin, 0.0][:3]))


read_header, read, voxel_file = reader_of(_parse)
