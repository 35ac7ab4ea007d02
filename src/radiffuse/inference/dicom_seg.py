"""A mask as a DICOM Segmentation object (PS3.3, A.51) that refers to the images it was made from.

A segmentation in DICOM belongs to a patient: the file repeats from the images what the standard requires of a patient
and a study, because archives demand it. That is written nowhere else; of the rest of a header only geometry is read.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.readers import inspect, is_dicom, source_frames
from ..data.scan import Array
from ..errors import InputError
from ..system.files import whole
from ..system.installing import install

SIDES = {"left": "Left", "right": "Right"}
ABNORMAL = {"tumor": "Neoplasm", "tumour": "Neoplasm", "cyst": "Cyst", "lesion": "Lesion"}
"""Words of a class that mean something abnormal, with their concept of SNOMED CT."""
SYNONYMS = {
    "urinary bladder": "Bladder", "small bowel": "SmallIntestine", "adrenal gland": "AdrenalGland",
    "portal and splenic veins": "PortalVein",
    "clavicula": "Clavicle", "lungs": "Lung", "teeth": "Tooth",
}  # fmt: skip
"""Concepts of SNOMED CT, as pydicom names them, whose names differ from those of data sets."""
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
"""Attributes of type 2: must be there, may be empty (DICOM PS3.3, C.7.1.1 and C.7.2.1)."""
READ = (
    *MAY_BE_EMPTY, "StudyInstanceUID", "SpecificCharacterSet",
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Modality",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns", "NumberOfFrames",
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "SliceThickness", "SpacingBetweenSlices",
    "ImagePositionPatient", "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""All that is read of a header: what a patient and a study must have, what is referred to, and where it lies."""


def write_dicom_seg(
    path: Path,
    mask: Array,
    classes: Sequence[str],
    source: Path,
    series: Sequence[Path] = (),
    model: str = "",
) -> None:
    """Write a mask as DICOM-SEG.

    Segment n is class n, binary, with its name as label; empty slices are left out. Common organs get their code of
    SNOMED CT and their side, other classes the code of tissue.

    Args:
        path: ``.dcm``.
        mask: Labels ``(*spatial)`` in the order of ``read_scan(source, series=series)``.
        classes: Names by label value, background first.
        source: The DICOM file, or the folder of a series.
        series: The files of the series, in any order; () for a single file.
        model: Hash of what made the mask, if known.

    Raises:
        InputError: highdicom is missing, the source is not DICOM or lacks what a reference needs, or the disk is full.
        ValueError: The mask does not fit the source or has values without a class.
    """
    require_highdicom()
    import highdicom

    if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < len(classes):
        raise ValueError(f"labels up to {mask.max()} for {len(classes)} classes")
    images, pixels = _images(source, series, mask)
    from .. import __version__

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the patient's values
        try:
            result = highdicom.seg.Segmentation(
                source_images=images,
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=_segments(classes, model),
                series_instance_uid=highdicom.UID(),
                series_number=1000 + int(images[0].get("SeriesNumber") or 0),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="radiffuse",
                manufacturer_model_name="radiffuse",
                software_versions=__version__,
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description="radiffuse segmentation, not for clinical use",
            )
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            # The message may quote the patient; only the attribute at fault is repeated.
            problem = f"lacks what DICOM-SEG refers to ({type(error).__name__}{_attribute(error)})"
            remedy = "Use the files as the scanner exported them, or write NIfTI"
            raise InputError(source, problem, remedy) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            result.save_as(file, enforce_file_format=True)


def require_highdicom() -> None:
    """Raises InputError where the package that writes DICOM-SEG is not installed."""
    if importlib.util.find_spec("highdicom") is None:
        remedy = f"Install it: {install('dicom-seg')}"
        raise InputError("--format dicom-seg", "needs the package highdicom", remedy)


def property_of(name: str) -> tuple[str, str, str | None]:
    """Category, type, and side or None of a class such as ``left kidney``, in pydicom's keywords of SNOMED CT.

    The type is ``Tissue`` if nothing is known.
    """
    from pydicom.sr.codedict import codes

    words = name.lower().replace("_", " ").replace("-", " ").split()
    side = next((SIDES[word] for word in words if word in SIDES), None)
    rest = " ".join(word for word in words if word not in SIDES)
    for word in words:
        if word in ABNORMAL:
            return "MorphologicallyAbnormalStructure", ABNORMAL[word], side
    keyword = SYNONYMS.get(rest) or "".join(word.capitalize() for word in rest.split())
    if keyword.isidentifier() and hasattr(codes.SCT, keyword):
        return "AnatomicalStructure", keyword, side
    return "Tissue", "Tissue", side


# ------------------------------------------------------------------------------------------------ internal


def _images(source: Path, series: Sequence[Path], mask: Array) -> tuple[list[Any], Array]:
    """Headers of the source, completed where anonymizers removed what must be there, and the planes in their order."""
    from pydicom import dcmread
    from pydicom.datadict import tag_for_keyword

    if not (series or (source.is_file() and is_dicom(source))):
        remedy = "Give the DICOM files that the scan came from, or write NIfTI"
        raise InputError(source, "is not DICOM, which DICOM-SEG refers to", remedy)
    places = source_frames(source, series)
    planes = (mask[None] if mask.ndim == 2 else mask.transpose(2, 1, 0)).astype(np.uint8)
    if len(places) != len(planes):
        raise ValueError(f"{len(planes)} slices for {len(places)} images")
    files = list(dict.fromkeys(file for file, _ in places))
    tags = [tag_for_keyword(name) for name in READ]
    images = [dcmread(file, stop_before_pixels=True, specific_tags=tags) for file in files]
    if len(files) == 1 and int(images[0].get("NumberOfFrames") or 1) > 1:
        in_space, planes = planes, np.empty_like(planes)
        for (_, frame), plane in zip(places, in_space, strict=True):
            planes[frame] = plane
    elif len(files) < len(places):
        problem = "is one of several multi-frame files, which DICOM-SEG cannot refer to together"
        raise InputError(files[0], problem, "Give the files one at a time, or write NIfTI")
    spacing = inspect(source, series).spacing
    for image in images:
        for name in MAY_BE_EMPTY:
            if name not in image:
                setattr(image, name, None)
        if spacing and len(spacing) == 3 and not image.get("SliceThickness"):
            image.SliceThickness = round(spacing[2], 6)
    return images, planes


def _segments(classes: Sequence[str], model: str) -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sequence import Sequence as Items
    from pydicom.sr.codedict import codes

    from .. import __version__

    algorithm = AlgorithmIdentificationSequence(
        name="radiffuse",
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        parameters={"model": model} if model else None,
    )
    segments = []
    for number, name in enumerate(classes[1:], start=1):
        category, kind, side = property_of(name)
        segment = SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=getattr(codes.SCT, category),
            segmented_property_type=getattr(codes.SCT, kind),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        if side is not None:
            item = segment.SegmentedPropertyTypeCodeSequence[0]
            modifier = CodedConcept.from_code(getattr(codes.SCT, side))
            item.SegmentedPropertyTypeModifierCodeSequence = Items([modifier])
        segments.append(segment)
    return segments


def _attribute(error: Exception) -> str:
    """The attribute that an error of pydicom names; '' where it names none."""
    if not isinstance(error, AttributeError):
        return ""
    word = str(error).rstrip("'").rsplit("'", 1)[-1]
    return f": {word}" if word.isidentifier() else ""
