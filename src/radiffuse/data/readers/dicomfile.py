"""The header and pixels of a DICOM file.

Only the elements listed here are ever read, so nothing that names a patient enters this process.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ...errors import InputError
from ..scan import Array
from .codestream import check_frames
from .common import check_extent, check_length
from .stack import KINDS, Frame

# It prints values of elements; what matters is refused here.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_IMAGE_TAGS = (
    *("Modality", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelSpacing"),
    *("ImagerPixelSpacing", "NominalScannedPixelSpacing", "ImagePositionPatient"),
    *("ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence"),
    *KINDS,
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
REPAIR = "Export it again, or leave it out (dcmconv of DCMTK writes a whole file)"
MOST_FRAMES = 2**16
"""Most frames of a file: as many as a film has rows or columns."""
MOST_ITEMS = 2**17
"""Most items of sequences in a file; 2,000 frames of an enhanced CT have 40,000. Each takes 8 kB of memory."""
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
"""Begin an item, low byte first and high byte first (PS3.5, 7.5)."""
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
    high: int
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
        data = load(self.path, _IMAGE_TAGS + _PIXEL_TAGS, pixels=True)
        if "PixelData" not in data:
            raise InputError(self.path, "holds no pixels", "Export the file again")
        if data.file_meta.TransferSyntaxUID.is_encapsulated:
            check_frames(self.path, data, len(self.frames), (self.rows, self.columns))
        else:
            data.BitsStored = self.high + 1  # pydicom drops what lies above
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


class _Counted(io.BufferedReader):
    """A file that counts items as they are read: the smallest has 8 bytes, and becomes an object of 8 kB."""

    items = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.items += sum(map(data.count, _ITEMS))
        if self.items > MOST_ITEMS:
            raise OSError  # any other error may become one on its way through pydicom
        return data


def load(path: Path, tags: Sequence[str], *, pixels: bool = False) -> Any:
    """The listed elements of a file alone, without its pixels unless asked. Each DICOM file is opened here.

    Raises:
        InputError: It lacks the preamble or its transfer syntax, or takes far more memory than its size says.
    """
    with _Counted(io.FileIO(path)) as file:
        try:
            meta = pydicom.filereader.read_file_meta_info(path)
        except InvalidDicomError:
            problem = "is no readable DICOM file: it lacks the preamble (DICM after 128 bytes)"
            raise InputError(path, problem, REPAIR) from None
        if not meta.get("TransferSyntaxUID"):
            problem = "is no readable DICOM file: it does not name its transfer syntax"
            raise InputError(path, problem, REPAIR)
        if UID(str(meta.get("TransferSyntaxUID", ""))) == DeflatedExplicitVRLittleEndian:
            # pydicom inflates such a file as a whole, without limit
            raise InputError(path, "is a deflated DICOM file", "Uncompress it (dcmconv +te)")
        try:
            return pydicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=list(tags))
        except OSError:
            if file.items <= MOST_ITEMS:
                raise
            problem = f"has more than {MOST_ITEMS:,} items in its header"
            raise InputError(path, problem, "Export it again, or leave it out") from None


def parse(path: Path) -> File:
    """The header of one file.

    Raises:
        InputError: It is no image, or its color model or bit depth is not read.
    """
    data = load(path, _IMAGE_TAGS)
    modality = str(data.get("Modality", ""))
    if modality in _NO_IMAGES or "Rows" not in data:
        kind = f"of modality {modality}" if modality.isalnum() and len(modality) < 9 else "object"
        raise InputError(path, f"is a DICOM {kind}, not an image", "Leave it out")
    if "MOSAIC" in str(data.get("ImageType", "")):
        problem = "is a mosaic: the slices of a volume side by side in one picture (ImageType)"
        raise InputError(path, problem, "Convert it to NIfTI with dcm2niix")
    rows, columns = int(data.Rows), int(data.Columns)
    samples = int(data.get("SamplesPerPixel", 1))
    count = max(1, int(data.get("NumberOfFrames") or 1))
    if count > MOST_FRAMES:
        problem = f"announces {count:,} frames, more than {MOST_FRAMES:,}"
        raise InputError(path, problem, "Split it, or check its header for damage")
    check_extent(path, (rows, columns) if count == 1 else (columns, rows, count), samples)
    photometric = str(data.get("PhotometricInterpretation", ""))
    expected = 3 if photometric in _COLOR and photometric != "PALETTE COLOR" else 1
    if photometric not in _GRAY + _COLOR or samples != expected:
        raise InputError(path, "has a color model that is not read", "Convert it to gray or RGB")
    allocated = int(data.BitsAllocated)
    stored = int(data.get("BitsStored") or allocated)
    if allocated not in (8, 16, 32) or not 0 < stored <= allocated:
        raise InputError(path, f"stores {stored} bits in {allocated}", "Convert it to 8 or 16 bit")
    encapsulated = data.file_meta.TransferSyntaxUID.is_encapsulated
    high = int(data.get("HighBit") or 0)
    high = high if stored <= high < allocated and not encapsulated else stored - 1
    if data.get("ModalityLUTSequence"):
        remedy = "Apply the table, and save it with RescaleSlope or as a 16-bit PNG or TIFF"
        raise InputError(path, "gives its values by a table (ModalityLUTSequence)", remedy)
    if not data.file_meta.TransferSyntaxUID.is_compressed:
        stored_samples = 2 if photometric == "YBR_FULL_422" else samples
        check_length(path, rows * columns * stored_samples * count * allocated // 8)
    return File(
        path=path,
        rows=rows,
        columns=columns,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        high=high,
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
        kinds=tuple(_kind(data, index, name) for name in KINDS),
        thickness=_length(data, index, "SliceThickness"),
        between=_length(data, index, "SpacingBetweenSlices"),
    )


def _length(data: Any, index: int, keyword: str) -> float | None:
    """Millimeters, None where absent or not a number: nothing but the judgment of packages depends on it."""
    try:
        numbers = _numbers(_element(data, index, "PixelMeasuresSequence", keyword), 1)
    except (ValueError, TypeError, OverflowError):
        return None
    return abs(numbers[0]) if numbers else None


def _kind(data: Any, index: int, keyword: str) -> str:
    """The value of an element of ``KINDS`` as text, '' where it is absent, empty, or not what its name says."""
    sequence = "MRDiffusionSequence" if keyword == "DiffusionBValue" else "FrameContentSequence"
    try:
        value = _element(data, index, sequence, keyword)
        if keyword != "ImageType":
            numbers = _numbers(value, 1)
            return str(round(numbers[0], 2)).removesuffix(".0") if numbers else ""
    except (
        ValueError,
        TypeError,
        OverflowError,
    ):  # damaged, or several, where nothing is read from it
        return ""
    words = [value] if isinstance(value, str) else list(value or ())
    return "\\".join(words) if all(re.fullmatch("[A-Z0-9_ ]{,16}", w) for w in words) else ""


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
