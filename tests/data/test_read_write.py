"""Masks and maps go back in the geometry of their scan, and appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
from read_samples import GEOMETRIES, affine, rng, write_series

from radiffuse.data.readers import label_suffix, read_label, read_scan, write_image, write_label
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError


def nifti(path: Path, kind: str, sform: int, qform: int, qkind: str | None = None) -> Path:
    voxels = rng().integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    image = nib.Nifti1Image(voxels, None)
    image.set_sform(affine(kind), sform)
    image.set_qform(affine(qkind or kind), qform)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 1), (0, 1), (1, 0), (4, 0), (0, 0)])
def test_nifti_geometry_and_codes_survive(tmp_path: Path, kind: str, sform: int, qform: int):
    source = nib.load(nifti(tmp_path / "scan.nii.gz", kind, sform, qform))
    scan = read_scan(tmp_path / "scan.nii.gz")
    mask = rng(1).integers(0, 14, scan.spatial_shape).astype(np.int64)
    write_label(tmp_path / "mask.nii.gz", mask, scan)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    for form in ("sform", "qform"):
        ours = getattr(written, f"get_{form}")(coded=True)
        theirs = getattr(source, f"get_{form}")(coded=True)
        assert ours[1] == theirs[1]
        if theirs[1]:
            np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    np.testing.assert_allclose(written.header.get_zooms(), source.header.get_zooms(), rtol=1e-5)
    back = read_label(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(back.array[0], mask)
    np.testing.assert_allclose(back.affine, scan.affine, atol=1e-5)


def test_a_qform_that_differs_from_the_sform_survives(tmp_path: Path):
    source = nib.load(nifti(tmp_path / "scan.nii", "oblique", 4, 1, "mirrored"))
    scan = read_scan(tmp_path / "scan.nii")
    write_label(tmp_path / "mask.nii", np.zeros(scan.spatial_shape, np.uint8), scan)
    written = nib.load(tmp_path / "mask.nii")
    np.testing.assert_allclose(written.get_sform(), source.get_sform(), atol=1e-5)
    np.testing.assert_allclose(written.get_qform(), source.get_qform(), atol=1e-5)


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_masks_of_itk_volumes_lie_on_them(tmp_path: Path, kind: str, suffix: str):
    lps = np.diag([-1, -1, 1, 1]) @ affine(kind)
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(rng(2).normal(size=(6, 5, 4)).astype(np.float32))
    image.SetSpacing(sizes.tolist())
    image.SetDirection((lps[:3, :3] / sizes).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    scan = read_scan(tmp_path / f"scan{suffix}")
    write_label(tmp_path / "mask.nii.gz", (scan.array[0] > 0.5).astype(np.uint8), scan)
    mask = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(mask.GetSpacing(), image.GetSpacing(), rtol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) > 0.5)


def test_masks_of_dicom_series_lie_on_them(tmp_path: Path):
    voxels = rng(3).integers(0, 4096, (4, 6, 5)).astype(np.uint16)
    paths = write_series(tmp_path / "s", voxels)
    scan = read_scan(tmp_path / "s", series=paths)
    write_label(tmp_path / "mask.nii.gz", (scan.array[0] > 1000).astype(np.uint8), scan)
    image, mask = (
        sitk.ReadImage([str(p) for p in paths]),
        sitk.ReadImage(str(tmp_path / "mask.nii.gz")),
    )
    np.testing.assert_allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), image.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) > 1000
    )


def test_a_sheared_affine_goes_into_the_sform_alone(tmp_path: Path):
    sheared = affine("oblique")
    sheared[:3, 2] += 0.4 * sheared[:3, 1]
    scan = Scan(np.zeros((1, 3, 4, 5), np.int16), (1.0, 1.0, 1.0), sheared)
    write_label(tmp_path / "mask.nii.gz", np.ones((3, 4, 5), np.uint8), scan)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, sheared, atol=1e-5)
    assert (written.get_sform(coded=True)[1], written.get_qform(coded=True)[1]) == (1, 0)


def test_film_masks_are_8_bit_gray_png(tmp_path: Path):
    film = Scan(np.zeros((1, 6, 9), np.uint8))
    mask = rng(4).integers(0, 256, (6, 9))
    assert label_suffix(film) == ".png"
    write_label(tmp_path / "mask.png", mask, film)
    assert Image.open(tmp_path / "mask.png").mode == "L"
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png").array[0], mask)
    write_label(tmp_path / "bits.png", mask > 9, film)
    np.testing.assert_array_equal(read_label(tmp_path / "bits.png").array[0], mask > 9)
    with pytest.raises(InputError, match=r"mask\.png: would hold label 300"):
        write_label(tmp_path / "mask.png", mask + 300 - mask.max(), film)
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png").array[0], mask)


def test_film_in_nifti_keeps_its_axes(tmp_path: Path):
    film = rng(5).integers(0, 256, (7, 4)).astype(np.uint8)
    source = nib.Nifti1Image(film.T, affine("oblique"))
    nib.save(source, tmp_path / "film.nii.gz")
    scan = read_scan(tmp_path / "film.nii.gz")
    np.testing.assert_array_equal(scan.array[0], film)
    assert label_suffix(scan) == ".nii.gz"
    write_label(tmp_path / "mask.nii.gz", scan.array[0] // 64, scan)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), film.T // 64)
    np.testing.assert_allclose(written.affine, source.affine, atol=1e-5)
    write_label(tmp_path / "plain.nii.gz", film, Scan(film[None], spacing=(0.3, 0.2)))
    assert nib.load(tmp_path / "plain.nii.gz").header.get_zooms() == pytest.approx((0.2, 0.3))


@pytest.mark.parametrize(("top", "dtype"), [(255, np.uint8), (256, np.int16), (40000, np.int32)])
def test_labels_take_the_smallest_type(tmp_path: Path, top: int, dtype: type):
    scan = Scan(np.zeros((1, 2, 2, 2), np.int16), affine=np.eye(4))
    mask = np.array([0, top] * 4).reshape(2, 2, 2)
    write_label(tmp_path / "mask.nii", mask, scan)
    assert nib.load(tmp_path / "mask.nii").get_data_dtype() == dtype
    np.testing.assert_array_equal(read_label(tmp_path / "mask.nii").array[0], mask)


def test_maps_of_real_numbers(tmp_path: Path):
    volume = Scan(np.zeros((1, 3, 4, 5), np.int16), affine=affine("oblique"))
    values = rng(6).random((3, 4, 5))
    write_image(tmp_path / "map.nii.gz", values, volume)
    back = read_scan(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(back.array[0], values.astype(np.float32))
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    film = Scan(np.zeros((1, 6, 9), np.uint8))
    write_image(tmp_path / "map.tif", rng(7).random((6, 9)), film)
    assert tifffile.imread(tmp_path / "map.tif").dtype == np.float32
    deep = rng(8).integers(0, 65536, (6, 9)).astype(np.uint16)
    write_image(tmp_path / "deep.png", deep, film)
    np.testing.assert_array_equal(read_scan(tmp_path / "deep.png").array[0], deep)


def test_wrong_suffixes_and_shapes(tmp_path: Path):
    film, volume = Scan(np.zeros((1, 6, 9), np.uint8)), Scan(np.zeros((1, 6, 9, 2), np.uint8))
    mask = np.zeros((6, 9), np.uint8)
    for name in ("mask.jpg", "mask", "mask.dcm"):
        with pytest.raises(InputError, match=r"suffix"):
            write_label(tmp_path / name, mask, film)
    with pytest.raises(InputError, match="3D label maps are not written"):
        write_label(tmp_path / "mask.png", np.zeros((6, 9, 2), np.uint8), volume)
    with pytest.raises(InputError, match="2D float64 is not written"):
        write_image(tmp_path / "map.png", mask / 2, film)
    with pytest.raises(ValueError, match="does not fit a scan"):
        write_label(tmp_path / "mask.png", mask.T, film)
    with pytest.raises(ValueError, match="of integers"):
        write_label(tmp_path / "mask.png", mask / 2, film)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    film = Scan(np.zeros((1, 6, 9), np.uint8))
    path = tmp_path / "mask.png"
    write_label(path, np.full((6, 9), 7), film)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        InputError, match=r"mask\.png: cannot be written \(No space left on device\)"
    ):
        write_label(path, np.zeros((6, 9), np.uint8), film)
    assert [p.name for p in tmp_path.iterdir()] == ["mask.png"]
    assert (read_label(path).array == 7).all()
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        write_label(tmp_path / "gone" / "mask.png", np.zeros((6, 9), np.uint8), film)


def test_the_same_mask_is_the_same_file(tmp_path: Path):
    scan = Scan(np.zeros((1, 3, 4, 5), np.int16), affine=affine("oblique"))
    mask = rng(9).integers(0, 3, (3, 4, 5))
    write_label(tmp_path / "a.nii.gz", mask, scan)
    write_label(tmp_path / "b.nii.gz", mask, scan)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
