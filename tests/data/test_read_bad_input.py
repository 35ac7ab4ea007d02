"""Whatever is wrong with a file, one line says which file, what, and what to do about it."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from read_samples import dicom, png_header, rng, save

from radiffuse.data.checking.examine import problems
from radiffuse.data.readers import inspect, read_label, read_scan
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError

READERS = (read_scan, read_label, inspect)


def make_samples(folder: Path) -> dict[str, Path]:
    """One sound file of every format and of every kind of compression."""
    folder.mkdir(exist_ok=True)
    film = rng().integers(0, 4096, (12, 10)).astype(np.uint16)
    volume = rng().integers(-1000, 1000, (6, 5, 4)).astype(np.int16)
    colors = rng().integers(0, 256, (12, 10, 3)).astype(np.uint8)
    Image.fromarray(film).save(folder / "gray.png")
    Image.fromarray(colors[..., 0]).save(folder / "bytes.png")
    Image.fromarray(colors).convert("P").save(folder / "palette.png")
    Image.fromarray(colors).save(folder / "film.jpg")
    Image.fromarray(colors).save(folder / "progressive.jpg", progressive=True)
    tifffile.imwrite(folder / "raw.tif", film)
    for compression in ("lzw", "zlib", "packbits", "jpeg"):
        tifffile.imwrite(folder / f"{compression}.tif", colors, compression=compression)
    tifffile.imwrite(folder / "tiled.tif", film, tile=(16, 16), bigtiff=True)
    for suffix in (".nii", ".nii.gz"):
        nib.save(nib.Nifti1Image(volume, np.diag([1, 2, 3, 1])), folder / f"scan{suffix}")
    for suffix in ("mha", "nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"raw.{suffix}"))
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"packed.{suffix}"), True)
    save(dicom(film), folder / "raw.dcm")
    for name, syntax in (
        ("rle", pydicom.uid.RLELossless),
        ("jpeg2000", pydicom.uid.JPEG2000Lossless),
        ("jpegls", pydicom.uid.JPEGLSLossless),
    ):
        data = dicom(film)
        if name == "rle":
            data.compress(syntax)
        else:
            import imagecodecs

            encode = imagecodecs.jpegls_encode if name == "jpegls" else imagecodecs.jpeg2k_encode
            keywords = {} if name == "jpegls" else {"codecformat": "j2k"}
            data.PixelData = pydicom.encaps.encapsulate([bytes(encode(film, **keywords))])
            data["PixelData"].is_undefined_length = True
            data.file_meta.TransferSyntaxUID = syntax
        save(data, folder / f"{name}.dcm")
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_samples(tmp_path_factory.mktemp("samples") / "all")


def refused(path: Path, pattern: str, *, readers: tuple[Callable[..., object], ...] = READERS):
    """Every reader says this about the file, and names it."""
    for reader in readers:
        with pytest.raises(InputError, match=pattern) as caught:
            reader(path)
        assert caught.value.where == str(path)
        assert caught.value.problem
        assert caught.value.remedy
        assert "\n" not in str(caught.value)


def test_the_samples_are_sound(samples: dict[str, Path]):
    assert set(samples) == set(NAMES)
    for path in samples.values():
        scan, header = read_scan(path), inspect(path)
        assert scan.spatial_shape == header.spatial_shape
        assert scan.array.flags.writeable
        assert scan.array.dtype.isnative
        assert not problems(scan)


def test_paths_that_are_no_file(tmp_path: Path):
    refused(tmp_path / "gone.png", "does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path / "loose.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "loose.png", r"is a link to .*gone\.png, which does not exist")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(tmp_path / "loop.png", "cannot be opened")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "not an ordinary file")
    refused(tmp_path / ("x" * 300 + ".png"), "cannot be opened")
    refused(Path("a\0.png"), "cannot be opened")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", r"is empty \(0 bytes\)")


def test_files_without_permission(
    samples: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "film.png"
    path.write_bytes(samples["gray.png"].read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything

        def forbidden(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", forbidden)
    refused(path, "may not be read by this user")


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("text.png", b"hello, I am no film\n", r"named \.png but holds none of the known formats"),
        ("page.nii.gz", b"<!DOCTYPE html>", r"named \.nii\.gz but holds none"),
        ("zip.nii.gz", gzip.compress(b"x" * 999, mtime=0), r"named \.nii\.gz but holds none"),
        ("data.dcm", b"\0" * 400, r"named \.dcm but holds none"),
        ("model.png", pickle.dumps({"a": 1}), "holds none"),
        ("one.png", b"\x89", "holds none"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "truncated or has no image header"),
        ("head.jpg", b"\xff\xd8\xff", "cannot be read as JPEG|JPEG, whose"),
        ("head.tif", b"II*\0", "cannot be read as TIFF"),
        ("head.nrrd", b"NRRD0004", "header that does not end|damaged"),
        ("head.mha", b"NDims = 3", "header without ElementDataFile"),
        ("head.dcm", b"\0" * 128 + b"DICM", "DICOM"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, name: str, content: bytes, pattern: str):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, pattern)


def test_families_do_not_mix(samples: dict[str, Path], tmp_path: Path):
    for source, name, pattern in (
        ("gray.png", "a.nii", r"named \.nii but holds PNG"),
        ("gray.png", "a.dcm", r"named \.dcm but holds PNG"),
        ("raw.dcm", "a.png", r"named \.png but holds DICOM"),
        ("scan.nii.gz", "a.jpg", r"named \.jpg but holds NIfTI"),
    ):
        (tmp_path / name).write_bytes(samples[source].read_bytes())
        refused(tmp_path / name, pattern)
    for source, name in (("raw.mha", "b.nrrd"), ("scan.nii", "b.nii.gz"), ("film.jpg", "b.tif")):
        (tmp_path / name).write_bytes(samples[source].read_bytes())
        np.testing.assert_array_equal(
            read_scan(tmp_path / name).array, read_scan(samples[source]).array
        )


def test_every_format_notices_truncation(samples: dict[str, Path], tmp_path: Path):
    for name, path in samples.items():
        raw = path.read_bytes()
        cut = tmp_path / name
        for keep in (0.5, 0.9):
            cut.write_bytes(raw[: int(len(raw) * keep)])
            with pytest.raises(InputError, match=name):
                read_scan(cut)


def test_damage_within_deflated_voxels_is_noticed(samples: dict[str, Path], tmp_path: Path):
    for name in ("scan.nii.gz", "packed.mha", "packed.nrrd", "gray.png"):
        raw = bytearray(samples[name].read_bytes())
        raw[-40] ^= 0x10
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(InputError, match=name):
            read_scan(tmp_path / name)


def nifti_bytes(shape: tuple[int, ...], *, dtype: type = np.float64) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["pixdim"][1:4] = 1
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    return bytes(header.binaryblock) + b"\0" * 4


def mha_bytes(shape: tuple[int, ...], *, packed: bool = False) -> bytes:
    text = (
        f"NDims = {len(shape)}\nDimSize = {' '.join(map(str, shape))}\nElementType = MET_DOUBLE\n"
    )
    body = zlib.compress(bytes(10**6)) if packed else bytes(100)
    return (text + f"CompressedData = {packed}\nElementDataFile = LOCAL\n").encode() + body


def nrrd_bytes(shape: tuple[int, ...], *, packed: bool = False) -> bytes:
    sizes = " ".join(map(str, shape))
    encoding = "gzip" if packed else "raw"
    text = f"NRRD0004\ntype: double\ndimension: {len(shape)}\nsizes: {sizes}\nendian: little\n"
    body = gzip.compress(bytes(10**6), mtime=0) if packed else bytes(100)
    return (text + f"encoding: {encoding}\n\n").encode() + body


def tiff_bytes(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, height)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, 50)])
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + b"\0" * 64


def jpeg_bytes(width: int, height: int) -> bytes:
    sizes = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc0" + sizes + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(64)


def dicom_bomb(path: Path) -> None:
    save(dicom(np.zeros((2, 2), np.uint16), Rows=65535, Columns=65535, NumberOfFrames=9), path)


BIG = 60_000
BOMBS: dict[str, bytes] = {
    "bomb.png": png_header(BIG, BIG),
    "deep.png": png_header(BIG, BIG, depth=16, color=6),
    "bomb.tif": tiff_bytes(BIG, BIG),
    "bomb.jpg": jpeg_bytes(BIG, BIG),
    "bomb.nii.gz": gzip.compress(nifti_bytes((2000, 2000, 2000)) + bytes(1000), mtime=0),
    "bomb.nii": nifti_bytes((2000, 2000, 2000)),
    "film.nii": nifti_bytes((30000, 30000)),
    "bomb.mha": mha_bytes((2000, 2000, 2000), packed=True),
    "bomb.nrrd": nrrd_bytes((2000, 2000, 2000), packed=True),
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for reader in (read_scan, inspect):
        with pytest.raises(InputError, match=rf"{name}: is too large"):
            reader(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_dicom_bomb(tmp_path: Path):
    dicom_bomb(tmp_path / "bomb.dcm")
    for reader in (read_scan, inspect):
        with pytest.raises(InputError, match=r"bomb\.dcm: is too large"):
            reader(tmp_path / "bomb.dcm")
    meta = dicom(np.zeros((2, 2), np.uint16))
    meta.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    save(meta, tmp_path / "deflated.dcm")
    refused(tmp_path / "deflated.dcm", "deflated DICOM", readers=(read_scan, inspect))


def test_tiff_pieces_that_inflate_beyond_their_place(tmp_path: Path):
    import imagecodecs

    for compression, piece, pattern in (
        (8, zlib.compress(bytes(2**26), 9), "cannot be read as TIFF"),
        (
            7,
            bytes(imagecodecs.jpeg8_encode(np.zeros((3000, 3000), np.uint8))),
            "piece of 3000 x 3000",
        ),
    ):
        tags = [(256, 50), (257, 50), (258, 8), (259, compression), (262, 1), (273, 122)]
        tags += [(277, 1), (278, 50), (279, len(piece))]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
        (tmp_path / "a.tif").write_bytes(head + piece)
        refused(tmp_path / "a.tif", pattern, readers=(read_scan,))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", nifti_bytes((900, 900, 900))),
        ("a.nii.gz", gzip.compress(nifti_bytes((900, 900, 900)) + bytes(1000), mtime=0)),
        ("a.mha", mha_bytes((900, 900, 900))),
        ("b.mha", mha_bytes((900, 900, 900), packed=True)),
        ("a.nrrd", nrrd_bytes((900, 900, 900))),
        ("b.nrrd", nrrd_bytes((900, 900, 900), packed=True)),
        ("a.tif", tiff_bytes(9000, 9000)),
    ],
)
def test_headers_that_promise_more_than_the_file_holds(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "truncated")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png_header(0, 5)),
        ("a.nii", nifti_bytes((0, 5, 5))),
        ("b.nii", nifti_bytes((-3, 5, 5))),
        ("a.mha", mha_bytes((0, 5, 5))),
        ("a.nrrd", nrrd_bytes((5, -5, 5))),
        ("a.tif", tiff_bytes(0, 5)),
    ],
)
def test_images_of_no_size(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_scan(tmp_path / name)
    with pytest.raises(InputError, match=name):
        inspect(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd", "a.tif"])
def test_values_that_are_not_finite(tmp_path: Path, value: float, name: str):
    voxels = np.zeros((4, 5, 6))
    voxels[1, :2, 3] = value
    if name == "a.tif":
        voxels = voxels[1]
        tifffile.imwrite(tmp_path / name, voxels)
    elif name == "a.nii.gz":
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(tmp_path / name))
    pattern = rf"has 2 of {voxels.size} values that are not finite"
    refused(tmp_path / name, pattern, readers=(read_scan, read_label))


def test_affines_that_flatten_space(tmp_path: Path):
    for column in ([0, 0, 0], [1, 0, 0], [np.nan, 0, 1], [np.inf, 0, 1]):
        header = nib.Nifti1Header()
        header.set_data_shape((3, 4, 5))
        header.set_data_dtype(np.uint8)
        header["vox_offset"], header["sform_code"], header["magic"] = 352, 1, b"n+1"
        matrix = np.eye(4)
        matrix[:3, 2] = column
        header["srow_x"], header["srow_y"], header["srow_z"] = matrix[:3]
        (tmp_path / "scan.nii").write_bytes(bytes(header.binaryblock) + bytes(64))
        refused(tmp_path / "scan.nii", "has an affine")


def test_problems_of_sound_files(tmp_path: Path):
    def found(array: np.ndarray) -> list[str]:
        return problems(Scan(array))

    assert found(rng().random((1, 4, 5))) == []
    assert found(np.full((1, 4, 5), 7, np.uint8)) == ["is constant: every value is 7"]
    assert found(np.zeros((1, 1, 1), np.uint8)) == ["is a single pixel"]
    assert found(np.stack([np.zeros((4, 5)), np.eye(4, 5)])) == [
        "channel 0 is constant: every value is 0"
    ]
    holed = np.ones((1, 4, 5), np.float32)
    holed[0, 0, :3] = np.nan, np.inf, -np.inf
    assert found(holed) == ["has 3 of 20 values that are not finite numbers"]
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "dot.png")
    assert problems(read_scan(tmp_path / "dot.png")) == ["is a single pixel"]


def test_names_with_spaces_unicode_and_links(samples: dict[str, Path], tmp_path: Path):
    names = ["a b.nii.gz", "größe 数.nii.gz", "new\nline.nii.gz"]
    for name in names:
        (tmp_path / name).write_bytes(samples["scan.nii.gz"].read_bytes())
        assert read_scan(tmp_path / name).array.shape == (1, 6, 5, 4)
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / names[0])
    assert read_scan(tmp_path / "link.nii.gz").array.shape == (1, 6, 5, 4)
    (tmp_path / names[2]).write_bytes(b"")
    refused(tmp_path / names[2], r"new\\nline")


# ------------------------------------------------------------------------------------------ fuzzing


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cut a file, turn some of its bits over (rather in its header), or both."""
    cut = draw(st.one_of(st.none(), st.floats(0, 1)))
    flips = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=6))
    head = draw(st.booleans())

    def apply(raw: bytes) -> bytes:
        data = bytearray(raw)
        reach = min(len(data), 512) if head else len(data)
        for place, bit in flips:
            data[min(int(place * reach), reach - 1)] ^= 1 << bit
        return bytes(data if cut is None else data[: int(cut * len(data))])

    return apply


NAMES = (
    *("gray.png", "bytes.png", "palette.png", "film.jpg", "progressive.jpg"),
    *("raw.tif", "lzw.tif", "zlib.tif", "packbits.tif", "jpeg.tif", "tiled.tif"),
    *("scan.nii", "scan.nii.gz", "raw.mha", "packed.mha", "raw.nrrd", "packed.nrrd"),
    *("raw.dcm", "rle.dcm", "jpeg2000.dcm", "jpegls.dcm"),
)


def only_input_errors(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    for reader in READERS:
        try:
            result: object = reader(path)
        except InputError as error:
            result = error
        if isinstance(result, InputError):
            assert result.where == str(path)
            assert len(str(result)) < 1500
        elif isinstance(result, Scan):
            assert result.array.ndim in (3, 4)
            assert result.array.size
            assert np.isfinite(result.array).all()


@pytest.mark.parametrize("name", NAMES)
@given(change=damage())
@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_damaged_files_raise_input_errors_only(
    samples: dict[str, Path], tmp_path: Path, name: str, change: Callable[[bytes], bytes]
):
    only_input_errors(tmp_path / name, change(samples[name].read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(change=damage())
@settings(
    max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_many_damaged_files_raise_input_errors_only(
    samples: dict[str, Path], tmp_path: Path, name: str, change: Callable[[bytes], bytes]
):
    only_input_errors(tmp_path / name, change(samples[name].read_bytes()))
