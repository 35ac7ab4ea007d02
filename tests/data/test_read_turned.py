"""Pictures that their tags ask to turn, and masks in the alpha channel: refused by name, never read as they lie."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from read_samples import png_chunk, rng

from conftest import line_of
from radiffuse.data.readers import inspect, read_label, read_scan
from radiffuse.errors import InputError

FILM = 200 * rng(3).integers(0, 2, (6, 9)).astype(np.uint8)


def write(path: Path, orientation: int | None, film: np.ndarray = FILM) -> Path:
    """A picture with the tag; Pillow, the oracle, turns it by ``exif_transpose``."""
    if path.suffix == ".tif":
        tags = [] if orientation is None else [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, film, extratags=tags)
        return path
    exif = Image.Exif()
    if orientation is not None:
        exif[274] = orientation
    Image.fromarray(film).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_turned_pictures_are_refused(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = write(tmp_path / f"film{suffix}", orientation)
    with Image.open(path) as image:
        turned = np.asarray(ImageOps.exif_transpose(image))
        assert turned.shape != FILM.shape or ((turned > 99) != (FILM > 99)).any()
    readers = (read_scan, inspect) if suffix == ".jpg" else (read_scan, inspect, read_label)
    for reader in readers:
        with pytest.raises(InputError, match=rf"film\{suffix}: .*orientation {orientation}\)"):
            reader(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 9])
def test_upright_pictures_and_senseless_tags_are_read(
    tmp_path: Path, suffix: str, orientation: int | None
) -> None:
    scan = read_scan(write(tmp_path / f"film{suffix}", orientation))
    assert scan.spatial_shape == FILM.shape
    assert suffix == ".jpg" or np.array_equal(scan.array[0], FILM)


def test_the_tag_is_found_wherever_a_png_keeps_it(tmp_path: Path) -> None:
    write(tmp_path / "film.png", 6)
    with Image.open(tmp_path / "film.png") as image:
        exif = image.info["exif"].removeprefix(b"Exif\0\0")
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    for body in (
        png_chunk(b"eXIf", exif),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        png_chunk(
            b"zTXt",
            b"Raw profile type exif\0\0"
            + zlib.compress(
                b"\nexif\n%8d\n" % (len(exif) + 6) + (b"Exif\0\0" + exif).hex().encode()
            ),
        ),
    ):
        for deep in (False, True):
            pixels = np.repeat(FILM[..., None], 3, -1).astype(np.uint16) if deep else FILM
            plain = imagecodecs.png_encode(pixels)
            end = plain.rindex(b"IEND") - 4
            for content in (plain[:33] + body + plain[33:], plain[:end] + body + plain[end:]):
                (tmp_path / "film.png").write_bytes(content)
                with pytest.raises(InputError, match="orientation"):
                    read_scan(tmp_path / "film.png")


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    plain = imagecodecs.png_encode(FILM)
    body = png_chunk(b"eXIf", b"II*\0" + struct.pack("<I", 2**31) + b"junk")
    (tmp_path / "film.png").write_bytes(plain[:33] + body + plain[33:])
    np.testing.assert_array_equal(read_scan(tmp_path / "film.png").array[0], FILM)


def test_outlines_on_turned_photographs_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.jpg", 3, rng(i).integers(0, 200, (40, 64)).astype(np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 40} for i in range(4)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[28, 10, 46, 10, 46, 25]]}
            for i in range(4)
        ],
        "categories": [{"id": 1, "name": "lesion"}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    for arguments in (
        ["fit", str(tmp_path), "--method", "scratch", "--out", str(tmp_path / "run")],
        ["pretrain", str(tmp_path), "--out", str(tmp_path / "pre")],
    ):
        assert "orientation 3" in line_of(arguments, capsys)


def mask(colors: int, foreground: int, depth: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    """A square in the alpha channel, and color channels that say ``foreground`` everywhere."""
    alpha = np.zeros((8, 8), depth)
    alpha[2:6, 2:6] = np.iinfo(depth).max
    return np.full((8, 8, colors), foreground, depth), alpha


def store(path: Path, colors: np.ndarray, alpha: np.ndarray) -> Path:
    pixels = np.concatenate([colors, alpha[..., None]], axis=-1)
    if path.suffix == ".tif":
        kind = "rgb" if pixels.shape[-1] == 4 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=kind, planarconfig="contig", extrasamples=[2])
    else:
        path.write_bytes(imagecodecs.png_encode(pixels))
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colors", [1, 3])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_masks_in_the_alpha_channel_are_refused(
    tmp_path: Path, suffix: str, colors: int, depth: type
) -> None:
    path = tmp_path / f"mask{suffix}"
    for foreground in (0, 1, 255):
        store(path, *mask(colors, foreground, depth))
        with pytest.raises(InputError, match=rf"mask\{suffix}: has its mask in the alpha channel"):
            read_label(path)
    gray, alpha = mask(colors, 1, depth)
    gray[0, 0] = 0  # not flat, but what it shows and what it holds differ
    with pytest.raises(InputError, match="alpha channel"):
        read_label(store(path, gray, alpha))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colors", [1, 3])
def test_masks_that_agree_with_their_alpha_channel_are_read(
    tmp_path: Path, suffix: str, colors: int
) -> None:
    gray, alpha = mask(colors, 1)
    gray[alpha == 0] = 0
    path = tmp_path / f"mask{suffix}"
    for values in (alpha, np.full_like(alpha, 255), np.zeros_like(alpha)):
        label = read_label(store(path, gray, values))
        np.testing.assert_array_equal(label.array[0], gray[..., 0])
