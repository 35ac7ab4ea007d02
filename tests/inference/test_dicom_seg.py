"""DICOM Segmentation objects: what is read back is what was written, slice by slice, and refers to its image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from read_samples import PATIENT, dicom, rotation, save, write_series

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_scan
from radiffuse.errors import InputError
from radiffuse.inference.dicom_seg import ABNORMAL, SYNONYMS, property_of, write_dicom_seg
from tiny_runs import finished_run

highdicom = pytest.importorskip("highdicom")
MACHINE = {"accelerator": "cpu", "precision": "32-true"}
CLASSES = ("background", "liver", "kidney_left", "thing")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def identified(name: str) -> dict[str, object]:
    """What a scanner writes beside the pixels."""
    return {
        "StudyInstanceUID": generate_uid(entropy_srcs=[name, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[name, "series"]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[name, "frame"]),
        "StudyID": "1", "SeriesNumber": 3, "AccessionNumber": "", "PatientBirthDate": "",
        "PatientSex": "O", "StudyDate": "20200101", "StudyTime": "101010",
        "ReferringPhysicianName": "",
    }  # fmt: skip


def series(folder: Path, turn: np.ndarray, shape: tuple[int, int, int] = (5, 6, 7)) -> list[Path]:
    """A CT series whose slices carry unique UIDs."""
    folder.parent.mkdir(exist_ok=True)
    volume = np.random.default_rng(0).integers(0, 2000, shape).astype(np.uint16)
    paths = write_series(
        folder,
        volume,
        orientation=(*turn[:, 0], *turn[:, 1]),
        step=tuple(turn[:, 2] * 2.0),
        **identified("volume"),
    )
    for number, path in enumerate(paths):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = generate_uid(entropy_srcs=["slice", str(number)])
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.InstanceNumber = number + 1
        save(data, path)
    return paths


def read_back(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map from pydicom alone: every frame is put where its own position says."""
    seg = pydicom.dcmread(path)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    labels = np.zeros(shape, np.uint8)
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = np.array([*group.PlanePositionSequence[0].ImagePositionPatient, 1.0], float)
        index = np.linalg.inv(affine) @ LPS @ position
        np.testing.assert_allclose(index[:2], 0, atol=1e-3)
        assert index[2] == pytest.approx(round(index[2]), abs=1e-3)
        plane = labels[:, :, round(index[2])]
        plane[frame.T > 0] = number
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    axes = np.column_stack([along[:3] * spacing[1], along[3:] * spacing[0]])
    np.testing.assert_allclose((LPS @ affine)[:3, :2], axes, atol=1e-4)
    return labels


@pytest.mark.parametrize("degrees", [0, 25])
def test_a_series_comes_back_where_it_was(degrees: int, tmp_path: Path) -> None:
    turn = rotation(degrees, 0) @ rotation(-degrees / 2, 2)
    paths = series(tmp_path / "ct", turn)
    shuffled = [paths[i] for i in (3, 0, 4, 1, 2)]
    scan = read_scan(tmp_path / "ct", series=shuffled)
    mask = np.random.default_rng(1).integers(0, 4, scan.spatial_shape).astype(np.uint8)
    mask[:, :, 2] = 0  # a slice without anything is left out of the file
    path = tmp_path / "out" / "mask.dcm"
    write_dicom_seg(path, mask, CLASSES, tmp_path / "ct", shuffled)
    assert np.array_equal(read_back(path, scan.affine, scan.spatial_shape), mask)

    seg = highdicom.seg.segread(path)
    assert [seg.get_segment_description(n).segment_label for n in (1, 2, 3)] == list(CLASSES[1:])
    volume = seg.get_volume(combine_segments=True)
    places = np.argwhere(volume.array > 0)
    assert len(places) == np.count_nonzero(mask)
    points = volume.affine @ np.column_stack([places, np.ones(len(places))]).T
    voxels = (np.linalg.inv(LPS @ scan.affine) @ points)[:3].round().astype(int)
    assert np.array_equal(mask[tuple(voxels)], volume.array[tuple(places.T)])
    source = pydicom.dcmread(paths[0])
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.PatientName == PATIENT
    (reference,) = seg.ReferencedSeriesSequence
    assert reference.SeriesInstanceUID == source.SeriesInstanceUID
    # Each frame names the slice in whose place it lies.
    positions = {
        data.SOPInstanceUID: data.ImagePositionPatient for data in map(pydicom.dcmread, paths)
    }
    for group in seg.PerFrameFunctionalGroupsSequence:
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        expected = positions[image.ReferencedSOPInstanceUID]
        found = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        assert found == pytest.approx([float(v) for v in expected], abs=1e-6)


def test_a_film_comes_back(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 14)).astype(np.uint8)
    elements = identified("film") | {"PixelSpacing": [0.2, 0.2], "InstanceNumber": 1}
    del elements["FrameOfReferenceUID"]
    film = save(dicom(pixels, modality="DX", **elements), tmp_path / "film.dcm")
    mask = np.random.default_rng(1).integers(0, 3, pixels.shape).astype(np.uint8)
    write_dicom_seg(tmp_path / "mask.dcm", mask, CLASSES[:3], film)
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    frames = seg.pixel_array.reshape(2, 9, 14)
    assert np.array_equal(frames[0] > 0, mask == 1)
    assert np.array_equal(frames[1] > 0, mask == 2)


def test_an_empty_mask_is_written_too(tmp_path: Path) -> None:
    paths = series(tmp_path / "ct", np.eye(3))
    mask = np.zeros((7, 6, 5), np.uint8)
    write_dicom_seg(tmp_path / "mask.dcm", mask, CLASSES, tmp_path / "ct", paths)
    assert not pydicom.dcmread(tmp_path / "mask.dcm").pixel_array.any()


def test_the_command_writes_it_beside_its_series(tmp_path: Path) -> None:
    series(tmp_path / "data" / "ct", rotation(20, 0), (10, 12, 11))
    plan = Plan(
        3, ("image",), ("background", "liver", "spleen"), (8, 8, 8), (0.75, 1.5, 2.0),
        intensity="window", low=-1024, high=1000,
    )  # fmt: skip
    run = finished_run(tmp_path / "run", plan, seed=0)
    shared = {"runs": run, "data": tmp_path / "data", "machine": MACHINE}
    radiffuse.predict(out=tmp_path / "seg", format="dicom-seg", uncertainty=True, **shared)
    radiffuse.predict(out=tmp_path / "nifti", **shared)
    (path,) = (tmp_path / "seg").glob("*.dcm")
    (plain,) = (tmp_path / "nifti").glob("*.nii.gz")
    expected = read_scan(plain)
    assert len(np.unique(expected.array)) > 1
    assert np.array_equal(
        read_back(path, expected.affine, expected.spatial_shape), expected.array[0]
    )
    assert (tmp_path / "seg" / f"{path.stem}-entropy.nii.gz").exists()
    written = path.read_bytes()
    radiffuse.predict(out=tmp_path / "seg", format="dicom-seg", **shared)  # kept, not made again
    assert path.read_bytes() == written


REQUIRED = {
    "PatientName": "Müller^Jörg", "PatientID": "MRN-77", "PatientBirthDate": "19500102", "PatientSex": "M",
    "StudyDate": "20200304", "StudyTime": "111213", "AccessionNumber": "ACC-5", "StudyID": "ST-6",
    "ReferringPhysicianName": "Arzt^Anna",
}  # fmt: skip
"""Of type 1 and 2 in the modules Patient and General Study (PS3.3, tables C.7-1 and C.7-3), beside the UID."""


def test_only_what_the_standard_requires_of_a_patient_is_copied(tmp_path: Path) -> None:
    """Every attribute that highdicom knows for a patient, a study, a device, filled; also inside of sequences."""
    from highdicom._standard_utils import get_module_attribute_map
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    modules = (
        "patient", "general-study", "patient-study", "clinical-trial-subject", "clinical-trial-study",
        "clinical-trial-series", "general-equipment", "general-series", "general-image", "sop-common",
        "general-acquisition",
    )  # fmt: skip
    attributes = get_module_attribute_map()
    texts = {"LO", "SH", "ST", "LT", "UT", "PN", "UC", "AS", "CS"}
    paths = series(tmp_path / "ct", np.eye(3))
    spoiled = 0
    for path in paths:
        data = pydicom.dcmread(path)
        for name in modules:
            for item in attributes.get(name, ()):
                tag = tag_for_keyword(item["keyword"])
                if item["path"] or tag is None or tag in data or item["keyword"] in REQUIRED:
                    continue
                kind = dictionary_VR(tag)
                if kind in texts and kind != "CS":
                    spoiled += 1
                    setattr(data, item["keyword"], "041Y" if kind == "AS" else "SECRET")
                elif kind == "SQ":
                    inner = Dataset()
                    inner.PatientComments = inner.ReasonForVisit = "SECRET"
                    setattr(data, item["keyword"], Sequence([inner]))
        data.SpecificCharacterSet = "ISO_IR 192"
        data.DeviceSerialNumber, data.StationName, data.OperatorsName = "SECRET", "SECRET", "SECRET"
        data.PatientWeight, data.PatientComments = 77.25, "SECRET"
        data.add_new((0x0009, 0x0010), "LO", "SECRET")
        data.add_new((0x0009, 0x1001), "LO", "SECRET")
        for name, value in REQUIRED.items():
            setattr(data, name, value)
        save(data, path)
    assert spoiled > 100
    mask = np.ones((7, 6, 5), np.uint8)
    write_dicom_seg(tmp_path / "m.dcm", mask, CLASSES, tmp_path / "ct", paths, model="ab12")
    seg = pydicom.dcmread(tmp_path / "m.dcm")
    assert b"SECRET" not in (tmp_path / "m.dcm").read_bytes()
    assert b"041Y" not in (tmp_path / "m.dcm").read_bytes()
    assert {name: str(seg[name].value) for name in REQUIRED} == REQUIRED
    of_patient = {
        item["keyword"] for name in modules[:5] for item in attributes[name] if not item["path"]
    }  # fmt: skip
    assert {element.keyword for element in seg} & of_patient == {*REQUIRED, "StudyInstanceUID"}
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmParameters == "model=ab12"


def test_what_is_not_dicom_or_lacks_a_study_is_refused(films: Path, tmp_path: Path) -> None:
    image = sorted((films / "images").iterdir())[0]
    with pytest.raises(InputError, match="is not DICOM"):
        write_dicom_seg(tmp_path / "m.dcm", np.zeros((32, 32), np.uint8), CLASSES, image)
    bare = save(dicom(np.zeros((8, 8), np.uint8), modality="DX"), tmp_path / "bare.dcm")
    with pytest.raises(InputError, match="lacks what DICOM-SEG refers to") as caught:
        write_dicom_seg(tmp_path / "m.dcm", np.zeros((8, 8), np.uint8), CLASSES, bare)
    assert "Roentgen" not in str(caught.value)
    assert not (tmp_path / "m.dcm").exists()
    with pytest.raises(ValueError, match="labels up to 9"):
        write_dicom_seg(tmp_path / "m.dcm", np.full((8, 8), 9, np.uint8), CLASSES, bare)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("liver", ("AnatomicalStructure", "Liver", None)),
        ("kidney_left", ("AnatomicalStructure", "Kidney", "Left")),
        ("Right Lung", ("AnatomicalStructure", "Lung", "Right")),
        ("urinary bladder", ("AnatomicalStructure", "Bladder", None)),
        ("right kidney cyst", ("MorphologicallyAbnormalStructure", "Cyst", "Right")),
        ("class-1", ("Tissue", "Tissue", None)),
        ("__init__", ("Tissue", "Tissue", None)),
    ],
)
def test_classes_get_their_concept(name: str, expected: tuple[str, str, str | None]) -> None:
    assert property_of(name) == expected


def test_every_concept_is_known() -> None:
    from pydicom.sr.codedict import codes

    for keyword in (*SYNONYMS.values(), *ABNORMAL.values(), "Left", "Right"):
        assert hasattr(codes.SCT, keyword), keyword
