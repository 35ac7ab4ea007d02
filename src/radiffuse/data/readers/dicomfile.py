"""The header and pixels of a DICOM file.

Only the elements listed here are ever read, so nothing that names a patient enters this process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ...errors import InputError
from ..scan import Array
from .codestream import check_frames
from .common import check_extent, check_length
from .stack import Frame

# It prints values of elements; what matters is refused here.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_IMAGE_TAGS = (
    *("Modality", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePositionPatient"),
    "ImageOrientationPatient",
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_PIXEL_TAGS = (
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
)
_GRAY = ("MONOCHROME1", "MONOCHROME2")
_COLOR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO")
_NO_DECODER = "cannot be decompressed (damaged, or no decoder for {})"


@dataclass(frozen=True)
class File:
    """What one file says about its pixels; ``frames`` hold the geometry of each plane."""

    path: Path
    rows: int
    columns: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    ct: bool
    film_spacing: tuple[float, float] | None
    frames: tuple[Frame, ...]

    @property
    def gray(self) -> bool:
        """Whether it has one gray value per pixel."""
        return self.photometric in _GRAY

    @property
    def unit(self) -> str:
        """Hounsfield units for CT with a rescale, gray values otherwise."""
        return "HU" if self.ct and self.frames[0].rescaled else "gray"

    @property
    def stored_range(self) -> tuple[int, int]:
        """Lowest and highest value of the stored bits."""
        half = 2 ** (self.stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def decode(self) -> Array:
        """Stored values ``(frames, rows, columns)``, or RGB ``(frames, rows, columns, 3)``."""
        data = _load(self.path, _IMAGE_TAGS + _PIXEL_TAGS)
        if "PixelData" not in data:
            raise InputError(self.path, "holds no pixels", "Export the file again")
        if data.file_meta.TransferSyntaxUID.is_encapsulated:
            check_frames(self.path, data.PixelData, len(self.frames), (self.rows, self.columns))
        try:
            pixels = np.asarray(pixel_array(data))
        except (RuntimeError, NotImplementedError) as error:
            if "plugin" not in str(error) and "decod" not in str(error):
                raise
            problem = _NO_DECODER.format(data.file_meta.TransferSyntaxUID.name[:80])
            raise InputError(self.path, problem, "Uncompress it (gdcmconv --raw)") from None
        if self.photometric == "PALETTE COLOR":
            pixels = np.asarray(apply_color_lut(pixels, data))
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        color = () if self.gray else (3,)
        return pixels.reshape(len(self.frames), self.rows, self.columns, *color)


def _load(path: Path, tags: tuple[str, ...]) -> Any:
    """The listed elements of a file alone."""
    meta = pydicom.filereader.read_file_meta_info(path)
    if UID(str(meta.get("TransferSyntaxUID", ""))) == DeflatedExplicitVRLittleEndian:
        # pydicom inflates such a file as a whole, without limit
        raise InputError(path, "is a deflated DICOM file", "Uncompress it (dcmconv +te)")
    stop = "PixelData" not in tags
    return pydicom.dcmread(path, stop_before_pixels=stop, specific_tags=list(tags))


def parse(path: Path) -> File:
    """The header of one file.

    Raises:
        InputError: It is no image, or its color model or bit depth is not read.
    """
    data = _load(path, _IMAGE_TAGS)
    modality = str(data.get("Modality", ""))
    if modality in _NO_IMAGES or "Rows" not in data:
        kind = f"of modality {modality}" if modality.isalnum() and len(modality) < 9 else "object"
        raise InputError(path, f"is a DICOM {kind}, not an image", "Leave it out")
    rows, columns = int(data.Rows), int(data.Columns)
    samples = int(data.get("SamplesPerPixel", 1))
    count = max(1, int(data.get("NumberOfFrames") or 1))
    check_extent(path, (rows, columns) if count == 1 else (columns, rows, count), samples)
    photometric = str(data.get("PhotometricInterpretation", ""))
    expected = 3 if photometric in _COLOR and photometric != "PALETTE COLOR" else 1
    if photometric not in _GRAY + _COLOR or samples != expected:
        raise InputError(path, "has a color model that is not read", "Convert it to gray or RGB")
    allocated = int(data.BitsAllocated)
    stored = int(data.get("BitsStored") or allocated)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise InputError(path, f"stores {stored} bits in {allocated}", "Convert it to 8 or 16 bit")
    if not data.file_meta.TransferSyntaxUID.is_compressed and photometric != "YBR_FULL_422":
        check_length(path, rows * columns * samples * count * allocated // 8)
    return File(
        path=path,
        rows=rows,
        columns=columns,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        signed=bool(int(data.get("PixelRepresentation", 0))),
        ct=modality == "CT",
        film_spacing=_film_spacing(data),
        frames=tuple(_frame(path, data, index) for index in range(count)),
    )


def _film_spacing(data: Any) -> tuple[float, float] | None:
    """Millimeters per row and column: calibrated, else at the detector, else of the scanner."""
    spacing = _element(data, 0, "PixelMeasuresSequence", "PixelSpacing")
    others = (data.get("ImagerPixelSpacing"), data.get("NominalScannedPixelSpacing"))
    for value in (spacing, *others):
        numbers = _numbers(value, 2)
        if numbers is not None and min(numbers) > 0:
            return (numbers[0], numbers[1])
    return None


def _frame(path: Path, data: Any, index: int) -> Frame:
    values = "PixelValueTransformationSequence"
    slope = _numbers(_element(data, index, values, "RescaleSlope"), 1)
    intercept = _numbers(_element(data, index, values, "RescaleIntercept"), 1)
    if slope is not None and slope[0] == 0:
        raise InputError(path, "has a rescale slope of zero", "Export the file again")
    spacing = _element(data, index, "PixelMeasuresSequence", "PixelSpacing")
    position = _element(data, index, "PlanePositionSequence", "ImagePositionPatient")
    orientation = _element(data, index, "PlaneOrientationSequence", "ImageOrientationPatient")
    return Frame(
        path=path,
        position=_numbers(position, 3),
        orientation=_numbers(orientation, 6),
        spacing=_numbers(spacing, 2),
        slope=slope[0] if slope else 1.0,
        intercept=intercept[0] if intercept else 0.0,
        rescaled=slope is not None,
    )


def _element(data: Any, index: int, sequence: str, keyword: str) -> Any:
    """A value from the frame's functional group, else the shared one, else the top level."""
    groups = data.get("PerFrameFunctionalGroupsSequence") or []
    shared = data.get("SharedFunctionalGroupsSequence") or []
    for group in (*groups[index : index + 1], *shared[:1]):
        for item in (group.get(sequence) or [])[:1]:
            if item.get(keyword) is not None:
                return item.get(keyword)
    return data.get(keyword)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Finite numbers, or None where the element is absent, empty or of another length."""
    if value is None or value == "":
        return None
    numbers = tuple(float(each) for each in (value if count > 1 else [value]))
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None
