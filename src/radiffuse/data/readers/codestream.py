"""The size that a compressed DICOM frame or TIFF tile states in its own codestream.

Decoders trust it, not the header around it: a small file can make them allocate any amount.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ...errors import InputError

_MARKERS_OF_SIZE = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xF7}
"""Start-of-frame markers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87)."""


def check_frames(path: Path, data: bytes, count: int, shape: tuple[int, int]) -> None:
    """Refuse encapsulated frames whose (rows, columns) differ from the header's."""
    from pydicom.encaps import generate_frames

    for frame in generate_frames(data, number_of_frames=count):
        claimed = frame_shape(frame) or shape
        if claimed != shape:
            problem = f"has a compressed frame of {claimed[0]} x {claimed[1]}, not {shape[0]} x {shape[1]}"
            raise InputError(path, problem, "Export the file again, or leave it out")


def frame_shape(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a JPEG, JPEG-LS or JPEG 2000 codestream; None for any other, as RLE."""
    if frame[:2] == b"\xff\xd8":
        for marker, body in _segments(frame):
            if marker in _MARKERS_OF_SIZE and len(body) >= 5:
                rows, columns = struct.unpack(">HH", body[1:5])
                return rows, columns
        return None
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # SOC, SIZ: ITU-T T.800, A.5.1
    if start >= 0 and len(frame) >= start + 24:
        right, bottom, left, top = struct.unpack(">IIII", frame[start + 8 : start + 24])
        return bottom - top, right - left
    return None


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
