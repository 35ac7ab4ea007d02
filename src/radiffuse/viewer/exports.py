"""Masks and maps as files to keep: NIfTI, PNG, TIFF, and DICOM-SEG where the source is DICOM."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..data.names import safe_name
from ..data.readers import is_dicom, write_image, write_label
from ..data.scan import Array, Scan
from .refusal import Refused
from .scans import MAP, MASK, Item, Layer
from .state import State

SUFFIXES = {"nifti": ".nii.gz", "png": ".png", "tiff": ".tif", "dicom-seg": ".dcm"}


def dicom_seg_available() -> bool:
    """Whether DICOM-SEG can be written here."""
    return find_spec("highdicom") is not None


def is_dicom_scan(item: Item) -> bool:
    """Whether a scan came as DICOM."""
    return bool(item.case.series) or is_dicom(item.case.images[0])


def formats(item: Item, scan: Scan, layer: Layer) -> list[str]:
    """The formats in which a layer can be exported, the usual one first."""
    film = scan.spatial_dims == 2
    if layer.kind == MAP:
        return ["tiff", "nifti"] if film else ["nifti"]
    found = ["png", "nifti"] if film else ["nifti"]
    if layer.kind == MASK and is_dicom_scan(item) and dicom_seg_available():
        found.append("dicom-seg")
    return found


def export(state: State, item: Item, layer: Layer, format: str) -> tuple[str, bytes]:
    """A layer as a file: its name and content. Of several steps the result.

    Raises:
        Refused: The layer cannot be exported in this format.
    """
    scan = state.scans.scan(item)
    if format not in formats(item, scan, layer):
        raise Refused(400, f"This cannot be exported as {format}."[:120])
    array = state.scans.array(item, layer)[-1]
    path = state.new_path(SUFFIXES[format])
    try:
        if format == "dicom-seg":
            _write_dicom_seg(path, array, item, layer)
        elif layer.kind == MAP:
            write_image(path, array, scan)
        else:
            write_label(path, array, scan)
        content = path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
    return f"{safe_name(f'{item.name}-{layer.name}')}{SUFFIXES[format]}", content


def _write_dicom_seg(path: Path, mask: Array, item: Item, layer: Layer) -> None:
    from ..inference.dicom_seg import write_dicom_seg

    count = max(len(layer.classes), int(mask.max(initial=0)) + 1)
    classes = [layer.class_name(value) for value in range(count)]
    source, series = item.case.images[0], item.case.series
    write_dicom_seg(path, np.asarray(mask), classes, source, series, layer.model)
