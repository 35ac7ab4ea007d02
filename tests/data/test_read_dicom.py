"""DICOM: films, series and multi-frame volumes, their values and their place in space."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from read_samples import PATIENT, alter, dicom, rng, rotation, save, write_series

from radiffuse.data.checking.examine import problems
from radiffuse.data.readers import inspect, is_dicom, read_label, read_scan
from radiffuse.errors import InputError


def volume(seed: int = 0) -> np.ndarray:
    """(slices, rows, columns) of stored CT values."""
    return rng(seed).integers(0, 4096, (4, 6, 5)).astype(np.uint16)


# -------------------------------------------------------------------------------------------- films


def test_film_with_spacing_and_rescale(tmp_path: Path):
    pixels = rng().integers(0, 4096, (6, 9)).astype(np.uint16)
    data = dicom(pixels, modality="DX", BitsStored=12, HighBit=11, ImagerPixelSpacing=[0.2, 0.1])
    path = save(data, tmp_path / "film.dcm")
    scan, header = read_scan(path), inspect(path)
    np.testing.assert_array_equal(scan.array[0], pixels)
    assert (scan.unit, scan.value_range, scan.affine) == ("gray", (0, 4095), None)
    assert scan.spacing == header.spacing == (0.2, 0.1)
    assert (header.spatial_shape, header.channels, header.dtype) == ((6, 9), 1, "uint16")
    data.PixelSpacing = [0.18, 0.09]  # calibrated, so it goes first
    assert read_scan(save(data, path)).spacing == (0.18, 0.09)
    del data.PixelSpacing, data.ImagerPixelSpacing
    assert read_scan(save(data, path)).spacing is None


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_monochrome1_is_turned_over(tmp_path: Path, kind: type):
    pixels = rng().integers(0, 1024, (6, 9)).astype(kind)
    pixels -= kind(512) if kind is np.int16 else kind(0)
    elements = {"modality": "CR", "BitsStored": 10, "HighBit": 9}
    plain = read_scan(save(dicom(pixels, **elements), tmp_path / "a.dcm"))
    elements["PhotometricInterpretation"] = "MONOCHROME1"
    turned = read_scan(save(dicom(pixels, **elements), tmp_path / "b.dcm"))
    low, high = plain.value_range
    np.testing.assert_array_equal(turned.array.astype(int), low + high - plain.array.astype(int))
    assert (
        turned.value_range == plain.value_range == ((0, 1023) if kind is np.uint16 else (-512, 511))
    )
    assert turned.array.dtype == plain.array.dtype == kind
    elements.update(RescaleSlope=2, RescaleIntercept=100)
    scaled = read_scan(save(dicom(pixels, **elements), tmp_path / "c.dcm"))
    np.testing.assert_array_equal(scaled.array, 2 * turned.array.astype(int) + 100)
    assert scaled.value_range == (2 * low + 100, 2 * high + 100)


def test_hounsfield_units_do_not_turn_over(tmp_path: Path):
    pixels = volume()[0]
    data = dicom(pixels, RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12, HighBit=11)
    data.PhotometricInterpretation = "MONOCHROME1"
    scan = read_scan(save(data, tmp_path / "slice"))
    np.testing.assert_array_equal(scan.array[0], pixels.astype(int) - 1024)
    assert (scan.unit, scan.value_range, scan.array.dtype) == ("HU", None, np.int16)


def test_fractional_slope_gives_float32(tmp_path: Path):
    pixels = volume()[0]
    data = dicom(pixels, modality="PT", RescaleSlope="0.37", RescaleIntercept="1.5")
    scan = read_scan(save(data, tmp_path / "slice.dcm"))
    assert scan.array.dtype == np.float32
    np.testing.assert_allclose(scan.array[0], 0.37 * pixels + 1.5, rtol=1e-6)


def test_bits_above_those_stored_are_dropped(tmp_path: Path):
    values = rng().integers(-2048, 2048, (6, 9)).astype(np.int16)
    overlay = (values & 0x0FFF) | (rng(1).integers(0, 16, (6, 9)) << 12).astype(np.int16)
    data = dicom(overlay, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_scan(save(data, tmp_path / "a.dcm")).array[0], values)


def test_color_and_palette(tmp_path: Path):
    colors = rng(2).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    scan = read_scan(save(dicom(colors, modality="US"), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(scan.array, np.moveaxis(colors, -1, 0))
    assert scan.value_range == (0, 255)
    indices = rng(3).integers(0, 256, (5, 6)).astype(np.uint8)
    data = dicom(indices, modality="US", PhotometricInterpretation="PALETTE COLOR")
    tables = rng(4).integers(0, 65536, (3, 256)).astype(np.uint16)
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", table.tobytes())
    scan = read_scan(save(data, tmp_path / "b.dcm"))
    np.testing.assert_array_equal(scan.array, (tables >> 8)[:, indices])


def _encoders() -> dict[str, tuple[str, Callable[[np.ndarray], bytes]]]:
    return {
        "jpeg2000": (JPEG2000Lossless, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k")),
        "jpeg-ls": (JPEGLSLossless, imagecodecs.jpegls_encode),
        "jpeg-lossless": (JPEGLosslessSV1, lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16)),
    }


@pytest.mark.parametrize("codec", ["rle", "jpeg2000", "jpeg-ls", "jpeg-lossless"])
def test_lossless_transfer_syntaxes(tmp_path: Path, codec: str):
    pixels = rng(5).integers(0, 4096, (16, 24)).astype(np.uint16)
    data = dicom(pixels, modality="DX")
    if codec == "rle":
        data.compress(RLELossless)
    else:
        syntax, encode = _encoders()[codec]
        data.PixelData = encapsulate([bytes(encode(pixels))])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = syntax
    path = save(data, tmp_path / "film.dcm")
    np.testing.assert_array_equal(read_scan(path).array[0], pixels)
    assert inspect(path).spatial_shape == (16, 24)


def test_lossy_jpeg(tmp_path: Path):
    ramp = np.add.outer(np.arange(32), 2 * np.arange(40)).astype(np.uint8)
    data = dicom(ramp, modality="DX")
    data.PixelData = encapsulate([bytes(imagecodecs.jpeg8_encode(ramp, level=95))])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    scan = read_scan(save(data, tmp_path / "film.dcm"))
    assert np.abs(scan.array[0].astype(int) - ramp).max() < 5


# ------------------------------------------------------------------------------------------- series


@pytest.mark.parametrize("tilt", ["upright", "oblique", "coronal", "feet first"])
def test_series_agrees_with_itk(tmp_path: Path, tilt: str):
    turn = {
        "upright": np.eye(3),
        "oblique": rotation(25, 0) @ rotation(10, 2),
        "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
        "feet first": np.diag([-1.0, 1.0, -1.0]),
    }[tilt]
    voxels = volume()
    orientation = (*turn[:, 0], *turn[:, 1])
    step = tuple(2.0 * np.cross(turn[:, 0], turn[:, 1]))
    paths = write_series(tmp_path / "s", voxels, orientation=orientation, step=step)
    shuffled = [paths[i] for i in (2, 0, 3, 1)]
    scan = read_scan(tmp_path / "s", series=shuffled)
    np.testing.assert_array_equal(scan.array[0], voxels.transpose(2, 1, 0).astype(int) - 1024)
    assert (scan.unit, scan.array.dtype, scan.value_range) == ("HU", np.int32, None)
    np.testing.assert_allclose(scan.spacing, (0.75, 1.5, 2.0), rtol=1e-6)
    image = sitk.ReadImage([str(p) for p in paths])
    np.testing.assert_array_equal(scan.array[0].T, sitk.GetArrayFromImage(image))
    columns = [
        np.array(image.TransformIndexToPhysicalPoint(index))
        for index in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    lps = np.column_stack([c - columns[0] for c in columns[1:]] + [columns[0]])
    np.testing.assert_allclose(scan.affine[:3], np.diag([-1, -1, 1]) @ lps, atol=1e-4)
    header = inspect(tmp_path / "s", paths)
    assert header.spatial_shape == scan.spatial_shape == (5, 6, 4)
    np.testing.assert_allclose(header.affine, scan.affine)


def test_slices_with_slopes_of_their_own(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume(), modality="PT")
    for index, path in enumerate(paths):
        data = pydicom.dcmread(path)
        data.RescaleSlope, data.RescaleIntercept = 0.5 + index, 0
        save(data, path)
    scan = read_scan(tmp_path / "s", series=paths)
    expected = volume() * (0.5 + np.arange(4))[:, None, None]
    np.testing.assert_allclose(scan.array[0], expected.transpose(2, 1, 0))


def test_missing_and_uneven_slices(tmp_path: Path):
    paths = write_series(tmp_path / "s", np.concatenate([volume(), volume(1)]))
    without = [p for i, p in enumerate(paths) if i != 3]
    for reader in (lambda: read_scan(tmp_path, series=without), lambda: inspect(tmp_path, without)):
        with pytest.raises(InputError, match=r"lacks about 1 slice between 002\.dcm and 004\.dcm"):
            reader()
    alter(paths[3], ImagePositionPatient=[-30, -20, 106.7])
    with pytest.raises(InputError, match=r"uneven slices, 1\.3 to 2\.7 mm"):
        read_scan(tmp_path, series=paths)


def test_two_slices_in_one_place(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume())
    alter(paths[2], ImagePositionPatient=[-30, -20, 102])
    with pytest.raises(InputError, match=r"00[12]\.dcm: lies in the same place as 00[12]\.dcm"):
        read_scan(tmp_path, series=paths)
    with pytest.raises(InputError, match="in the same place") as raised:
        read_scan(tmp_path, series=[paths[0], paths[0], paths[1]])
    # in a tree, folders do not part a series
    assert "dcm2niix, which parts it by time point or echo" in raised.value.remedy


def test_tilted_gantry(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume(), step=(0, 0.35, 2.0))
    with pytest.raises(InputError, match=r"shift sideways \(9\.9 degrees, a tilted gantry\)"):
        read_scan(tmp_path, series=paths)


@pytest.mark.parametrize(
    ("elements", "problem"),
    [
        ({"PixelSpacing": [1.5, 0.8]}, "another pixel spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "another orientation"),
        ({"ImagePositionPatient": None}, "without a place in space"),
        ({"Modality": "MR"}, "differs in kind"),
        ({"Rows": 5, "Columns": 6}, "differs in size"),
    ],
)
@pytest.mark.parametrize("odd", [0, 2])
def test_odd_files_in_a_series(tmp_path: Path, elements: dict[str, object], problem: str, odd: int):
    """The odd one is named, also where it comes first, as scouts do."""
    paths = write_series(tmp_path / "s", volume())
    alter(paths[odd], **elements)
    with pytest.raises(InputError, match=rf"00{odd}\.dcm: .*{problem}"):
        read_scan(tmp_path, series=paths)


def test_other_sizes_and_other_formats_in_a_series(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume())
    other = write_series(tmp_path / "t", volume()[:, :5])
    with pytest.raises(InputError, match=r"t/003\.dcm: differs in size"):
        read_scan(tmp_path, series=[*paths[:3], other[3]])
    (tmp_path / "note").write_text("not an image")
    with pytest.raises(InputError, match=r"note: holds none of the known formats"):
        read_scan(tmp_path, series=[*paths, tmp_path / "note"])


def _multi_frame(pixels: np.ndarray, *, place: bool = True) -> pydicom.FileDataset:
    """An enhanced CT whose frames are stored from last to first."""
    data = dicom(pixels[::-1].copy(), SpacingBetweenSlices=99)
    if place:
        data.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
        shared = data.SharedFunctionalGroupsSequence[0]
        shared.PixelMeasuresSequence = [pydicom.Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [1.5, 0.75]
        shared.PlaneOrientationSequence = [pydicom.Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelValueTransformationSequence = [pydicom.Dataset()]
        shared.PixelValueTransformationSequence[0].RescaleSlope = 1
        shared.PixelValueTransformationSequence[0].RescaleIntercept = -1024
        groups = []
        for index in reversed(range(len(pixels))):
            group = pydicom.Dataset()
            group.PlanePositionSequence = [pydicom.Dataset()]
            group.PlanePositionSequence[0].ImagePositionPatient = [-30, -20, 100 + 2 * index]
            groups.append(group)
        data.PerFrameFunctionalGroupsSequence = groups
    return data


def test_multi_frame_equals_the_series(tmp_path: Path):
    voxels = volume()
    series = read_scan(tmp_path, series=write_series(tmp_path / "s", voxels))
    for compressed in (False, True):
        data = _multi_frame(voxels)
        if compressed:
            data.compress(RLELossless)
        scan = read_scan(save(data, tmp_path / "all.dcm"))
        np.testing.assert_array_equal(scan.array, series.array)
        np.testing.assert_allclose(scan.affine, series.affine)
        assert (scan.unit, scan.spacing) == ("HU", series.spacing)


def test_film_sequences_are_refused_and_a_single_frame_is_a_film(tmp_path: Path):
    path = save(_multi_frame(volume(), place=False), tmp_path / "cine.dcm")
    with pytest.raises(InputError, match=r"cine\.dcm: has frames without a place in space"):
        inspect(path)
    path = save(_multi_frame(volume()[:1]), tmp_path / "one.dcm")
    assert read_scan(path).array.shape == (1, 6, 5)
    assert read_scan(path).spacing == (1.5, 0.75)


def test_stacks_of_several_orientations_in_one_file_are_named_so(tmp_path: Path):
    data = _multi_frame(volume())
    plane = pydicom.Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    data.PerFrameFunctionalGroupsSequence[1].PlaneOrientationSequence = [plane]
    with pytest.raises(InputError, match=r"frames of several orientations \(stacks\)") as raised:
        inspect(save(data, tmp_path / "all.dcm"))
    assert "dcm2niix" in raised.value.remedy


# -------------------------------------------------------------------------------- refusals, privacy


def test_objects_without_an_image(tmp_path: Path):
    data = dicom(volume()[0])
    del data.Rows, data.Columns, data.PixelData
    with pytest.raises(InputError, match=r"a\.dcm: is a DICOM of modality CT, not an image"):
        inspect(save(data, tmp_path / "a.dcm"))
    with pytest.raises(InputError, match="of modality SEG"):
        read_scan(save(dicom(volume()[0], modality="SEG"), tmp_path / "b.dcm"))
    with pytest.raises(InputError, match="not read as a label map"):
        read_label(save(dicom(volume()[0]), tmp_path / "c.dcm"))


def test_frames_that_claim_another_size_are_refused(tmp_path: Path):
    data = dicom(np.zeros((16, 16), np.uint16), modality="DX")
    data.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(np.zeros((99, 88), np.uint16)))])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGLSLossless
    with pytest.raises(InputError, match="compressed frame of 99 x 88, not 16 x 16"):
        read_scan(save(data, tmp_path / "bomb.dcm"))
    stream = imagecodecs.jpeg2k_encode(np.zeros((99, 88), np.uint16), codecformat="j2k")
    data.PixelData = encapsulate([bytes(stream)])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(InputError, match="compressed frame of 99 x 88, not 16 x 16"):
        read_scan(save(data, tmp_path / "bomb.dcm"))


def test_dicom_needs_no_suffix(tmp_path: Path):
    path = save(dicom(volume()[0]), tmp_path / "1.2.840.10008")
    assert is_dicom(path)
    assert read_scan(path).array.shape == (1, 6, 5)
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "gone")


def test_no_patient_data_in_scans_headers_or_errors(tmp_path: Path, capfd: pytest.CaptureFixture):
    with pytest.warns(UserWarning, match="Invalid value"):  # what reading must not say
        data = dicom(volume()[0], StudyDate="not a date 1845-03-27")
    path = save(data, tmp_path / "a.dcm")
    seen = [repr(read_scan(path)), repr(inspect(path)), repr(problems(read_scan(path)))]
    raw = path.read_bytes()
    for cut in range(140, len(raw), 7):
        path.write_bytes(raw[:cut])
        with pytest.raises(InputError) as caught:
            read_scan(path)
        seen.append("".join(traceback.format_exception(caught.value)))
    seen += capfd.readouterr()
    secret = re.compile("|".join([*PATIENT.replace("^", " ").split(), "1845"]))
    assert not [text for text in seen if secret.search(text)]
