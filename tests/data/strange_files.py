"""Data sets as hospitals, archives and annotation programs export them, and what must come of each.

Used by the tests and by ``benchmarks/strange_files.py``. Voxels are made here and compared with what is read, so that
nothing is misread in silence.
"""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import struct
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from read_samples import dicom, rng, save

Array = np.ndarray[Any, Any]
COUNT = 4
"""Cases of each data set, of one patient each, where nothing else is said."""


@dataclass(frozen=True)
class Kind:
    """A data set of strangers.

    Attributes:
        title: What it is.
        make: Writes it; returns the arrays ``(C, *spatial)`` that reading must give by case, in the order of their
            names, or None where they are not compared.
        says: Part of the error or warning that ``check`` must show; empty: it must find nothing wrong.
        refused: Whether what it says is an error.
        labels: The label maps that reading must give, likewise.
        patients: How many there must be.
    """

    title: str
    make: Callable[[Path], list[Array] | None]
    says: str = ""
    refused: bool = False
    labelled: int = 0
    patients: int = COUNT


KINDS: dict[str, Kind] = {}


def kind(title: str, says: str = "", **values: Any) -> Callable[[Any], Any]:
    """Enter what makes a kind; ``says`` that begins with "error: " is an error."""
    refused = says.startswith("error: ")

    def enter(make: Any) -> Any:
        name = make.__name__.replace("_", "-")
        KINDS[name] = Kind(title, make, says.removeprefix("error: "), refused, **values)
        return make

    return enter


# ------------------------------------------------------------------------------------------------ parts


def gray(seed: int, shape: tuple[int, ...] = (24, 20), top: int = 255) -> Array:
    """Random values, the smallest and largest among them."""
    values = rng(seed).integers(0, top + 1, shape).astype(np.uint8 if top < 256 else np.uint16)
    values.flat[:2] = 0, top
    return values


def square(shape: tuple[int, ...] = (24, 20), value: int = 1) -> Array:
    """A label map with a box of one class."""
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 2) for n in shape)] = value
    return label


def place(folder: Path, *parts: str) -> Path:
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def png(array: Array, path: Path, **options: Any) -> None:
    Image.fromarray(array).save(path, **options)


def nifti(array: Array, path: Path, spacing: tuple[float, ...] = (1.0, 1.5, 2.0)) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


def volumes(seed: int = 0) -> Iterable[tuple[int, Array]]:
    for i in range(COUNT):
        yield i, rng(seed + i).integers(-1000, 1000, (9, 8, 7)).astype(np.int16)


def films(folder: Path, name: str = "c{}.png") -> list[Array]:
    """Plain films, for kinds whose strangeness is elsewhere."""
    arrays = [gray(i) for i in range(COUNT)]
    for i, array in enumerate(arrays):
        png(array, place(folder, name.format(i)))
    return [array[None] for array in arrays]


def film_pairs(folder: Path, label: Callable[[Array, Path], None] | None = None) -> list[Array]:
    """Films with label maps, which ``label`` writes."""
    arrays = films(folder / "images")
    for i in range(COUNT):
        (label or png)(np.roll(square(), i, 0), place(folder, "labels", f"c{i}.png"))
    return arrays


def slices(
    folder: Path,
    number: int,
    volume: Array,
    *,
    axes: tuple[int, ...] = (1, 0, 0, 0, 1, 0),
    step: tuple[float, float, float] = (0, 0, 2.0),
    change: Callable[[Any, int], None] | None = None,
    name: str = "IM{:04d}",
    **elements: Any,
) -> None:
    """A series ``(slices, rows, columns)``, without suffixes as on a disc; ``change`` alters each slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(volume):
        data = dicom(
            pixels,
            **{
                "ImagePositionPatient": [float(v * index) for v in step],
                "ImageOrientationPatient": [float(v) for v in axes],
                "PixelSpacing": [1.5, 0.75],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                "SeriesInstanceUID": f"1.2.9.{number}",
                "StudyInstanceUID": f"1.2.8.{number}",
                "SOPInstanceUID": f"1.2.10.{number}.{index}",
                "PatientID": f"P{number}",
                "InstanceNumber": index,
                **elements,
            },
        )
        if change:
            change(data, index)
        save(data, folder / name.format(index))


def series(folder: Path, **values: Any) -> list[Array]:
    """Series of CT; what must be read is (columns, rows, slices) in HU, by hash of the UID."""
    stored = [gray(i, (5, 8, 6), 4000) for i in range(COUNT)]
    for i, volume in enumerate(stored):
        slices(folder / f"S{i}", i, volume, **values)
    return [volume.transpose(2, 1, 0)[None].astype(np.int32) - 1024 for volume in stored]


def film_files(folder: Path, change: Callable[[Any, int], Any], depth: int = 12) -> list[Array]:
    """Digital X-rays, each changed; the arrays are those that were stored."""
    arrays = [gray(i, top=2**depth - 1).astype(np.uint16) for i in range(COUNT)]
    for i, array in enumerate(arrays):
        data = dicom(
            array,
            modality="DX",
            BitsStored=depth,
            HighBit=depth - 1,
            PatientID=f"P{i}",
            SOPInstanceUID=f"1.2.3.{i}",
            SeriesInstanceUID=f"1.2.4.{i}",
            StudyInstanceUID=f"1.2.5.{i}",
        )
        change(data, i)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(data, place(folder, f"X{i}.dcm"))
    return [array[None] for array in arrays]


# ------------------------------------------------------------------------------------------------ DICOM


@kind("a disc of an archive: DICOMDIR, a viewer, help pages", "3 files of unknown kind")
def disc_of_an_archive(folder: Path) -> list[Array]:
    arrays = series(folder / "DICOM" / "PA0" / "ST0")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    for name in ("AUTORUN.INF", "VIEWER.EXE", "README.TXT", "INDEX.HTM"):
        (folder / name).write_text("x")
    return arrays


@kind("PET: another slope for each slice")
def slope_per_slice(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.RescaleSlope, data.RescaleIntercept, data.Modality = 0.5 * (index + 1), 0, "PT"

    found = series(folder, change=change)
    return [((v + 1024) * 0.5 * np.arange(1, 6)).astype(np.float32) for v in found]


@kind("a sagittal series, stored back to front")
def sagittal_series(folder: Path) -> list[Array]:
    found = series(folder, axes=(0, 1, 0, 0, 0, -1), step=(3.0, 0, 0), name="{:03d}.ima")
    for i in range(COUNT):  # the order of names says nothing
        names = sorted(p.name for p in (folder / f"S{i}").iterdir())
        for old, new in zip(names, reversed(names), strict=True):
            (folder / f"S{i}" / old).rename(folder / f"S{i}" / f"x{new}")
    return [v[..., ::-1] for v in found]


@kind("explicit big endian, a retired transfer syntax")
def big_endian_dicom(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        data._read_little, data._read_implicit = None, None

    return series(folder, change=change)


@kind("implicit little endian with private elements, as Philips writes it")
def private_elements(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0D, "FL", -3.5)
        block.add_new(0x0E, "FL", 0.001)

    return series(folder, change=change)


@kind("12 bits in the upper part of 16 (HighBit 15), as old digitizers write")
def bits_at_the_top(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.HighBit = 15
        data.PixelData = (np.frombuffer(data.PixelData, np.uint16) << 4).tobytes()

    return film_files(folder, change)


@kind("12 bits packed, three bytes for two pixels", "error: stores 12 bits in 12")
def packed_bits(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        data.BitsAllocated = 12
        data.PixelData = data.PixelData[: 24 * 20 * 3 // 2]

    film_files(folder, change)


@kind("values through a table (ModalityLUTSequence)", "error: ModalityLUTSequence")
def table_of_values(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 16]
        item.ModalityLUTType = "OD"
        item.LUTData = np.arange(4096)[::-1].astype(np.uint16).tobytes()
        data.ModalityLUTSequence = Sequence([item])

    film_files(folder, change)


@kind("a window that does not invert, overlays and padding in the header")
def overlays_and_windows(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.WindowCenter, data.WindowWidth, data.VOILUTFunction = 2000, 400, "SIGMOID"
        data.PixelPaddingValue = 0
        data.add_new(0x60000010, "US", 24)
        data.add_new(0x60000011, "US", 20)
        data.add_new(0x60003000, "OW", b"\xff" * 60)
        if index == 3:  # odd lengths are padded, and some programs pad more
            data.PixelData += b"\0\0"

    return film_files(folder, change)


@kind("float pixels of a parametric map", "error: holds no pixels")
def float_pixels(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        data.FloatPixelData = np.ones((24, 20), np.float32).tobytes()
        data.BitsAllocated = 32
        del data.PixelData

    film_files(folder, change)


@kind("some CT in HU, some without slope and intercept", "mixes units: 2 in HU and 2 in gray")
def two_units(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        if data.PatientID in ("P0", "P1"):
            del data.RescaleSlope, data.RescaleIntercept

    series(folder, change=change)


@kind(
    "two studies of one patient, whose number is spelled in two ways", "in several ways", patients=2
)
def patient_numbers_retyped(folder: Path) -> list[Array]:
    numbers = ("0815", "815 ", "abc-7", "ABC-7")

    def change(data: Any, index: int) -> None:
        data.PatientID = numbers[int(data.PatientID[1:])]

    return series(folder, change=change)


@kind("anonymized: the same word as PatientID everywhere", "the same patient", patients=1)
def one_word_for_all(folder: Path) -> list[Array]:
    return series(folder, PatientID="ANONYMOUS")


@kind("a study exported twice, into two folders", "error: is the same image as")
def exported_twice(folder: Path) -> None:
    series(folder)
    shutil.copytree(folder / "S0", folder / "export 2" / "S0")


@kind("two reconstructions under one SeriesInstanceUID", "error: in the same place")
def two_reconstructions(folder: Path) -> None:
    series(folder)
    slices(
        folder / "S0" / "B", 0, gray(9, (5, 8, 6), 4000), SOPInstanceUID="", ConvolutionKernel="B70"
    )


@kind("a coronal slice in an axial series", "error: another orientation")
def mixed_orientations(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        if data.PatientID == "P1" and index == 2:
            data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    series(folder, change=change)


@kind("contours, plan, dose, a report and a PDF beside the CT", "left out: 1 of the kind")
def radiotherapy(folder: Path) -> list[Array]:
    arrays = series(folder)
    for i, modality in enumerate(("RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "DOC")):
        data = dicom(gray(i), modality=modality, SOPInstanceUID=f"1.2.77.{i}")
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.8.0", f"1.2.9.77{i}"
        if modality != "RTDOSE":
            del data.Rows, data.Columns, data.PixelData
        save(data, folder / f"{modality}.dcm")
    return arrays


@kind(
    "MR in two interleaved packages, told apart by AcquisitionNumber", "are stacked as one volume"
)
def packages(folder: Path) -> list[Array]:
    def change(data: Any, index: int) -> None:
        data.AcquisitionNumber = 1 + index % 2

    return series(folder, change=change, modality="MR", SpacingBetweenSlices=2, SliceThickness=1.8)


@kind("two MR volumes half a slice apart in one series", "error: SliceThickness is 4 mm")
def half_a_slice_apart(folder: Path) -> None:
    def change(data: Any, index: int) -> None:
        data.AcquisitionNumber = 1 + index % 2

    series(folder, change=change, modality="MR", SliceThickness=4)


@kind("mosaics of functional MR: all slices of a volume in one picture", "error: is a mosaic")
def mosaics(folder: Path) -> None:
    film_files(folder, lambda data, i: setattr(data, "ImageType", ["ORIGINAL", "M", "MOSAIC"]))


@kind("CT whose slices are 2 mm apart in the chest and 5 mm below", "error: uneven slices, 2 to 5")
def two_spacings(folder: Path) -> None:
    heights = (0.0, 2.0, 4.0, 9.0, 14.0)
    series(folder, change=lambda d, i: setattr(d, "ImagePositionPatient", [0, 0, heights[i]]))


@kind("one SOPInstanceUID for all slices of a series, by a program that removes names")
def one_uid_for_all(folder: Path) -> list[Array]:
    return series(folder, SOPInstanceUID="1.2.3")


@kind("mammograms as the detector saw them beside processed ones", "raw and processed images")
def raw_and_processed(folder: Path) -> list[Array]:
    kinds = ("FOR PROCESSING", "FOR PRESENTATION")
    return film_files(folder, lambda d, i: setattr(d, "PresentationIntentType", kinds[i % 2]), 14)


@kind("a cine of ultrasound: many frames in one place", "error: film sequence")
def ultrasound_cine(folder: Path) -> None:
    for i in range(COUNT):
        data = dicom(gray(i, (6, 24, 20)), modality="US", SOPInstanceUID=f"1.2.{i}", FrameTime=40)
        save(data, place(folder, f"US{i}.dcm"))


@kind("DICOM files packed by gzip", "error: Unpack")
def gzipped_dicom(folder: Path) -> None:
    import gzip

    series(folder / "x")
    for path in (folder / "x").rglob("IM*"):
        place(folder, f"{path.parent.name}-{path.name}.dcm.gz").write_bytes(
            gzip.compress(path.read_bytes())
        )
    shutil.rmtree(folder / "x")


@kind("JPEG previews beside the DICOM files", "error: DICOM files among")
def previews_beside_dicom(folder: Path) -> None:
    series(folder)
    for i in range(COUNT):
        Image.fromarray(gray(i)).save(place(folder, f"S{i}", "preview.jpg"))


# ---------------------------------------------------------------------------------- volumes of programs


@kind("3D Slicer: a .seg.nrrd with names of segments", labelled=COUNT)
def slicer_segmentation(folder: Path) -> list[Array]:
    found = []
    for i, array in volumes():
        image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
        label = sitk.GetImageFromArray(square(array.shape).transpose(2, 1, 0))
        for each in (image, label):
            each.SetSpacing((1.0, 1.5, 2.0))
        label.SetMetaData("Segment0_LabelValue", "1")
        label.SetMetaData("Segment0_Name", "Lebermetastase rechts")
        label.SetMetaData("Segment0_Extent", "2 3 2 3 1 2")
        label.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
        sitk.WriteImage(image, str(place(folder, "images", f"c{i}.nrrd")), True)
        sitk.WriteImage(label, str(place(folder, "labels", f"c{i}.seg.nrrd")), True)
        found.append(array[None])
    return found


@kind("3D Slicer: overlapping segments in layers (a list axis)", "error: 2 values per voxel")
def slicer_layers(folder: Path) -> None:
    for i, array in volumes():
        nifti(array, place(folder, "images", f"c{i}.nii.gz"))
        layers = sitk.GetImageFromArray(
            np.stack([square(array.shape).transpose(2, 1, 0)] * 2, -1), isVector=True
        )
        layers.SetSpacing((1.0, 1.5, 2.0))
        sitk.WriteImage(layers, str(place(folder, "labels", f"c{i}.nrrd")), True)


@kind("3D Slicer: a segmentation cut to its extent", "error: another size")
def slicer_extent(folder: Path) -> None:
    for i, array in volumes():
        nifti(array, place(folder, "images", f"c{i}.nii.gz"))
        nifti(square(array.shape)[2:7, 2:6], place(folder, "labels", f"c{i}.nii.gz"))


def _labels(folder: Path, save_label: Callable[[Array, Path], None]) -> list[Array]:
    found = []
    for i, array in volumes():
        nifti(array, place(folder, "images", f"c{i}.nii.gz"))
        save_label(square(array.shape), place(folder, "labels", f"c{i}.nii.gz"))
        found.append(array[None])
    return found


@kind("ITK-SNAP: label maps and a label file", labelled=COUNT)
def snap_labels(folder: Path) -> list[Array]:
    (folder / "labels").mkdir(parents=True)
    (folder / "labels" / "labels.txt").write_text(
        '0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "a"\n'
    )
    return _labels(folder, nifti)


@kind("label maps of 64-bit integers, as nibabel writes them unasked", labelled=COUNT)
def labels_of_64_bits(folder: Path) -> list[Array]:
    def write(label: Array, path: Path) -> None:
        nib.save(
            nib.Nifti1Image(label.astype(np.int64), np.diag([1, 1.5, 2, 1]), dtype="int64"), path
        )

    return _labels(folder, write)


@kind("label maps of floats with a slope (1/255 of 0 and 255)", labelled=COUNT)
def labels_with_slope(folder: Path) -> list[Array]:
    def write(label: Array, path: Path) -> None:
        image = nib.Nifti1Image(label * np.uint8(255), np.diag([1, 1.5, 2, 1]))
        image.header.set_slope_inter(1 / 255, 0)
        nib.save(image, path)

    return _labels(folder, write)


@kind("probabilities in place of label maps", "error: not whole numbers")
def probabilities(folder: Path) -> None:
    def write(label: Array, path: Path) -> None:
        nifti(np.clip(label * 0.7 + 0.1, 0, 1).astype(np.float32), path)

    _labels(folder, write)


@kind("label maps with -1 for unknown", "error: outside the classes")
def negative_labels(folder: Path) -> None:
    def write(label: Array, path: Path) -> None:
        values = label.astype(np.int16)
        values[0, 0, 0] = -1
        nifti(values, path)

    _labels(folder, write)


@kind("NaN outside the brain, as SPM writes it", "error: not finite")
def nan_outside(folder: Path) -> None:
    for i, array in volumes():
        values = array.astype(np.float32)
        values[:3] = np.nan
        nifti(values, place(folder, f"c{i}.nii.gz"))


@kind("Analyze and NIfTI pairs (.hdr, .img)", "error: .hdr")
def pairs_of_files(folder: Path) -> None:
    for i, array in volumes():
        nib.save(nib.Nifti1Pair(array, np.eye(4)), place(folder, f"c{i}.img"))


@kind("FreeSurfer: .mgz", "error: .mgz")
def freesurfer(folder: Path) -> None:
    for i, array in volumes():
        nib.save(
            nib.MGHImage(array.astype(np.float32), np.eye(4)), place(folder, f"sub{i}", "orig.mgz")
        )


@kind("colors in NIfTI (a FLIRT overlay)", "error: colors")
def colors_in_nifti(folder: Path) -> None:
    for i in range(COUNT):
        pixels = np.zeros((6, 5, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        nib.save(nib.Nifti1Image(pixels, np.eye(4)), place(folder, f"c{i}.nii.gz"))


@kind("a deformation field among volumes", "error: 5 dimensions")
def deformation_field(folder: Path) -> None:
    for i, array in volumes():
        nifti(array, place(folder, f"c{i}.nii.gz"))
    nib.save(
        nib.Nifti1Image(np.ones((9, 8, 7, 1, 3), np.float32), np.eye(4)), folder / "warp.nii.gz"
    )


@kind("BIDS: two sessions of each subject, participants.tsv, derivatives of JSON", patients=2)
def bids_sessions(folder: Path) -> list[Array]:
    (folder / "sub-01").mkdir(parents=True)
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t41\n")
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    found = []
    for i, array in volumes():
        stem = f"sub-0{i // 2 + 1}_ses-{i % 2 + 1}_T1w"
        place_ = place(folder, f"sub-0{i // 2 + 1}", f"ses-{i % 2 + 1}", "anat", f"{stem}.nii.gz")
        nifti(array, place_)
        (place_.parent / f"{stem}.json").write_text('{"Modality": "MR"}')
        found.append(array[None])
    return found


@kind("ACDC: a cine beside its labelled frames", "4 images that belong to no case", labelled=COUNT)
def cine_beside_frames(folder: Path) -> list[Array]:
    found = []
    for i, array in volumes():
        name = f"patient00{i}"
        nifti(array, place(folder, name, f"{name}_frame01.nii.gz"))
        nifti(square((9, 8, 7)), folder / name / f"{name}_frame01_gt.nii.gz")
        nifti(np.stack([array, array], -1), folder / name / f"{name}_4d.nii.gz")
        found.append(array[None])
    return found


@kind(
    "KiTS23: instances in the folder of a case", "4 images that belong to no case", labelled=COUNT
)
def instances(folder: Path) -> list[Array]:
    found = []
    for i, array in volumes():
        home = folder / f"case_0000{i}"
        nifti(array, place(home, "imaging.nii.gz"))
        nifti(square((9, 8, 7)), home / "segmentation.nii.gz")
        nifti(square((9, 8, 7)), place(home, "instances", "kidney_instance-1_annotation-1.nii.gz"))
        found.append(array[None])
    return found


@kind("VerSe: previews beside the masks", "4 images that belong to no case", labelled=COUNT)
def previews_beside_masks(folder: Path) -> list[Array]:
    found = []
    for i, array in volumes():
        name = f"sub-verse00{i}"
        nifti(array, place(folder, "rawdata", name, f"{name}_ct.nii.gz"))
        mask = place(folder, "derivatives", name, f"{name}_seg-vert_msk.nii.gz")
        nifti(square((9, 8, 7)), mask)
        png(gray(i), mask.parent / f"{name}_seg-vert_snp.png")
        found.append(array[None])
    return found


@kind("channels CASE__CT and CASE__PT without dataset.json", "error: the label of several images")
def channels_by_name(folder: Path) -> None:
    for i, array in volumes():
        nifti(array, place(folder, "imagesTr", f"C{i}__CT.nii.gz"))
        nifti(array, place(folder, "imagesTr", f"C{i}__PT.nii.gz"))
        nifti(square((9, 8, 7)), place(folder, "labelsTr", f"C{i}.nii.gz"))


@kind("SIIM-ACR: run lengths in a table beside DICOM films", "outlines or boxes that are not read")
def run_lengths(folder: Path) -> list[Array]:
    arrays = film_files(folder, lambda data, i: None)
    (folder / "train-rle.csv").write_text("ImageId, EncodedPixels\n1.2.3.0, 30 5 20 5\n")
    return arrays


@kind("MetaImage whose voxels are a list of files", "error: several files")
def list_of_slices(folder: Path) -> None:
    for i in range(COUNT):
        head = "ObjectType = Image\nNDims = 3\nDimSize = 9 8 7\nElementType = MET_SHORT\n"
        place(folder, f"c{i}.mhd").write_text(head + "ElementDataFile = LIST\n" + "s.raw\n" * 7)


# ---------------------------------------------------------------------------------------------- films


@kind("JPEG: progressive, in gray and YCbCr, with a restart interval and bytes behind the end")
def jpeg_variants(folder: Path) -> None:
    for i in range(COUNT):
        path = place(folder, f"c{i}.JPG")
        image = Image.fromarray(gray(i))
        image = image.convert("RGB") if i % 2 else image
        image.save(path, "JPEG", progressive=i > 1, quality=95, restart_marker_blocks=2)
        path.write_bytes(path.read_bytes() + b"\0trailing")


@kind("CMYK films of a printing department", "error: CMYK")
def cmyk_films(folder: Path) -> None:
    for i in range(COUNT):
        Image.fromarray(gray(i)).convert("CMYK").save(place(folder, f"c{i}.jpg"))


@kind("1-bit PNG label maps", labelled=COUNT)
def one_bit_labels(folder: Path) -> list[Array]:
    return film_pairs(folder, lambda label, path: Image.fromarray(label > 0).save(path, bits=1))


@kind("16-bit label maps with 0 and 65535", "error: --label-threshold 65535")
def labels_of_16_bits(folder: Path) -> None:
    film_pairs(folder, lambda label, path: png(label.astype(np.uint16) * 65535, path))


@kind("label maps as colors (red on black)", "error: in color")
def colored_labels(folder: Path) -> None:
    def write(label: Array, path: Path) -> None:
        png(np.stack([label * 255, 0 * label, 0 * label], -1), path)

    film_pairs(folder, write)


@kind("16-bit PNG, interlaced, with gamma and transparency for one value")
def png_extras(folder: Path) -> list[Array]:
    arrays = [gray(i, top=4095) for i in range(COUNT)]
    for i, array in enumerate(arrays):
        path = place(folder, f"c{i}.png")
        path.write_bytes(imagecodecs.png_encode(array))
        raw = path.read_bytes()
        from read_samples import png_chunk

        extra = png_chunk(b"gAMA", struct.pack(">I", 45455)) + png_chunk(b"sBIT", b"\x0c")
        path.write_bytes(raw[:33] + extra + raw[33:])
    return [array[None] for array in arrays]


@kind("BigTIFF, tiled, with overviews in SubIFDs, as scanners of slides write")
def pyramids(folder: Path) -> list[Array]:
    arrays = [gray(i, (64, 48)) for i in range(COUNT)]
    for i, array in enumerate(arrays):
        with tifffile.TiffWriter(place(folder, f"c{i}.tif"), bigtiff=True) as file:
            file.write(array, subifds=1, tile=(16, 16), compression="deflate", predictor=True)
            file.write(array[::2, ::2], subfiletype=1, tile=(16, 16))
    return [array[None] for array in arrays]


@kind("a stack whose pages stand behind one directory (tifffile, ImageJ)", "error: several")
def stack_in_one_page(folder: Path) -> None:
    for i in range(COUNT):
        tifffile.imwrite(place(folder, f"c{i}.tif"), gray(i, (5, 24, 20)), truncate=True)


@kind("OME-TIFF with channels as pages", "error: several pages")
def ome_channels(folder: Path) -> None:
    for i in range(COUNT):
        tifffile.imwrite(
            place(folder, f"c{i}.ome.tif"), gray(i, (2, 24, 20)), metadata={"axes": "CYX"}
        )


@kind("BMP and GIF films", "error: .bmp")
def bitmaps(folder: Path) -> None:
    for i in range(COUNT):
        Image.fromarray(gray(i)).save(place(folder, f"c{i}.{('bmp', 'gif')[i % 2]}"))


@kind("an upright photograph that holds two pictures (MPO)")
def stereo_camera(folder: Path) -> None:
    for i in range(COUNT):
        first, second = (Image.fromarray(gray(10 * i + n)) for n in range(2))
        first.save(place(folder, f"c{i}.jpg"), "MPO", save_all=True, append_images=[second])


# ------------------------------------------------------------------------------- names and folders


@kind(
    "names with spaces, umlauts in two encodings, emoji, brackets, percent and dashes",
    labelled=COUNT,
)
def names_of_all_kinds(folder: Path) -> list[Array]:
    names = ("Zähne  Müller [1]", "-x %d $HOME ~", "🦷 (Kopie)", "ñ'\"#&;{}")
    for i, name in enumerate(names):
        png(gray(i), place(folder, "images", unicodedata.normalize("NFC", name) + ".png"))
        png(square(), place(folder, "labels", unicodedata.normalize("NFD", name) + ".png"))
    order = sorted(range(COUNT), key=lambda i: unicodedata.normalize("NFC", names[i]))
    return [gray(i)[None] for i in order]


@kind("names as long as a file system allows", labelled=COUNT)
def longest_names(folder: Path) -> list[Array]:
    for i in range(COUNT):
        name = f"{i}" + "n" * 250 + ".png"
        png(gray(i), place(folder, "images", name))
        png(square(), place(folder, "labels", name))
    return [gray(i)[None] for i in range(COUNT)]


@kind("leftovers of Windows, macOS and network drives")
def leftovers(folder: Path) -> list[Array]:
    arrays = films(folder)
    thumbnail = (folder / "c0.png").read_bytes()
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._c0.png", "__MACOSX/._c0.png"):
        place(folder, name).write_bytes(b"\0\5\x16\7")
    for name in ("@eaDir/c0.png/SYNOFILE_THUMB_M.png", "#recycle/c9.png", "lost+found/c8.png"):
        place(folder, name).write_bytes(thumbnail)
    return arrays


@kind("the export as a zip file, not unpacked", "error: Unpack")
def zipped(folder: Path) -> None:
    films(folder / "x")
    with zipfile.ZipFile(folder / "export.zip", "w") as file:
        for path in (folder / "x").iterdir():
            file.write(path, path.name)
    shutil.rmtree(folder / "x")


@kind("an empty file and one whose gzip ends early among sound ones", "error: it ends before")
def broken_copies(folder: Path) -> None:
    for i, array in volumes():
        nifti(array, place(folder, f"c{i}.nii.gz"))
    raw = (folder / "c0.nii.gz").read_bytes()
    (folder / "c0.nii.gz").write_bytes(raw[: len(raw) // 2])
    (folder / "c1.nii.gz").write_bytes(b"")


# -------------------------------------------------------------------------- tables and annotations


def _table(folder: Path, text: bytes) -> list[Array]:
    arrays = film_pairs(folder / "x")
    (folder / "cases.csv").write_bytes(text)
    return arrays


ROWS = "".join(f"x/images/c{i}.png;x/labels/c{i}.png;{i // 2};1,5\r\n" for i in range(COUNT))


@kind(
    "a table of Excel in German: 'sep=;', a mark of UTF-8, decimals with commas",
    labelled=COUNT,
    patients=2,
)
def german_table(folder: Path) -> list[Array]:
    text = "sep=;\r\nimage;label;patient;Dosis\r\n" + ROWS + ";;;\r\n"
    return _table(folder, codecs.BOM_UTF8 + text.encode())


@kind("a table with a title above its header", "in line 2", labelled=COUNT)
def table_with_a_title(folder: Path) -> list[Array]:
    return _table(
        folder, ("Auswertung Kohorte A;;;\r\nimage;label;patient;Dosis\r\n" + ROWS).encode()
    )


@kind("a list of variables and notes beside the films")
def list_of_variables(folder: Path) -> list[Array]:
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "notes.txt").write_text("0 films were left out\n")
    (folder / "variables.csv").write_text("variable,type\nimage,film\nage,number\n")
    (folder / "scanner.json").write_text('{"Modality": "DX", "shape": [24, 20]}')
    return films(folder / "x")


@kind("LabelMe: outlines in a JSON beside each film", "outlines")
def labelme(folder: Path) -> list[Array]:
    arrays = films(folder)
    shape = {"label": "tooth", "points": [[1, 1], [8, 1], [8, 9]], "shape_type": "polygon"}
    for i in range(COUNT):
        content = {
            "version": "5.0.1",
            "shapes": [shape],
            "imagePath": f"c{i}.png",
            "imageData": None,
        }
        (folder / f"c{i}.json").write_text(json.dumps(content))
    return arrays


@kind("CVAT: annotations.xml beside images/", "outlines")
def cvat(folder: Path) -> list[Array]:
    arrays = films(folder / "images")
    text = '<annotations><image id="0" name="c0.png"><polygon points="1,1;2,2;1,2"/></image></annotations>'
    (folder / "annotations.xml").write_text('<?xml version="1.0"?>' + text)
    return arrays


@kind("YOLO: labels/ with text files", "error: outlines")
def yolo(folder: Path) -> list[Array]:
    arrays = films(folder / "images")
    for i in range(COUNT):
        place(folder, "labels", f"c{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    return arrays


@kind(
    "Pascal VOC: JPEGImages, SegmentationClass, SegmentationObject",
    "belong to no case",
    labelled=COUNT,
)
def pascal_voc(folder: Path) -> None:
    for i in range(COUNT):
        Image.fromarray(gray(i)).save(place(folder, "JPEGImages", f"c{i}.jpg"))
        for inner in ("SegmentationClass", "SegmentationObject"):
            png(np.roll(square(), i, 0), place(folder, inner, f"c{i}.png"))


# ------------------------------------------------------------------------------------------------ more kinds


@kind("perfusion: time points as a fourth axis", "error: has 4 dimensions")
def time_points(folder: Path) -> None:
    for i in range(COUNT):
        values = rng(i).integers(0, 99, (9, 8, 7, 3)).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"c{i}.nii.gz")


@kind("a tilted gantry: axes off a right angle", "21.8 degrees off a right angle")
def tilted_gantry(folder: Path) -> list[Array]:
    affine = np.eye(4)
    affine[0, 1] = 0.4
    for i, values in volumes():
        nib.save(nib.Nifti1Image(values, affine), folder / f"c{i}.nii.gz")
    return [values[None] for _, values in volumes()]


@kind("geometry in meters", "error: gives its geometry in meters")
def meters(folder: Path) -> None:
    for i, values in volumes():
        image = nib.Nifti1Image(values, np.diag([0.001, 0.001, 0.002, 1]))
        image.header.set_xyzt_units("meter")
        nib.save(image, folder / f"c{i}.nii.gz")


@kind("blank films of a detector that was off", "error: is constant")
def blank_films(folder: Path) -> None:
    for i in range(COUNT):
        png(np.full((24, 20), 7, np.uint8), folder / f"c{i}.png")


@kind("gray films stored as RGBA")
def gray_as_rgba(folder: Path) -> None:
    for i in range(COUNT):
        film = gray(i)
        png(np.dstack([film, film, film, np.full_like(film, 255)]), folder / f"c{i}.png")


@kind("label maps as JPEG under the name of PNG", "error: is a JPEG", labelled=COUNT)
def jpeg_labels(folder: Path) -> list[Array]:
    return film_pairs(folder, lambda label, path: png(label * 255, path, format="JPEG"))


@kind("gzipped NIfTI without the suffix .gz")
def gzip_without_suffix(folder: Path) -> list[Array]:
    for i, values in volumes():
        nifti(values, folder / f"c{i}.nii.gz")
        (folder / f"c{i}.nii.gz").rename(folder / f"c{i}.nii")
    return [values[None] for _, values in volumes()]


@kind("plain NIfTI with the suffix .gz")
def suffix_without_gzip(folder: Path) -> list[Array]:
    for i, values in volumes():
        nifti(values, folder / f"c{i}.nii")
        (folder / f"c{i}.nii").rename(folder / f"c{i}.nii.gz")
    return [values[None] for _, values in volumes()]


@kind("NIfTI packed in two members of gzip, as parallel packers write it")
def two_members(folder: Path) -> list[Array]:
    for i, values in volumes():
        nifti(values, folder / "x.nii")
        whole = (folder / "x.nii").read_bytes()
        parts = gzip.compress(whole[:500]) + gzip.compress(whole[500:])
        (folder / f"c{i}.nii.gz").write_bytes(parts)
    (folder / "x.nii").unlink()
    return [values[None] for _, values in volumes()]


@kind("NIfTI packed twice", "error: holds none of the known formats")
def packed_twice(folder: Path) -> None:
    for i, values in volumes():
        nifti(values, folder / f"c{i}.nii.gz")
        path = folder / f"c{i}.nii.gz"
        path.write_bytes(gzip.compress(path.read_bytes()))


@kind("label maps with rows and columns changed over", "error: has another size", labelled=COUNT)
def labels_turned_over(folder: Path) -> list[Array]:
    return film_pairs(folder, lambda label, path: png(label.T.copy(), path))


@kind("two label maps of each film, PNG and TIFF", "error: has the same name", labelled=COUNT)
def labels_twice(folder: Path) -> list[Array]:
    arrays = film_pairs(folder)
    for i in range(COUNT):
        tifffile.imwrite(place(folder, "labels", f"c{i}.tif"), square(value=2))
    return arrays


@kind("patients.csv with tabs, blanks and line ends of Windows", patients=2)
def patients_of_windows(folder: Path) -> list[Array]:
    rows = b"c0.png\tA \r\nc1.png\tA\r\nc2.png\tB\r\nc3.png\tB\r\n"
    arrays = films(folder)
    (folder / "patients.csv").write_bytes(b"image\tpatient\r\n" + rows)
    return arrays
