"""NIfTI, MetaImage and NRRD: voxels and geometry, with nibabel and SimpleITK as the oracles."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from read_samples import GEOMETRIES, affine, rng

from radiffuse.data.readers import inspect, read_label, read_scan
from radiffuse.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the project")


def itk_affine(image: sitk.Image) -> np.ndarray:
    """What ITK says, in RAS: the independent road from its direction cosines."""
    dims = image.GetDimension()
    corner = np.array(image.TransformIndexToPhysicalPoint([0] * dims))
    steps = [
        np.array(image.TransformIndexToPhysicalPoint([int(a == b) for b in range(dims)])) - corner
        for a in range(dims)
    ]
    result = np.eye(4)
    result[:dims, :dims] = np.column_stack(steps)
    result[:dims, 3] = corner
    return np.diag([-1, -1, 1, 1]) @ result


def itk_volume(kind: str, voxels: np.ndarray) -> sitk.Image:
    """(i, j, k) voxels with a geometry given in RAS."""
    image = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
    lps = np.diag([-1, -1, 1, 1]) @ affine(kind)
    sizes = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sizes.tolist())
    image.SetDirection((lps[:3, :3] / sizes).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
def test_voxels_and_affine_agree_with_itk(tmp_path: Path, kind: str, suffix: str, compressed: bool):
    voxels = rng().integers(-1024, 3000, (4, 5, 6)).astype(np.int16)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(itk_volume(kind, voxels), str(path), useCompression=compressed)
    scan, header = read_scan(path), inspect(path)
    np.testing.assert_array_equal(scan.array[0], voxels)
    assert scan.array.dtype == np.int16
    np.testing.assert_allclose(scan.affine, affine(kind), atol=1e-4)
    np.testing.assert_allclose(scan.affine, itk_affine(sitk.ReadImage(str(path))), atol=1e-4)
    np.testing.assert_allclose(scan.spacing, (0.7, 1.1, 2.5), rtol=1e-5)
    assert header.spatial_shape == (4, 5, 6)
    np.testing.assert_array_equal(header.affine, scan.affine)
    assert (header.spacing, header.dtype) == (scan.spacing, "int16")


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_film_in_a_volume_format_is_rows_and_columns(tmp_path: Path, suffix: str):
    film = rng(1).integers(0, 256, (7, 4)).astype(np.uint8)  # 7 rows, 4 columns
    image = sitk.GetImageFromArray(film)
    image.SetSpacing([0.5, 2.0])  # between columns, between rows
    path = tmp_path / f"film{suffix}"
    sitk.WriteImage(image, str(path))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.array[0], film)
    np.testing.assert_allclose(scan.spacing, (2.0, 0.5))
    assert inspect(path).spatial_shape == (7, 4)
    assert scan.value_range == (0, 255)
    down = scan.affine @ [1, 0, 0, 1] - scan.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(np.linalg.norm(down), 2.0)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_voxel_type(tmp_path: Path, suffix: str, dtype: str):
    voxels = rng(2).integers(0, 100, (3, 4, 5)).astype(dtype)
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels.transpose(2, 1, 0)), str(path))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.array[0], voxels)
    assert scan.array.dtype == (np.float32 if dtype[0] == "f" else np.dtype(dtype))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colors_in_itk_formats(tmp_path: Path, suffix: str):
    colors = rng(3).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    path = tmp_path / f"film{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(colors, isVector=True), str(path))
    np.testing.assert_array_equal(read_scan(path).array, np.moveaxis(colors, -1, 0))
    assert inspect(path).channels == 3


def test_big_endian_voxels(tmp_path: Path):
    voxels = rng(4).integers(-1000, 1000, (2, 3, 4)).astype(">i2")
    lines = "NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementByteOrderMSB = True\n"
    mha = tmp_path / "scan.mha"
    mha.write_bytes((lines + "ElementDataFile = LOCAL\n").encode() + voxels.tobytes(order="F"))
    nrrd = tmp_path / "scan.nrrd"
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 3 4\nendian: big\nencoding: raw\n\n"
    nrrd.write_bytes(text.encode() + voxels.tobytes(order="F"))
    for path in (mha, nrrd):
        scan = read_scan(path)
        np.testing.assert_array_equal(scan.array[0], voxels)
        assert scan.array.dtype.isnative
        assert (scan.spacing, scan.affine) == (None, None)


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
def test_nrrd_spaces_agree_with_itk(tmp_path: Path, space: str):
    path = tmp_path / "scan.nrrd"
    text = (
        f"NRRD0004\ntype: uchar\ndimension: 3\nspace: {space}\nsizes: 2 2 2\n"
        "space directions: (0,2,0) (1.5,0,0) (0,0,3)\nencoding: raw\nspace origin: (1,2,3)\n\n"
    )
    path.write_bytes(text.encode() + bytes(8))
    expected = itk_affine(sitk.ReadImage(str(path)))
    np.testing.assert_allclose(read_scan(path).affine, expected, atol=1e-6)


def test_detached_headers_stay_in_their_folder(tmp_path: Path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1000))
    folder = tmp_path / "scans"
    folder.mkdir()
    head = "NDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\nElementDataFile = "
    for name in ("../secret.bin", str(secret), "C:\\secret.bin", "a%03d.raw", "LIST", "gone.raw"):
        (folder / "scan.mhd").write_text(head + name + "\n")
        (folder / "scan.nhdr").write_text(
            f"NRRD0004\ntype: uchar\ndimension: 2\nsizes: 4 4\nencoding: raw\ndata file: {name}\n"
        )
        for path in (folder / "scan.mhd", folder / "scan.nhdr"):
            with pytest.raises(InputError, match=r"outside|several files|does not exist"):
                read_scan(path)


def test_nifti_slope_and_intercept(tmp_path: Path):
    stored = rng(5).integers(0, 4096, (3, 4, 5)).astype(np.uint16)
    image = nib.Nifti1Image(stored, affine("oblique"))
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "scan.nii.gz")
    raw = nib.load(tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    assert scan.array.dtype == np.float32
    np.testing.assert_allclose(scan.array[0], raw.get_fdata(), rtol=1e-6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_versions_and_byte_orders(tmp_path: Path, kind: type, order: str):
    voxels = rng(6).normal(size=(3, 4, 5))
    header = (nib.Nifti2Header if kind is nib.Nifti2Image else nib.Nifti1Header)(endianness=order)
    header.set_data_dtype(np.float64)
    nib.save(kind(voxels, affine("oblique"), header), tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(scan.array[0], voxels.astype(np.float32))
    np.testing.assert_allclose(scan.affine, affine("oblique"), rtol=1e-6)


def test_nifti_dimensions(tmp_path: Path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5, 1, 1), np.uint8), np.eye(4)), path)
    assert read_scan(path).array.shape == (1, 3, 4, 5)
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5, 2), np.uint8), np.eye(4)), path)
    for reader in (read_scan, read_label, inspect):
        with pytest.raises(InputError, match=r"scan\.nii: has 4 dimensions \(3 x 4 x 5 x 2\)"):
            reader(path)
    nib.save(nib.Nifti1Image(np.ones((3, 4), np.uint8), np.eye(4)), path)
    assert read_scan(path).array.shape == (1, 4, 3)
    nib.save(nib.Nifti1Image(np.ones((3,), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match="has 1 dimensions"):
        inspect(path)


def test_nifti_in_meters_and_in_complex_numbers_is_refused(tmp_path: Path):
    image = nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.eye(4))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "scan.nii")
    with pytest.raises(InputError, match="geometry in meters"):
        inspect(tmp_path / "scan.nii")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.complex64), np.eye(4)), tmp_path / "c.nii")
    with pytest.raises(InputError, match="complex"):
        read_scan(tmp_path / "c.nii")


def test_float_labels_only_where_they_are_whole(tmp_path: Path):
    values = rng(7).integers(0, 14, (3, 4, 5)).astype(np.float64)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "label.nii.gz")
    label = read_label(tmp_path / "label.nii.gz")
    assert label.array.dtype == np.int32
    np.testing.assert_array_equal(label.array[0], values)
    values[0, 0, :2] += 0.5
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "label.nii.gz")
    with pytest.raises(InputError, match=r"label\.nii\.gz: has 2 values that are not whole"):
        read_label(tmp_path / "label.nii.gz")
    values[:] = 1e30
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "label.nii.gz")
    with pytest.raises(InputError, match="60 values that are not whole"):
        read_label(tmp_path / "label.nii.gz")


def test_several_gzip_members_are_one_file(tmp_path: Path):
    import gzip

    voxels = rng(8).integers(0, 9, (20, 20, 20)).astype(np.int16)
    plain = nib.Nifti1Image(voxels, np.eye(4)).to_bytes()
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]) + bytes(100))
    np.testing.assert_array_equal(read_scan(path).array[0], voxels)


@NEEDS_DATA
@pytest.mark.parametrize("folder", ["ct-abdomen", "ct-sarcoma"])
def test_real_ct_agrees_with_nibabel(folder: str):
    paths = sorted((DATA / folder / "images").glob("*.nii.gz"))[:2]
    assert paths
    for path in paths:
        scan, raw = read_scan(path), nib.load(path)
        np.testing.assert_array_equal(scan.array[0], np.asarray(raw.dataobj))
        np.testing.assert_array_equal(scan.affine, raw.affine)
        assert scan.array.min() <= -1000  # HU: there is air
        label = read_label(DATA / folder / "labels" / path.name)
        assert label.spatial_shape == scan.spatial_shape == inspect(path).spatial_shape
        np.testing.assert_allclose(label.affine, scan.affine, atol=1e-4)


@NEEDS_DATA
def test_real_films_are_gray():
    for path in sorted((DATA / "cxr-classes" / "normal").glob("*.jpg"))[:5]:
        assert inspect(path).spatial_shape == (224, 224)
        assert read_scan(path).array.shape == (1, 224, 224)
    labels = sorted((DATA / "cxr-lungs" / "labels").glob("*.png"))[:5]
    assert labels
    for path in labels:
        assert set(np.unique(read_label(path).array)) <= {0, 1, 255}
        film = path.parents[1] / "images" / f"{path.stem}.jpg"
        assert inspect(film).spatial_shape == inspect(path).spatial_shape
