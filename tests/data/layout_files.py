"""Small data sets on disk, organized in the ways that radiffuse reads."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def film(path, seed=0, size=(24, 20), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if mode == "L" else (*size, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def film_label(path, values=(0, 1), size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values, np.uint8), size)
    Image.fromarray(array).save(path)
    return path


def volume(path, seed=0, size=(8, 7, 6), spacing=(1.0, 1.0, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(-1000, 1000, size, dtype=np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def volume_label(path, values=(0, 1), size=(8, 7, 6), spacing=(1.0, 1.0, 2.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.resize(np.array(values, np.uint8), size)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def pairs(root, count=3, **classes):
    for i in range(count):
        film(root / "images" / f"c{i}.png", seed=i)
        film_label(root / "labels" / f"c{i}.png")
    return root


def dicom(path, *, series, instance, patient="DOE^JANE", modality="CT", position=None, seed=0):
    """One 8 x 8 slice or film; the patient's identity is in the header, as it is in life."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{instance}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID = CTImageStorage
    file.SOPInstanceUID = f"1.2.3.{instance}"
    file.SeriesInstanceUID = f"1.2.4.{series}"
    file.StudyInstanceUID = "1.2.5"
    file.PatientID = patient
    file.PatientName = patient
    file.Modality = modality
    if position is not None:
        file.ImagePositionPatient = [0, 0, position]
        file.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        file.PixelSpacing = [1, 1]
    file.Rows = file.Columns = 8
    file.SamplesPerPixel = 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.PixelRepresentation = 1
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    pixels = np.random.default_rng([seed, instance]).integers(0, 2000, (8, 8), dtype=np.int16)
    file.PixelData = pixels.tobytes()
    file.save_as(path)
    return path


def coco(root, *, name="annotations.json", annotations=None, files=("a.png", "b.png")):
    for i, file in enumerate(files):
        film(root / "images" / file, seed=i, size=(10, 12))
    square = [2, 3, 6, 3, 6, 8, 2, 8]
    content = {
        "images": [
            {"id": i, "file_name": file, "height": 10, "width": 12} for i, file in enumerate(files)
        ],
        "categories": [{"id": 7, "name": "caries"}, {"id": 3, "name": "tooth"}],
        "annotations": annotations
        if annotations is not None
        else [
            {
                "id": 1,
                "image_id": 0,
                "category_id": 3,
                "segmentation": [square],
                "bbox": [2, 3, 4, 5],
            }
        ],
    }
    return write_json(root / name, content)
