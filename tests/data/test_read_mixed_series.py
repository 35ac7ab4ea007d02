"""Several volumes in one DICOM series, and volumes whose slices differ in what tells volumes apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from read_samples import alter, rng, write_series

from radiffuse.data.checking.check import check_path
from radiffuse.data.readers import inspect, read_scan
from radiffuse.errors import InputError


def volume(seed: int = 0) -> np.ndarray:
    """(slices, rows, columns) of stored values."""
    return rng(seed).integers(0, 4096, (4, 6, 5)).astype(np.uint16)


def _with_kinds(paths: list[Path], name: str, values: list[object]) -> list[Path]:
    for path, value in zip(paths, values, strict=True):
        alter(path, **{name: value})
    return paths


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("EchoTime", ["4.6", "9.2"], "EchoTime (0018,0081) tells apart: 4 of 4.6, 4 of 9.2"),
        ("AcquisitionNumber", [1000001, 1000002], "4 of 1000001, 4 of 1000002"),
        ("EchoNumbers", [1, 2], "EchoNumbers (0018,0086) tells apart: 4 of 1, 4 of 2"),
        ("TemporalPositionIdentifier", [1, 7], "(0020,0100) tells apart: 4 of 1, 4 of 7"),
        ("AcquisitionNumber", [3, None], "(0020,0012) tells apart: 4 of none, 4 of 3"),
        ("DiffusionBValue", [0.0, 1000.0], "(0018,9087) tells apart: 4 of 0, 4 of 1000"),
        (
            "ImageType",
            [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]],
            r"(0008,0008) tells apart: 4 of ORIGINAL\PRIMARY\M, 4 of ORIGINAL\PRIMARY\P",
        ),
    ],
)
def test_two_volumes_whose_slices_lie_between_one_another(
    tmp_path: Path, name: str, values: list[object], said: str, apart: bool
):
    """Evenly spaced, they were read as one volume of twice the slices; in the same places too, the element is named."""
    paths = write_series(tmp_path / "s", np.concatenate([volume(), volume(1)]), modality="MR")
    if not apart:
        for first, second in zip(paths[::2], paths[1::2], strict=True):
            alter(second, ImagePositionPatient=pydicom.dcmread(first).ImagePositionPatient)
    _with_kinds(paths, name, values * 4)
    for reader in (lambda: read_scan(tmp_path, series=paths), lambda: inspect(tmp_path, paths)):
        with pytest.raises(InputError, match="mixes slices of several volumes") as raised:
            reader()
        assert said in str(raised.value)
        assert "remove the others" in raised.value.remedy


PACKAGES = [
    ({"SpacingBetweenSlices": 2}, "SpacingBetweenSlices is 2 mm"),
    ({"SpacingBetweenSlices": 2, "SliceThickness": 3}, "SpacingBetweenSlices is 2 mm"),
    ({"SliceThickness": 2}, "SliceThickness is 2 mm"),
    ({"SliceThickness": "1.6"}, "SliceThickness is 1.6 mm"),
]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("elements", "said"), PACKAGES)
def test_packages_of_one_volume_are_stacked(
    tmp_path: Path, count: int, elements: dict[str, object], said: str
):
    """As scanners acquire many slices: every second or third of them at a time."""
    voxels = np.concatenate([volume(), volume(1)])
    paths = write_series(tmp_path / "s", voxels, modality="MR", **elements)
    expected = read_scan(tmp_path, series=paths)
    _with_kinds(paths, "AcquisitionNumber", [1 + i % count for i in range(8)])
    scan, header = read_scan(tmp_path, series=paths[::-1]), inspect(tmp_path, paths)
    np.testing.assert_array_equal(scan.array, expected.array)
    np.testing.assert_array_equal(scan.affine, expected.affine)
    assert expected.note == ""
    assert scan.note == header.note
    assert "are stacked as one volume" in scan.note
    assert said in scan.note
    assert "(0020,0012): 4 of 1, 4 of 2)" in scan.note or count == 3


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"SpacingBetweenSlices": 4, "SliceThickness": 2}, "SpacingBetweenSlices is 4 mm"),
        ({"SpacingBetweenSlices": 1, "SliceThickness": 2}, "SpacingBetweenSlices is 1 mm"),
        ({"SliceThickness": 4}, "together they lie 2 mm apart, and SliceThickness is 4 mm"),
        ({"SliceThickness": 3}, "SliceThickness is 3 mm"),  # acquired with gaps
        ({}, "neither SpacingBetweenSlices nor SliceThickness"),
        ({"EchoTime": [4.6, 9.2]}, "EchoTime (0018,0081) tells apart: 4 of 4.6, 4 of 9.2"),
        ({"ImageType": [["ORIGINAL"], ["DERIVED"]]}, "4 of DERIVED, 4 of ORIGINAL"),
        ({"TemporalPositionIdentifier": [1, 2]}, "TemporalPositionIdentifier"),
    ],
)
def test_two_volumes_half_a_slice_apart_are_no_packages(
    tmp_path: Path, elements: dict[str, object], said: str
):
    paths = write_series(tmp_path / "s", np.concatenate([volume(), volume(1)]), modality="MR")
    _with_kinds(paths, "AcquisitionNumber", [1, 2] * 4)
    for name, value in {"SliceThickness": 2, **elements}.items() if elements else ():
        _with_kinds(paths, name, value * 4 if isinstance(value, list) else [value] * 8)
    for reader in (lambda: read_scan(tmp_path, series=paths), lambda: inspect(tmp_path, paths)):
        with pytest.raises(InputError, match="mixes slices of several volumes") as raised:
            reader()
        assert said in str(raised.value)


def test_packages_need_an_even_grid_and_a_thickness_of_every_slice(tmp_path: Path):
    voxels = np.concatenate([volume(), volume(1)])
    paths = write_series(tmp_path / "s", voxels, modality="MR", SliceThickness=1)
    _with_kinds(paths, "AcquisitionNumber", [1, 2] * 4)
    assert read_scan(tmp_path, series=paths).note
    with pytest.raises(InputError, match=r"lacks about 1 slice between 003\.dcm and 005\.dcm"):
        read_scan(tmp_path, series=[path for path in paths if path.stem != "004"])
    for path in paths[1::2]:  # the second a third of a slice nearer to the first
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        alter(path, ImagePositionPatient=[x, y, float(z) - 0.6])
    with pytest.raises(InputError, match="mixes slices of several volumes"):
        read_scan(tmp_path, series=paths)
    paths = write_series(tmp_path / "t", voxels, modality="MR", SliceThickness=1)
    _with_kinds(paths, "AcquisitionNumber", [1, 2] * 4)
    _with_kinds(paths, "SliceThickness", [1] * 7 + [None])
    with pytest.raises(InputError, match="mixes slices of several volumes"):
        read_scan(tmp_path, series=paths)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("AcquisitionNumber", [1, 1, 2, 2, 3, 3, 4, 4]),  # blocks of a CT, one after the other
        ("AcquisitionNumber", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("AcquisitionNumber", [1, 1, 1, None, 1, 1, 1, 1]),
        ("ImageType", [["DERIVED" if i == 3 else "ORIGINAL", "PRIMARY"] for i in range(8)]),
        ("EchoNumbers", [[1, 2]] * 8),
    ],
)
def test_values_that_differ_within_one_volume(tmp_path: Path, name: str, values: list[object]):
    paths = write_series(tmp_path / "s", np.concatenate([volume(), volume(1)]))
    expected = read_scan(tmp_path, series=paths).array
    _with_kinds(paths, name, values)
    np.testing.assert_array_equal(read_scan(tmp_path, series=paths).array, expected)


def test_an_element_that_tells_volumes_apart_may_be_damaged(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume())
    for path in paths:
        alter(path, AcquisitionNumber=12)
        path.write_bytes(path.read_bytes().replace(b"IS\x02\x0012", b"IS\x02\x00x2"))
        assert b"IS\x02\x00x2" in path.read_bytes()
    assert read_scan(tmp_path, series=paths).array.shape[-1] == 4


def test_two_slices_in_one_place_are_told_apart_where_an_element_does(tmp_path: Path):
    paths = write_series(tmp_path / "s", volume())
    alter(paths[2], ImagePositionPatient=[-30, -20, 102], EchoNumbers=2)
    with pytest.raises(
        InputError, match=r"in the same place as .*\(EchoNumbers (none and 2|2 and none)\)"
    ):
        read_scan(tmp_path, series=paths)


def test_check_says_that_packages_are_stacked(tmp_path: Path):
    voxels = np.concatenate([volume(), volume(1)])
    paths = write_series(
        tmp_path / "s", voxels, modality="MR", SliceThickness=2, SeriesInstanceUID="1.2.3"
    )
    for path in paths:
        alter(path, SOPInstanceUID=f"1.2.3.{9 + int(path.stem)}")
    for decode in (True, False):
        assert not check_path(tmp_path, decode=decode, workers=0).issues
    _with_kinds(paths, "AcquisitionNumber", [1, 2] * 4)
    for decode in (True, False):
        (issue,) = check_path(tmp_path, decode=decode, workers=0).issues
        assert issue.severity == "warning"
        assert issue.where == f"{tmp_path / 's'} (8 files from 000.dcm)"
        assert "has acquisitions that lie between one another" in issue.problem


def test_a_mosaic_is_refused(tmp_path: Path):
    (path,) = write_series(tmp_path / "s", volume()[:1], modality="MR")
    assert read_scan(path).spatial_dims == 2
    alter(path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    for reader in (read_scan, inspect):
        with pytest.raises(InputError, match="is a mosaic") as raised:
            reader(path)
        assert "dcm2niix" in raised.value.remedy


def test_a_spacing_that_changes_is_not_called_missing_slices(tmp_path: Path):
    voxels = np.concatenate([volume(), volume(1)])
    for number, heights in enumerate(((0, 2, 4, 6, 8, 13, 18, 23), (0, 2, 4, 6, 8, 12, 16, 20))):
        paths = write_series(tmp_path / str(number), voxels)
        for path, height in zip(paths, heights, strict=True):
            alter(path, ImagePositionPatient=[-30, -20, height])
        with pytest.raises(InputError, match=rf"uneven slices, 2 to {5 - number} mm apart"):
            read_scan(tmp_path, series=paths)
    kept = [path for path in paths[:5] if path.stem not in ("001", "003")]  # 4 and 4 mm
    assert read_scan(tmp_path, series=kept).spacing[2] == 4
    for path, height in zip(paths, (0, 2, 4, 8, 12, 14, 16, 18), strict=True):
        alter(path, ImagePositionPatient=[-30, -20, height])
    with pytest.raises(InputError, match="lacks about 1 slice"):
        read_scan(tmp_path, series=paths)
