"""The size that a compressed DICOM frame or TIFF tile states in its own codestream.

Decoders trust it, not the header around it: a small file can make them allocate any amount.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError

_MARKERS_OF_SIZE = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xF7}
"""Start-of-frame markers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87)."""


def check_frames(path: Path, data: Any, count: int, shape: tuple[int, int]) -> None:
    """Refuse encapsulated frames of a data set whose (rows, columns) differ from the header's, or are hidden."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    tables = (data.get("ExtendedOffsetTable"), data.get("ExtendedOffsetTableLengths"))
    where = tables if tables[0] and tables[1] else None  # as pydicom finds them when it decodes
    if data.file_meta.TransferSyntaxUID == RLELossless:
        return  # its segments state no size
    for frame in generate_frames(data.PixelData, number_of_frames=count, extended_offsets=where):
        claimed = frame_shape(frame)
        if claimed != shape:
            size = "unknown size" if claimed is None else f"{claimed[0]} x {claimed[1]}"
            problem = f"has a compressed frame of {size}, not {shape[0]} x {shape[1]}"
            raise InputError(path, problem, "Export the file again, or leave it out")


def frame_shape(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None for any other, or a damaged one."""
    if frame[:2] == b"\xff\xd8":
        for marker, body in _segments(frame):
            if marker in _MARKERS_OF_SIZE and len(body) >= 5:
                rows, columns = struct.unpack(">HH", body[1:5])
                return rows, columns
        return None
    start = _codestream(frame)
    if frame[start : start + 4] == b"\xff\x4f\xff\x51" and len(frame) >= start + 24:
        right, bottom, left, top = struct.unpack(">IIII", frame[start + 8 : start + 24])
        return bottom - top, right - left  # SOC, SIZ: ITU-T T.800, A.5.1
    return None


def _codestream(frame: bytes) -> int:
    """Where a JPEG 2000 codestream begins: at 0, or behind the boxes of a JP2 file (ITU-T T.800, I.4)."""
    at = 0
    while frame[4:8] == b"jP  " and at + 8 <= len(frame) and frame[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(frame[at : at + 4], "big")
        if length < 8:  # to the end, or of 64 bits: too long for a header
            return len(frame)
        at += length
    return at + 8 if at else 0


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment of a JPEG codestream, up to the first scan."""
    at = 2
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return
        (length,) = struct.unpack(">H", frame[at + 2 : at + 4])
        yield marker, frame[at + 4 : at + 2 + max(2, length)]
        at += 2 + max(2, length)
