"""Small files that ask for much memory: each is refused in one line, before the memory is taken."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmwrite
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLossless
from read_samples import dicom, save

from radiffuse.data import tables
from radiffuse.data.layouts import survey
from radiffuse.data.readers import dicomfile, inspect, read_scan
from radiffuse.data.readers.codestream import frame_shape
from radiffuse.errors import InputError

ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
MANY = 100_000
"""Items; pydicom makes 0.8 GB of these 0.8 MB."""


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def with_element(path: Path, tag: tuple[int, int], body: bytes, length: int) -> None:
    """A file with one more sequence before its pixels, written by hand."""
    save(dicom(np.ones((4, 4), np.uint8)), path)
    content = path.read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00")
    path.write_bytes(content[:at] + struct.pack("<HH2sHI", *tag, b"SQ", 0, length) + body + content[at:])  # fmt: skip


def undefined(path: Path, tag: tuple[int, int]) -> None:
    with_element(path, tag, ITEM * MANY + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF)


def deflated(path: Path) -> None:
    small = dicom(np.zeros((4, 4), np.uint8))
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dcmwrite(path, small, enforce_file_format=True)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = b"".join(packer.compress(bytes(2**24)) for _ in range(12)) + packer.flush()
    start = path.read_bytes()
    at = start.index(b"1.2.840.10008.1.2.1.99")
    path.write_bytes(start[: at + 22] + zeros)


def frames(path: Path, syntax: str = "") -> None:
    data = dicom(np.ones((1, 1), np.uint8), NumberOfFrames=2_000_000_000)
    if syntax:
        data.file_meta.TransferSyntaxUID = UID(syntax)
        data.PixelData = encapsulate([b"\0" * 64])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    save(data, path)


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "deflated": (deflated, "is a deflated DICOM file"),
    "private-items": (lambda path: undefined(path, (0x0029, 0x1010)), "has more than 1,000 items"),
    "frame-items": (lambda path: undefined(path, (0x5200, 0x9230)), "has more than 1,000 items"),
    "items-in-bytes": (
        lambda path: with_element(path, (0x5200, 0x9230), ITEM * MANY, 8 * MANY),
        "has more than 1,000 items",
    ),
    "frames": (frames, "announces 2,000,000,000 frames"),
    "frames-rle": (lambda path: frames(path, "1.2.840.10008.1.2.5"), "announces 2,000,000,000"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_dicom_in_a_folder_and_alone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomfile, "MOST_ITEMS", 1000)
    make, words = BOMBS[name]
    path = tmp_path / "a.dcm"
    make(path)
    assert path.stat().st_size < 2e6
    readers: list[Callable[[Path], object]] = [read_scan, inspect]
    if name in ("deflated", "private-items", "frame-items"):  # the others are not read for a list
        readers.append(survey)
    with little_memory():
        for reader in readers:
            with pytest.raises(InputError, match=rf"a\.dcm: {words}"):
                reader(path.parent if reader is survey else path)


JPEG = b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB", 11, 8, 16000, 16000, 1) + b"\1\x11\0\xff\xda"
SIZE = struct.pack(">HHIIII", 41, 0, 16000, 16000, 0, 0)
J2K = b"\xff\x4f\xff\x51" + SIZE + bytes(64)
FALSE = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 4, 4, 0, 0)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


BOXED = box(b"jP  ", b"\r\n\x87\n") + box(b"free", FALSE) + box(b"jp2c", J2K)


@pytest.mark.parametrize(
    ("syntax", "frame", "words"),
    [
        (JPEGLossless, JPEG, "16000 x 16000"),
        (JPEGLossless, JPEG[:2] + b"\0\0" + JPEG[2:], "unknown size"),
        (JPEG2000Lossless, J2K, "16000 x 16000"),
        (JPEG2000Lossless, BOXED, "16000 x 16000"),
        (JPEG2000Lossless, bytes(8) + FALSE + J2K, "unknown size"),
    ],
    ids=["jpeg", "jpeg-behind-zeros", "jpeg2000", "jpeg2000-in-boxes", "jpeg2000-behind-a-false-one"],
)  # fmt: skip
@pytest.mark.parametrize("extended", [False, True])
def test_a_compressed_frame_cannot_hide_its_size(
    tmp_path: Path, syntax: UID, frame: bytes, words: str, extended: bool
) -> None:
    data = dicom(np.ones((4, 4), np.uint8))
    data.file_meta.TransferSyntaxUID = syntax
    if extended:
        found = encapsulate_extended([frame])
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = found
    else:
        data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    save(data, tmp_path / "a.dcm")
    with little_memory(), pytest.raises(InputError, match=rf"frame of {words}"):
        read_scan(tmp_path / "a.dcm")


def test_sizes_of_codestreams() -> None:
    assert frame_shape(box(b"jP  ", b"\r\n\x87\n") + box(b"jp2c", FALSE)) == (4, 4)
    assert frame_shape(FALSE) == (4, 4)
    assert frame_shape(box(b"jP  ", b"\r\n\x87\n") + struct.pack(">I", 1) + b"free") is None


def test_a_jpeg_hidden_in_a_tiff(tmp_path: Path) -> None:
    import imagecodecs

    piece = bytes(imagecodecs.jpeg8_encode(np.zeros((3000, 3000), np.uint8)))
    at = piece.index(b"\xff\xc0")
    piece = piece[:at] + b"\0\0" + piece[at:]  # libjpeg skips what stands between markers
    tags = [(256, 50), (257, 50), (258, 8), (259, 7), (262, 1), (273, 122), (277, 1), (278, 50)]
    entries = b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in [*tags, (279, len(piece))])
    head = b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + piece)
    with pytest.raises(InputError, match="piece of unknown size"):
        read_scan(tmp_path / "a.tif")


def test_tables_that_unfold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of a data set: a long text, many empty lines, and one word of Parquet in all rows."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(tables, "MOST_TEXT", 2**22)
    monkeypatch.setattr(tables, "MOST_CELLS", 2**14)
    texts = {"long": b"image,class\n" + b"x" * 2**23, "empty": b"image,class\n" + b"\n" * 2**20}
    for name, text in texts.items():
        (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(text))
    column = pyarrow.array(["x" * 2**16] * 4000).dictionary_encode()
    parquet.write_table(pyarrow.table({"image": column}), tmp_path / "words.parquet")
    many = pyarrow.array(np.zeros(2**20, np.int8))
    parquet.write_table(pyarrow.table({"image": many}), tmp_path / "rows.parquet")
    with little_memory():
        for path in tmp_path.iterdir():
            assert path.stat().st_size < 2e5
            with pytest.raises(InputError, match=rf"{path.name}: (is too large|unfolds to)"):
                tables.read_table(path)
