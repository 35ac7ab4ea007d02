"""The formats that are read, and which of them a file holds.

The first bytes of a file decide; its suffix must be of the same family.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError


@dataclass(frozen=True)
class Format:
    """A format that is read.

    Attributes:
        title: For messages.
        reader: Module of this package with ``read_header(path)`` and ``read(path, label=...)``.
        family: Formats of one family may have each other's suffixes.
        suffixes: In lower case.
        holds: Whether a file that begins with these bytes is of this format.
    """

    title: str
    reader: str
    family: str
    suffixes: tuple[str, ...]
    holds: Callable[[bytes], bool]


def _begins(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(marks)


def _is_nifti(head: bytes) -> bool:
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(31).decompress(head, 1024)
        except zlib.error:
            return False
    # "ni1" is the two-file form (.hdr and .img), which the reader refuses
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _is_metaimage(head: bytes) -> bool:
    keys = {line.partition(b"=")[0].strip() for line in head.split(b"\n")[:8]}
    return bool(keys & {b"ObjectType", b"NDims"})


def _is_dicom(head: bytes) -> bool:
    """With the preamble; or without, beginning with an element of group 2 or 8, which the reader refuses by name."""
    if head[128:132] == b"DICM" or not re.match(
        rb"[\2\x08]\0[\0-\2\5\x08\x10\x12\x16\x18]\0", head
    ):
        return head[128:132] == b"DICM"
    length = int.from_bytes(head[4:8], "little")  # where the type of the element is not written
    text = head[8 : 8 + length].rstrip(b"\0 ").decode("latin-1")
    implicit = (
        length == 4 if head[2] == 0 else 0 < length < 128 and text.isascii() and text.isprintable()
    )
    return implicit or head[4:6] in (b"UL", b"CS", b"UI", b"OB")


FORMATS = {
    "dicom": Format("DICOM", "dicom", "dicom", (".dcm",), _is_dicom),
    "png": Format("PNG", "png", "picture", (".png",), _begins(b"\x89PNG\r\n\x1a\n")),
    "jpeg": Format("JPEG", "jpeg", "picture", (".jpg", ".jpeg"), _begins(b"\xff\xd8\xff")),
    "tiff": Format(
        *("TIFF", "tiff", "picture", (".tif", ".tiff")),
        _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ),
    "nrrd": Format("NRRD", "nrrd", "volume", (".nrrd", ".nhdr"), _begins(b"NRRD000")),
    "nifti": Format("NIfTI", "nifti", "volume", (".nii", ".nii.gz"), _is_nifti),
    "metaimage": Format(
        "MetaImage (MHA, MHD)", "metaimage", "volume", (".mha", ".mhd"), _is_metaimage
    ),
}
"""By ``Header.format``; the first one that recognizes a file reads it."""

_FAMILIES = {suffix: row.family for row in FORMATS.values() for suffix in row.suffixes}

SUFFIXES = tuple(_FAMILIES)
"""Suffixes that are read, in lower case; DICOM needs none."""
UNREADABLE = "may not be read by this user", "Change its permissions"


def suffix_of(path: Path) -> str:
    """The suffix in lower case; ``".nii.gz"`` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's magic bytes, whatever its name. Never raises."""
    try:
        return FORMATS["dicom"].holds(first_bytes(path))
    except InputError:
        return False


def first_bytes(path: Path) -> bytes:
    """The first 4 KiB of a file.

    Raises:
        InputError: It is missing, empty, a broken link, a folder or device, or may not be read.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(path, "is a folder, not an image", "Give the file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(path, "is not an ordinary file", "Give an image file")
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        if os.path.islink(path):
            problem = f"is a link to {os.readlink(path)}, which does not exist"
            raise InputError(path, problem, "Mend or remove the link") from None
        raise InputError(path, "does not exist", "Check the path") from None
    except PermissionError:
        raise InputError(path, *UNREADABLE) from None
    except (OSError, ValueError) as error:
        problem = f"cannot be opened ({getattr(error, 'strerror', None) or error})"
        raise InputError(path, problem, "Check path, permissions and disk") from None
    if not head:
        raise InputError(path, "is empty (0 bytes)", "Export the file again, or leave it out")
    return head


def detect(path: Path) -> str:
    """The format of a file, a key of ``FORMATS``.

    Raises:
        InputError: The file is unreadable, of no known format, or has another family's suffix.
    """
    head, suffix = first_bytes(path), suffix_of(path)
    family = _FAMILIES.get(suffix)
    format = next((name for name, row in FORMATS.items() if row.holds(head)), None)
    if format is None:
        named = f"is named {suffix} but " if family else ""
        titles = ", ".join(row.title for row in FORMATS.values())
        problem = f"{named}holds none of the known formats ({titles})"
        raise InputError(path, problem, "Convert it, or leave it out")
    if family not in (None, FORMATS[format].family):
        problem = f"is named {suffix} but holds {FORMATS[format].title}"
        raise InputError(path, problem, "Give it the suffix of its format")
    return format
