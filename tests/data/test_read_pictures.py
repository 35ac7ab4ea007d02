"""PNG, JPEG and TIFF: every depth and color model comes back as the values that were stored."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from read_samples import png, rng

from radiffuse.data.readers import inspect, read_label, read_scan
from radiffuse.errors import InputError


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_gray_films_keep_values_and_range(tmp_path: Path, dtype: type, top: int, suffix: str):
    film = rng().integers(0, top + 1, (7, 11)).astype(dtype)
    path = tmp_path / f"film{suffix}"
    Image.fromarray(film).save(path)
    scan, header = read_scan(path), inspect(path)
    np.testing.assert_array_equal(scan.array, film[None])
    assert scan.array.dtype == dtype
    assert scan.value_range == header.value_range == (0, top)
    assert (scan.spacing, scan.affine, scan.unit) == (None, None, "gray")
    assert (header.spatial_shape, header.channels, header.dtype) == ((7, 11), 1, np.dtype(dtype))
    np.testing.assert_array_equal(read_label(path).array, film[None])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_png_color_models(tmp_path: Path, mode: str):
    colors = rng(1).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    image = Image.fromarray(colors).convert("L" if mode == "LA" else "RGB").convert(mode)
    path = tmp_path / "film.png"
    image.save(path)
    expected = np.asarray(image.convert("L" if mode == "LA" else "RGB"))
    expected = expected[None] if expected.ndim == 2 else np.moveaxis(expected, -1, 0)
    np.testing.assert_array_equal(read_scan(path).array, expected)
    assert inspect(path).channels == len(expected)


def test_png_of_16_bit_color_keeps_the_low_byte(tmp_path: Path):
    colors = rng(2).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    path = tmp_path / "film.png"
    path.write_bytes(imagecodecs.png_encode(colors))
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.array, np.moveaxis(colors, -1, 0))
    assert scan.value_range == (0, 65535)
    path.write_bytes(imagecodecs.png_encode(np.repeat(colors[..., :1], 3, axis=-1)))
    np.testing.assert_array_equal(read_scan(path).array, colors[None, ..., 0])


@pytest.mark.parametrize(("depth", "stretch"), [(1, 1), (2, 85), (4, 17)])
def test_png_below_8_bit(tmp_path: Path, depth: int, stretch: int):
    values = np.arange(8).reshape(1, 8) % 2**depth
    bits = "".join(f"{v:0{depth}b}" for v in values[0])
    row = int(bits, 2).to_bytes(depth, "big")
    path = tmp_path / "label.png"
    path.write_bytes(png(depth, 0, [row], 8))
    np.testing.assert_array_equal(read_label(path).array[0], values)
    np.testing.assert_array_equal(read_scan(path).array[0], values * stretch)


def test_palette_labels_are_indices_and_palette_films_are_colors(tmp_path: Path):
    indices = rng(3).integers(0, 4, (6, 5)).astype(np.uint8)
    image = Image.frombytes("P", (5, 6), indices.tobytes())
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png").array[0], indices)
    assert read_scan(tmp_path / "a.png").array.shape == (3, 6, 5)
    colors = (rng(4).integers(0, 256, (3, 256)) * 257).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colors)
    np.testing.assert_array_equal(read_label(tmp_path / "a.tif").array[0], indices)
    np.testing.assert_array_equal(
        read_scan(tmp_path / "a.tif").array, (colors >> 8)[:, indices].astype(np.uint8)
    )


def test_rgb_labels_only_where_all_channels_agree(tmp_path: Path):
    values = rng(5).integers(0, 3, (6, 5)).astype(np.uint8)
    gray = np.repeat(values[..., None], 3, axis=-1)
    Image.fromarray(gray).save(tmp_path / "same.png")
    np.testing.assert_array_equal(read_label(tmp_path / "same.png").array[0], values)
    gray[0, 0, 1] += 1
    Image.fromarray(gray).save(tmp_path / "color.png")
    with pytest.raises(InputError, match=r"color\.png.*in color"):
        read_label(tmp_path / "color.png")


def test_gray_jpeg_stored_as_rgb_becomes_one_channel(tmp_path: Path):
    ramp = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    path = tmp_path / "film.jpg"
    Image.fromarray(np.repeat(ramp[..., None], 3, axis=-1)).save(path, quality=80)
    scan = read_scan(path)
    assert scan.array.shape == (1, 32, 48)
    assert np.abs(scan.array[0].astype(int) - ramp).max() < 8
    tinted = np.stack([ramp, ramp, ramp + 3], axis=-1)  # what rounding of chroma leaves
    Image.fromarray(tinted).save(path, quality=95)
    assert read_scan(path).array.shape == (1, 32, 48)
    tinted[:8, :8] = [255, 0, 0]  # a red mark stays color
    Image.fromarray(tinted).save(path, quality=95)
    assert read_scan(path).array.shape == (3, 32, 48)


def test_jpeg_labels_and_cmyk_are_refused(tmp_path: Path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "label.jpg")
    with pytest.raises(InputError, match=r"label\.jpg.*smears label values.*PNG"):
        read_label(tmp_path / "label.jpg")
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    with pytest.raises(InputError, match="color model CMYK"):
        read_scan(tmp_path / "print.jpg")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "lzma"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_color_in_every_layout(tmp_path: Path, compression: str | None, planar: str):
    colors = rng(6).integers(0, 65536, (20, 17, 3)).astype(np.uint16)
    stored = colors if planar == "contig" else np.moveaxis(colors, -1, 0)
    path = tmp_path / "film.tif"
    tifffile.imwrite(
        path,
        stored,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        rowsperstrip=6,
    )
    np.testing.assert_array_equal(read_scan(path).array, np.moveaxis(colors, -1, 0))


def test_tiff_tiles_floats_bits_and_byte_orders(tmp_path: Path):
    path = tmp_path / "film.tif"
    reals = rng(7).normal(size=(40, 50)).astype(np.float32)
    tifffile.imwrite(path, reals, tile=(16, 16), byteorder=">", compression="zlib")
    np.testing.assert_array_equal(read_scan(path).array[0], reals)
    assert read_scan(path).value_range is None
    bits = rng(8).random((9, 13)) > 0.5
    tifffile.imwrite(path, bits, photometric="minisblack")
    np.testing.assert_array_equal(read_label(path).array[0], bits)
    shorts = rng(9).integers(-500, 500, (9, 13)).astype(">i2")
    tifffile.imwrite(path, shorts, byteorder=">")
    np.testing.assert_array_equal(read_scan(path).array[0], shorts)


def test_tiff_white_is_zero_is_turned_over(tmp_path: Path):
    film = rng(10).integers(0, 65536, (8, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "film.tif", film, photometric="miniswhite")
    scan = read_scan(tmp_path / "film.tif")
    np.testing.assert_array_equal(scan.array[0], 65535 - film)
    assert scan.array.dtype == np.uint16
    with pytest.raises(InputError, match="white-is-zero"):
        read_label(tmp_path / "film.tif")


def test_tiff_alpha_is_dropped_and_pages_are_refused(tmp_path: Path):
    values = rng(11).integers(0, 256, (8, 9, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(
        read_scan(tmp_path / "a.tif").array, np.moveaxis(values[..., :3], -1, 0)
    )
    pages = np.zeros((3, 30, 40), np.uint8)
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", pages, imagej=True)
    for name in ("pages.tif", "imagej.tif"):
        for reader in (read_scan, inspect):
            with pytest.raises(InputError, match=f"{name}: has several pages"):
                reader(tmp_path / name)


def test_tiff_preview_pages_are_ignored(tmp_path: Path):
    film = rng(12).integers(0, 256, (40, 40)).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "film.tif") as file:
        file.write(film, photometric="minisblack")
        file.write(film[::4, ::4], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(read_scan(tmp_path / "film.tif").array[0], film)


def test_picture_suffixes_may_lie_within_their_family(tmp_path: Path):
    film = rng(13).integers(0, 256, (8, 9)).astype(np.uint8)
    Image.fromarray(film).save(tmp_path / "film.jpg", format="PNG")
    np.testing.assert_array_equal(read_scan(tmp_path / "film.jpg").array[0], film)
    assert inspect(tmp_path / "film.jpg").format == "png"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("colors", "refused"), [((255, 0), True), ((0, 255), False)])
def test_a_palette_whose_black_is_not_zero_is_no_label_map(tmp_path, suffix, colors, refused):
    indices, path = np.array([[0, 1], [1, 1]], np.uint8), tmp_path / f"a{suffix}"
    if suffix == ".png":
        image = Image.fromarray(indices, "P")
        image.putpalette([channel for color in colors for channel in (color, 0, 0)])
        image.save(path)
    else:
        table = np.zeros((3, 256), np.uint16)
        table[0, :2] = np.array(colors) * 257
        tifffile.imwrite(path, indices, photometric="palette", colormap=table)
    if refused:
        with pytest.raises(InputError, match="whose black, the background, has the number 1"):
            read_label(path)
    else:
        assert read_label(path).array.tolist() == [indices.tolist()]
