"""MetaImage, .mha and .mhd: lines of ``Key = Value``, then the voxels or the name of their file.

The format: https://itk.org/Wiki/MetaIO/Documentation. ``TransformMatrix`` lists the direction of
each axis in turn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ..scan import Array, Scan
from .common import DAMAGED, Header, guard, unsupported
from .geometry import affine_from_axes
from .rawvolume import HEADER_BYTES, RawVolume, data_file, header_of, integers, numbers, scan_of

_TYPES = {
    "MET_UCHAR": "u1",
    "MET_CHAR": "i1",
    "MET_USHORT": "u2",
    "MET_SHORT": "i2",
    "MET_UINT": "u4",
    "MET_INT": "i4",
    "MET_ULONG": "u4",
    "MET_LONG": "i4",
    "MET_ULONG_LONG": "u8",
    "MET_LONG_LONG": "i8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SYNONYMS = {
    "Position": "Offset",
    "Origin": "Offset",
    "Orientation": "TransformMatrix",
    "Rotation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    with guard(path, "metaimage"):
        return header_of(path, _parse(path))


def read(path: Path, *, label: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``label`` changes nothing here."""
    with guard(path, "metaimage"):
        return scan_of(path, _parse(path))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields under their first names, and the byte after them."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < HEADER_BYTES:
            line = file.readline(HEADER_BYTES)
            key, separator, value = line.decode("utf-8", "replace").partition("=")
            if not separator:
                break
            fields[_SYNONYMS.get(key.strip(), key.strip())] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise InputError(path, "has a header without ElementDataFile", DAMAGED)


def _parse(path: Path) -> RawVolume:
    fields, end = _fields(path)
    (dims,) = integers(path, fields.get("NDims", ""), 1, "NDims")
    if dims not in (2, 3):
        raise unsupported(
            path, f"has {dims} dimensions, not two or three", "Save each time point apart"
        )
    shape = integers(path, fields.get("DimSize", ""), dims, "DimSize")
    (channels,) = integers(
        path, fields.get("ElementNumberOfChannels", "1"), 1, "ElementNumberOfChannels"
    )
    kind = _TYPES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if kind is None:
        raise unsupported(path, f"has the element type {fields.get('ElementType', '')!r}")
    if not _true(fields.get("BinaryData", "True")):
        raise unsupported(path, "stores its voxels as text", "Save it in binary form")
    (skip,) = integers(path, fields.get("HeaderSize", "0"), 1, "HeaderSize")
    name = fields["ElementDataFile"]
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise unsupported(path, "spreads its voxels over several files", "Save it as one .mha file")
    local = name.upper() == "LOCAL"
    return RawVolume(
        format="metaimage",
        shape=(channels, *shape) if channels != 1 else shape,
        channel_axis=0 if channels != 1 else None,
        dtype=np.dtype((">" if _true(fields.get("BinaryDataByteOrderMSB", "")) else "<") + kind),
        affine=_affine(path, fields, dims),
        data=path if local else data_file(path, name),
        offset=end if local else max(-1, skip),
        compressed=_true(fields.get("CompressedData", "False")),
    )


def _true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def _affine(path: Path, fields: dict[str, str], dims: int) -> Array | None:
    spacing = fields.get("ElementSpacing", fields.get("ElementSize"))
    if spacing is None:
        return None
    identity = " ".join(str(value) for value in np.eye(dims).ravel())
    rows = numbers(path, fields.get("TransformMatrix", identity), dims * dims, "TransformMatrix")
    steps = np.reshape(rows, (dims, dims)).T * numbers(path, spacing, dims, "ElementSpacing")
    origin = numbers(path, fields.get("Offset", "0 " * dims), dims, "Offset")
    axes = np.zeros((3, dims))
    axes[:dims] = steps
    return affine_from_axes(axes, np.array([*origin, 0.0][:3]))
