"""NRRD, attached and detached: lines of ``field: value``, an empty line, then the voxels.

The format: https://teem.sourceforge.net/nrrd/format.html. As in ITK, a file that names no space is
in LPS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..scan import Array, Scan
from .common import DAMAGED, Header, guard, unsupported
from .geometry import LPS_TO_RAS, affine_from_axes
from .rawvolume import HEADER_BYTES, RawVolume, data_file, header_of, integers, numbers, scan_of

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
_SPACES = {
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
    "right-anterior-superior": np.eye(3),
    "ras": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0]),
}
_COLORS = ("RGB-color", "3-color", "vector", "3-vector", "list", "stub", "scalar")


def read_header(path: Path) -> Header:
    """See ``readers.inspect``."""
    with guard(path, "nrrd"):
        return header_of(path, _parse(path))


def read(path: Path, *, label: bool = False) -> Scan:
    """See ``readers.read_scan`` and ``readers.read_label``; ``label`` changes nothing here."""
    with guard(path, "nrrd"):
        return scan_of(path, _parse(path))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields, their names in lower case without spaces, and the byte after the empty line."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        file.readline(HEADER_BYTES)
        while file.tell() < HEADER_BYTES:
            raw = file.readline(HEADER_BYTES)
            line = raw.decode("utf-8", "replace").strip()
            if not line:
                if not raw and not {"datafile"} & set(fields):
                    break
                return fields, file.tell()
            if line.startswith("#") or ":=" in line:
                continue
            key, separator, value = line.partition(":")
            if not separator:
                break
            fields[key.strip().lower().replace(" ", "")] = value.strip()
    raise InputError(path, "has a header that does not end", DAMAGED)


def _parse(path: Path) -> RawVolume:
    fields, end = _fields(path)
    (dims,) = integers(path, fields.get("dimension", ""), 1, "dimension")
    if not 2 <= dims <= 4:
        raise unsupported(
            path, f"has {dims} dimensions, not two or three", "Save each time point apart"
        )
    shape = integers(path, fields.get("sizes", ""), dims, "sizes")
    kind = _TYPE_OF_NAME.get(fields.get("type", "").lower())
    if kind is None:
        raise unsupported(path, f"has the voxel type {fields.get('type', '')!r}")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise unsupported(
            path, f"has the encoding {encoding!r}", "Save it with raw or gzip encoding"
        )
    channel_axis = _channel_axis(path, fields, dims)
    data, offset = _where(path, fields, end)
    return RawVolume(
        format="nrrd",
        shape=shape,
        channel_axis=channel_axis,
        dtype=np.dtype((">" if fields.get("endian", "").lower() == "big" else "<") + kind),
        affine=_affine(path, fields, dims, channel_axis),
        data=data,
        offset=offset,
        compressed=encoding != "raw",
    )


def _channel_axis(path: Path, fields: dict[str, str], dims: int) -> int | None:
    """The axis that holds colors, by its kind; a fourth axis of another kind (time) is refused."""
    kinds = fields.get("kinds", "").split()
    directions = _directions(fields)
    odd = [
        axis
        for axis in range(dims)
        if (axis < len(kinds) and kinds[axis] not in ("domain", "space", "???"))
        or (axis < len(directions) and directions[axis] == "none")
    ]
    if not odd and dims <= 3:
        return None
    if len(odd) != 1 or (kinds and kinds[odd[0]] not in (*_COLORS, "???")):
        problem = f"has {dims} dimensions of the kinds {fields.get('kinds', 'unknown')!r}"
        raise unsupported(path, problem, "Save each time point or channel as a file of its own")
    return odd[0]


def _directions(fields: dict[str, str]) -> list[str]:
    return re.findall(r"none|\([^)]*\)", fields.get("spacedirections", ""))


def _where(path: Path, fields: dict[str, str], end: int) -> tuple[Path, int]:
    """The file that holds the voxels, and their first byte there."""
    name = fields.get("datafile")
    if name is not None and (name.split()[:1] == ["LIST"] or "%" in name):
        raise unsupported(
            path, "spreads its voxels over several files", "Save it as one .nrrd file"
        )
    data = path if name is None else data_file(path, name)
    offset = end if name is None else 0
    (lines,) = integers(path, fields.get("lineskip", "0"), 1, "line skip")
    (skip,) = integers(path, fields.get("byteskip", "0"), 1, "byte skip")
    if skip == -1:
        return data, -1
    if skip < 0 or not 0 <= lines <= 2**20:
        raise InputError(path, "has a damaged header field, 'line skip' or 'byte skip'", DAMAGED)
    if lines:
        with data.open("rb") as file:
            file.seek(offset)
            for _ in range(lines):
                file.readline(HEADER_BYTES)
            offset = file.tell()
    return data, offset + skip


def _affine(
    path: Path, fields: dict[str, str], dims: int, channel_axis: int | None
) -> Array | None:
    spatial = [axis for axis in range(dims) if axis != channel_axis]
    units = set(re.findall(r'"([^"]*)"', fields.get("spaceunits", "")))
    if units - {"mm", "", "none", "???", "millimeter", "millimeters"}:
        raise unsupported(
            path, f"gives its geometry in {sorted(units)}", "Convert it to millimeters"
        )
    to_ras: NDArray[Any] = _SPACES.get(fields.get("space", "").lower(), LPS_TO_RAS)
    if "spacedirections" in fields:
        vectors = _directions(fields)
        if len(vectors) != dims:
            raise InputError(path, "has a damaged header field, 'space directions'", DAMAGED)
        axes = np.column_stack(
            [_vector(path, vectors[axis], "space directions") for axis in spatial]
        )
    elif "spacings" in fields:
        words = fields["spacings"].split()
        if len(words) != dims:
            raise InputError(path, "has a damaged header field, 'spacings'", DAMAGED)
        steps = numbers(path, " ".join(words[axis] for axis in spatial), None, "spacings")
        axes = np.eye(3)[:, : len(spatial)] * steps
    else:
        return None
    origin = _vector(path, fields.get("spaceorigin", "(0,0,0)"), "space origin")
    return affine_from_axes(axes, origin, to_ras) if axes.shape[1] in (2, 3) else None


def _vector(path: Path, text: str, field: str) -> NDArray[np.float64]:
    """``(3,)`` from ``(x,y,z)`` or ``(x,y)``."""
    values = numbers(path, text.strip("()").replace(",", " "), None, field)
    if len(values) not in (2, 3):
        raise InputError(path, f"has a damaged header field, {field!r}", DAMAGED)
    return np.array([*values, 0.0][:3])
