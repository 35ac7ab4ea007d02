"""Which format a file holds. Its first bytes decide; its suffix must be of the same family."""

from __future__ import annotations

import os
import stat
import zlib
from pathlib import Path

from ...errors import InputError
from .common import FORMATS

_FAMILY_OF_SUFFIX = {
    ".png": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".dcm": "dicom",
    ".nii": "volume",
    ".nii.gz": "volume",
    ".mha": "volume",
    ".mhd": "volume",
    ".nrrd": "volume",
    ".nhdr": "volume",
}
_FAMILY_OF_FORMAT = {
    "png": "picture",
    "jpeg": "picture",
    "tiff": "picture",
    "dicom": "dicom",
    "nifti": "volume",
    "metaimage": "volume",
    "nrrd": "volume",
}
_HEAD = 4096

SUFFIXES = tuple(_FAMILY_OF_SUFFIX)
"""Suffixes of files that can be read, in lower case. DICOM needs none, see ``is_dicom``."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case; ``".nii.gz"`` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def is_dicom(path: Path) -> bool:
    """Whether an ordinary file carries DICOM's mark, whatever its name. Never raises."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and _first_bytes(path)[128:132] == b"DICM"
    except (OSError, ValueError):
        return False


def check_file(path: Path) -> None:
    """Refuse what is not a readable, ordinary, non-empty file.

    Raises:
        InputError: For a missing file, broken link, folder, device, empty file, or one without
            permission.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            problem = f"is a link to {os.readlink(path)}, which does not exist"
            raise InputError(path, problem, "Mend or remove the link") from None
        raise InputError(path, "does not exist", "Check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            path, f"cannot be opened ({reason})", "Check path and permissions"
        ) from None
    if stat.S_ISDIR(info.st_mode):
        raise InputError(path, "is a folder, not an image", "Give the file inside it")
    if not stat.S_ISREG(info.st_mode):
        raise InputError(path, "is not an ordinary file", "Give an image file")
    if info.st_size == 0:
        raise InputError(
            path, "is empty (0 bytes)", "Copy or export the file again, or leave it out"
        )


def detect(path: Path) -> str:
    """The format of a file, from its first bytes.

    Returns:
        A key of ``FORMATS``.

    Raises:
        InputError: Where the file cannot be used, holds no known format, or lies about its kind.
    """
    check_file(path)
    try:
        head = _first_bytes(path)
    except PermissionError:
        raise InputError(path, "may not be read by this user", "Change its permissions") from None
    except OSError as error:
        raise InputError(path, f"cannot be opened ({error.strerror})", "Check the disk") from None
    suffix = suffix_of(path)
    format = _format_of(head)
    if format is None:
        named = f"is named {suffix} but " if suffix in _FAMILY_OF_SUFFIX else ""
        problem = f"{named}holds none of the known formats ({', '.join(FORMATS.values())})"
        raise InputError(path, problem, "Convert it, or leave it out")
    family = _FAMILY_OF_SUFFIX.get(suffix)
    if family not in (None, _FAMILY_OF_FORMAT[format]):
        problem = f"is named {suffix} but holds {FORMATS[format]}"
        raise InputError(path, problem, "Rename it to what it is")
    return format


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _format_of(head: bytes) -> str | None:
    if head[:2] == b"\x1f\x8b":
        return "nifti" if _is_nifti(_inflate(head)) else None
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"NRRD000"):
        return "nrrd"
    if _is_nifti(head):
        return "nifti"
    lines = head.split(b"\n")[:8]
    if any(line.partition(b"=")[0].strip() in (b"ObjectType", b"NDims") for line in lines):
        return "metaimage"
    return None


def _is_nifti(head: bytes) -> bool:
    # "ni1" is the two-file form (.hdr and .img); its reader says so.
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def _inflate(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(head, 1024)
    except zlib.error:
        return b""
