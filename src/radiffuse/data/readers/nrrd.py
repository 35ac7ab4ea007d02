"""NRRD, attached and detached: lines of ``field: value``, an empty line, then the voxels.

https://teem.sourceforge.net/nrrd/format.html. As in ITK, a file that names no space is in LPS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..scan import Array
from .common import DAMAGED, ONE_EACH
from .geometry import LPS_TO_RAS, TO_MILLIMETERS, affine_from_axes
from .voxels import HEADER_BYTES, Fields, Voxels, reader_of

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPE_OF_NAME = {name: kind for kind, names in _TYPES.items() for name in names}
_SPACES: dict[str, NDArray[Any]] = {
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS_TO_RAS),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.eye(3)),
    **dict.fromkeys(("left-anterior-superior", "las"), np.diag([-1.0, 1.0, 1.0])),
}
_COLORS = ("RGB-color", "3-color", "vector", "3-vector", "list", "stub", "scalar", "???")


def _fields(path: Path) -> Fields:
    """The fields, with their names in lower case."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        file.readline(HEADER_BYTES)
        while file.tell() < HEADER_BYTES:
            raw = file.readline(HEADER_BYTES)
            line = raw.decode("utf-8", "replace").strip()
            if not line:
                if not raw and "datafile" not in fields:
                    break
                return Fields(path, fields, file.tell())
            if line.startswith("#") or ":=" in line:
                continue
            key, separator, value = line.partition(":")
            if not separator:
                break
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    raise InputError(path, "has a header that does not end", DAMAGED)


def _parse(path: Path) -> Voxels:
    fields = _fields(path)
    shape = fields.shape("dimension", "sizes", most=4)
    dims = len(shape)
    big = fields.text("endian").lower() == "big"
    dtype = fields.dtype(fields.text("type").lower(), _TYPE_OF_NAME, big=big)
    encoding = fields.text("encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(path, f"has the encoding {encoding!r}", "Save it as raw or gzip")
    channel_axis = _channel_axis(fields, dims)
    data, offset = _place(fields)
    return Voxels(
        format="nrrd",
        shape=shape,
        channel_axis=channel_axis,
        dtype=dtype,
        affine=_affine(fields, [axis for axis in range(dims) if axis != channel_axis], dims),
        data=data,
        offset=offset,
        compressed=encoding != "raw",
    )


def _channel_axis(fields: Fields, dims: int) -> int | None:
    """The axis that holds colors, by its kind; a fourth axis of another kind (time) is refused."""
    kinds, directions = fields.text("kinds").split(), _directions(fields)
    odd = [
        axis
        for axis in range(dims)
        if (axis < len(kinds) and kinds[axis] not in ("domain", "space", "???"))
        or (axis < len(directions) and directions[axis] == "none")
    ]
    if not odd and dims <= 3:
        return None
    if len(odd) != 1 or (kinds and kinds[odd[0]] not in _COLORS):
        problem = f"has {dims} dimensions of the kinds {fields.text('kinds', 'unknown')!r}"
        raise InputError(fields.path, problem, ONE_EACH)
    return odd[0]


def _directions(fields: Fields) -> list[str]:
    return re.findall(r"none|\([^)]*\)", fields.text("space directions"))


def _place(fields: Fields) -> tuple[Path, int]:
    """The file that holds the voxels, and their first byte there."""
    data, offset = fields.path, fields.end
    if "data file" in fields:
        data, offset = fields.data_file(fields.text("data file")), 0
    (lines,) = fields.integers("line skip", 1, "0")
    (skip,) = fields.integers("byte skip", 1, "0")
    if skip == -1:
        return data, -1
    if skip < 0 or not 0 <= lines <= 2**20:
        raise fields.damaged("line skip or byte skip")
    if lines:
        with data.open("rb") as file:
            file.seek(offset)
            for _ in range(lines):
                file.readline(HEADER_BYTES)
            offset = file.tell()
    return data, offset + skip


def _affine(fields: Fields, spatial: list[int], dims: int) -> Array | None:
    units = set(re.findall(r'"([^"]*)"', fields.text("space units")))
    if units - {"mm", "", "none", "???", "millimeter", "millimeters"}:
        raise InputError(fields.path, f"gives its geometry in {sorted(units)}", TO_MILLIMETERS)
    name = next((n for n in ("space directions", "spacings") if n in fields), None)
    if name is None:
        return None
    words = fields.text(name).split() if name == "spacings" else _directions(fields)
    if len(words) != dims:
        raise fields.damaged(name)
    chosen = [words[axis] for axis in spatial]
    if name == "spacings":
        axes = np.eye(3)[:, : len(chosen)] * fields.numbers(name, text=" ".join(chosen))
    else:
        axes = np.column_stack([_vector(fields, name, word) for word in chosen])
    origin = _vector(fields, "space origin", fields.text("space origin", "(0,0,0)"))
    to_ras = _SPACES.get(fields.text("space").lower(), LPS_TO_RAS)
    return affine_from_axes(axes, origin, to_ras) if axes.shape[1] in (2, 3) else None


def _vector(fields: Fields, name: str, text: str) -> NDArray[np.float64]:
    """``(3,)`` from ``(x,y,z)`` or ``(x,y)``."""
    values = fields.numbers(name, text=text.strip("()").replace(",", " "))
    if len(values) not in (2, 3):
        raise fields.damaged(name)
    return np.array([*values, 0.0][:3])


read_header, read, voxel_file = reader_of(_parse)
