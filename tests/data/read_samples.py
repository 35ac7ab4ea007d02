"""Small files of every format, made on the spot, for the tests of the readers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

PATIENT = "Roentgen^Anna Bertha"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rotation(degrees: float, axis: int) -> np.ndarray:
    turn = np.radians(degrees)
    cos, sin = np.cos(turn), np.sin(turn)
    first, second = [a for a in range(3) if a != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def affine(kind: str) -> np.ndarray:
    """Right-handed and left-handed geometries with unequal voxel sizes."""
    directions = {
        "upright": np.eye(3),
        "flipped": np.diag([-1.0, -1.0, 1.0]),
        "mirrored": np.diag([1.0, -1.0, 1.0]),
        "permuted": np.eye(3)[:, [2, 0, 1]],
        "oblique": rotation(20, 2) @ rotation(-13, 0),
    }
    result = np.eye(4)
    result[:3, :3] = directions[kind] * np.array([0.7, 1.1, 2.5])
    result[:3, 3] = [-31.5, 12.25, 80.0]
    return result


GEOMETRIES = ("upright", "flipped", "mirrored", "permuted", "oblique")


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, color: int = 0) -> bytes:
    """A PNG that announces a size and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + body + png_chunk(b"IEND", b"")


def png(depth: int, color: int, rows: list[bytes], width: int) -> bytes:
    """A PNG of any depth and color type; rows are packed already."""
    head = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head)
    return start + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def dicom(pixels: np.ndarray, *, modality: str = "CT", **elements: Any) -> FileDataset:
    """A data set of one frame, or of several where ``pixels`` has three axes; names a patient."""
    meta = FileMetaDataset()
    film = modality in ("CR", "DX", "US")
    meta.MediaStorageSOPClassUID = (
        DigitalXRayImageStorageForPresentation if film else CTImageStorage
    )
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[str(pixels.sum())])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientName = PATIENT
    data.PatientID = "1845-03-27"
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Modality = modality
    color = pixels.shape[-1] == 3 and pixels.dtype == np.uint8 and pixels.ndim == 3
    data.SamplesPerPixel = 3 if color else 1
    data.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
    if color:
        data.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[:2] if color else pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(data, name, value)
    return data


def save(data: FileDataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (1.5, 0.75),
    step: tuple[float, float, float] = (0, 0, 2.0),
    **elements: Any,
) -> list[Path]:
    """One CT slice per file; ``volume`` is ``(slices, rows, columns)``, spacing (rows, columns)."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index, pixels in enumerate(volume):
        position = np.array([-30.0, -20.0, 100.0]) + index * np.array(step)
        data = dicom(
            pixels,
            ImagePositionPatient=[float(v) for v in position],
            ImageOrientationPatient=[float(v) for v in orientation],
            PixelSpacing=list(spacing),
            RescaleSlope=1,
            RescaleIntercept=-1024,
            **elements,
        )
        paths.append(save(data, folder / f"{index:03d}.dcm"))
    return paths


def alter(path: Path, **elements: object) -> None:
    """Set elements of a file."""
    data = pydicom.dcmread(path)
    for name, value in elements.items():
        setattr(data, name, value)
    save(data, path)
