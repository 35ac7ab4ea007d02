"""NIfTI files with oddities that leave the voxels unambiguous: nibabel and ITK, where they read them, agree."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from read_samples import rng
from test_read_volumes import itk_affine

from radiffuse.data.checking.examine import examine
from radiffuse.data.dataset import Case
from radiffuse.data.readers import inspect, read_label, read_scan, write_label
from radiffuse.data.readers.geometry import NiftiScan
from radiffuse.errors import InputError

VOXELS = rng(9).integers(-1000, 3000, (4, 5, 6)).astype("<i2")
AFFINE = np.array([[0, -1.1, 0, 3], [0.7, 0, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1.0]])
TURNED = np.array([[0, 1.1, 0, 3], [0.7, 0, 0, -7], [0, 0, -2.5, 11], [0, 0, 0, 1.0]])
"""What the quaternion (0, 0.7071, 0.7071, 0) says with the same sizes and origin: half a turn."""
UNPLACED = np.array([[-0.7, 0, 0, 1.05], [0, 1.1, 0, -2.2], [0, 0, 2.5, -6.25], [0, 0, 0, 1.0]])
"""Sizes alone, centered as in nibabel."""
ROUNDED = struct.pack("<3f", 0.70710695, 0.70710695, 0)  # its square is 1 + 4.7e-7


def nifti(changes: dict[int, bytes]) -> bytes:
    """A sound file with other bytes at some places of its header (nifti1.h)."""
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    content = bytearray(image.to_bytes())
    for place, piece in changes.items():
        content[place : place + len(piece)] = piece
    return bytes(content)


def short(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


CODES = 252
FLAT = {280 + 32: struct.pack("<4f", 0, 0, 0, 11)}  # srow_z: the third axis has no length
ODD = {
    "sound": (nifti({}), AFFINE),
    "qform rounded": (nifti({256: ROUNDED}), AFFINE),
    "qform of no use": (nifti({256: struct.pack("<3f", 0.9, 0.9, 0)}), AFFINE),
    "qform not finite": (nifti({256: struct.pack("<3f", np.nan, 0, 0)}), AFFINE),
    "qform rounded, alone": (nifti({256: ROUNDED, CODES: short(1, 0)}), TURNED),
    "sform zero": (nifti({280: bytes(48)}), AFFINE),
    "sform zero, alone": (nifti({280: bytes(48), CODES: short(0, 1)}), UNPLACED),
    "sform flat": (nifti(FLAT), AFFINE),
    "no place": (nifti({CODES: short(0, 0)}), UNPLACED),
    "dim4 zero": (nifti({40: short(4), 48: short(0)}), AFFINE),
    "dim4 and dim5 zero": (nifti({40: short(5), 48: short(0, 0)}), AFFINE),
    "vox_offset zero": (nifti({108: bytes(4)}), AFFINE),
    "vox_offset zero, no extension bytes": (
        (lambda content: content[:348] + content[352:])(nifti({108: bytes(4)})),
        AFFINE,
    ),
    "trailing bytes": (nifti({}) + b"junk" * 7, AFFINE),
}
MISREAD = {"vox_offset zero"}
"""Both oracles take bytes of the header for voxels; the length of the file shows the place."""


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ODD)
def test_oddities_that_leave_no_doubt_are_read(tmp_path: Path, kind: str, packed: bool) -> None:
    content, affine = ODD[kind]
    path = tmp_path / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    for scan in (read_scan(path), read_label(path)):
        np.testing.assert_array_equal(scan.array[0], VOXELS)
        np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    assert inspect(path).spatial_shape == VOXELS.shape
    # nibabel gives zeros for an sform of zeros, and what an odd header says in words otherwise
    try:
        raw = nib.load(path)
        if kind not in MISREAD and np.prod(raw.shape) == VOXELS.size:
            np.testing.assert_array_equal(np.asarray(raw.dataobj), VOXELS)
            if abs(np.linalg.det(raw.affine)) > 0.1:
                np.testing.assert_allclose(raw.affine, affine, atol=1e-5)
    except (ValueError, nib.spatialimages.HeaderDataError):
        assert kind in ("qform rounded, alone", "vox_offset zero, no extension bytes")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        assert kind == "sform zero, alone"
        return
    if kind not in MISREAD:
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).squeeze().T, VOXELS)
    if affine is not UNPLACED:  # ITK has its origin in the first voxel
        np.testing.assert_allclose(itk_affine(image)[:3, :3], affine[:3, :3], atol=1e-5)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (nifti({108: bytes(4)}) + bytes(9), "where its voxels begin"),
        (nifti({256: struct.pack("<3f", 0.9, 0.9, 0), CODES: short(1, 0)}), "no rotation"),
        (nifti({280: struct.pack("<f", np.nan)}), "not finite"),
    ],
)
def test_oddities_that_leave_doubt_are_refused(tmp_path: Path, content: bytes, problem: str):
    (tmp_path / "scan.nii").write_bytes(content)
    with pytest.raises(InputError, match=rf"scan\.nii: .*({problem})"):
        read_scan(tmp_path / "scan.nii")


def test_bytes_behind_a_gzip_stream_are_no_voxels_and_its_checksum_still_counts(tmp_path: Path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(nifti({})) + b"junk" * 7)
    np.testing.assert_array_equal(read_scan(path).array[0], VOXELS)  # as SimpleITK does
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(image.transpose(2, 1, 0), VOXELS)
    damaged = bytearray(gzip.compress(nifti({}) + b"more" * 50_000))
    damaged[-6] ^= 1  # of the CRC
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="incorrect data check"):
        read_scan(path)


@pytest.mark.parametrize("kind", ["qform rounded", "qform of no use", "sform zero", "no place"])
def test_a_mask_lies_where_its_scan_does(tmp_path: Path, kind: str) -> None:
    (tmp_path / "scan.nii").write_bytes(ODD[kind][0])
    scan = read_scan(tmp_path / "scan.nii")
    assert isinstance(scan, NiftiScan)
    assert scan.placed == (kind != "no place")
    mask = (VOXELS > 0).astype(np.uint8)
    write_label(tmp_path / "mask.nii.gz", mask, scan)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, scan.affine, atol=1e-5)
    assert sitk.ReadImage(str(tmp_path / "mask.nii.gz")).GetSize() == VOXELS.shape


PIXDIM = 80  # of the first axis


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("codes", [(0, 0), (1, 0)])
def test_a_size_of_zero_is_unknown_and_not_a_millimeter(
    tmp_path: Path, axes: tuple[int, ...], codes: tuple[int, int]
) -> None:
    changes = {PIXDIM + 4 * axis: bytes(4) for axis in axes} | {CODES: short(*codes)}
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(changes))
    scan = read_scan(path)
    assert scan.spacing is None
    assert scan.affine is None
    np.testing.assert_array_equal(scan.array[0], VOXELS)
    (warning,) = examine(Case("scan", (path,)), (), decode=True).issues
    assert "does not say how large its voxels are" in warning.problem
    write_label(tmp_path / "mask.nii.gz", (VOXELS > 0).astype(np.uint8), scan)
    mask = read_label(tmp_path / "mask.nii.gz")
    assert mask.spacing is None
    np.testing.assert_array_equal(mask.array[0], VOXELS > 0)


def test_a_sound_sform_needs_no_size(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(nifti({PIXDIM: bytes(12)}))
    np.testing.assert_allclose(read_scan(tmp_path / "scan.nii").affine, AFFINE, atol=1e-5)
