"""Walking through a folder: which files are images, passed over, or refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ..issues import Issues
from ..readers import SUFFIXES
from ..readers import is_dicom as holds_dicom

PASSED_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "__pycache__"}
PASSED_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "dicomdir"}
SIDECARS = {
    *(".md", ".rst", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html"),
    *(".pdf", ".parquet", ".xlsx", ".py", ".sh", ".log", ".toml", ".cff", ".bib", ".raw", ".zraw"),
}
"""Companions of images; ``.raw`` belongs to an ``.mhd``."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split by its usual names in folders and tables."""

_KNOWN: ContextVar[dict[Path, Listing] | None] = ContextVar("walked folders", default=None)
_LONGEST_FIRST = sorted({*SUFFIXES, *DICOM_SUFFIXES}, key=len, reverse=True)
_LINK_REMEDY = "Copy the file in its place, or give the folder that holds both"


@dataclass
class Listing:
    """The files below a folder by relative path, sorted: images, others but companions, and faults."""

    images: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    issues: Issues = field(default_factory=Issues)


def image_suffix(name: str) -> str:
    """The suffix of a readable format, such as ``.nii.gz``, or ''."""
    lowered = name.lower()
    return next((s for s in _LONGEST_FIRST if lowered.endswith(s) and len(name) > len(s)), "")


def stem(path: PurePosixPath | Path | str) -> str:
    """File name without the suffix of a readable format: ``a`` for ``a.nii.gz``, but ``1.2.3``."""
    name = PurePosixPath(path).name
    suffix = image_suffix(name)
    return name[: -len(suffix)] if suffix else name


def key(path: PurePosixPath) -> str:
    """Path without the suffix of its format, which matches an image with its label."""
    return (path.parent / stem(path)).as_posix()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by suffix, or by its magic bytes where it has no known suffix."""
    name = path.name.lower()
    if name.endswith(DICOM_SUFFIXES):
        return True
    if image_suffix(name) or path.suffix.lower() in SIDECARS:
        return False
    return holds_dicom(path)


def own_folder(path: Path) -> str:
    """What kind of folder of radiffuse this is, such as "a run of radiffuse", or ''."""
    if not path.is_dir():
        return ""
    names = set(os.listdir(path))
    if "config.yaml" in names and names & {"plan.json", "log.jsonl", "model", "state"}:
        return "a run of radiffuse"
    if "rows.jsonl" in names:
        return "a folder of arrays that radiffuse prepared"
    return ""


def walk(root: Path) -> Listing:
    """List a folder and everything below it; an empty listing where ``root`` is no folder.

    Hidden files, system files, companions of images and run folders are passed over. Links that lead
    out of the folder are refused: what is checked and hashed must lie inside.

    Raises:
        InputError: The folder itself cannot be listed.
    """
    known = _KNOWN.get()
    if known is None:
        return _walk(root)
    if root not in known:
        known[root] = _walk(root)
    return known[root]


@contextmanager
def walked_once() -> Iterator[None]:
    """Within the block each folder is walked once, for all layouts."""
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _walk(root: Path) -> Listing:
    listing = Listing()
    if not root.is_dir():
        return listing
    home = root.resolve()
    unreadable: list[OSError] = []
    for top, folders, files in os.walk(root, onerror=unreadable.append):
        here = Path(top)
        folders[:] = sorted(name for name in folders if _enter(here / name, home, listing.issues))
        for name in sorted(files):
            if not name.startswith(".") and name.lower() not in PASSED_FILES:
                _sort_in(here / name, root, home, listing)
    for error in unreadable:
        where, problem = Path(error.filename or root), f"cannot be listed ({error.strerror})"
        if where == root:
            raise InputError(root, problem, "Grant read access")
        listing.issues.error(where, problem, "Grant read access")
    listing.images.sort(key=lambda path: path.parts)  # as paths compare, but much faster
    listing.others.sort(key=lambda path: path.parts)
    return listing


def _enter(folder: Path, home: Path, issues: Issues) -> bool:
    if folder.name.startswith(".") or folder.name.lower() in PASSED_FOLDERS:
        return False
    if folder.is_symlink():
        problem = _link_problem(folder, home) or "is a link to another folder in the same data set"
        issues.error(folder, problem, _LINK_REMEDY.replace("the file", "the folder"))
        return False
    return not own_folder(folder)


def _sort_in(path: Path, root: Path, home: Path, listing: Listing) -> None:
    known = bool(image_suffix(path.name))
    if not known and path.suffix.lower() in SIDECARS:
        return
    if path.is_symlink() and (problem := _link_problem(path, home)):
        listing.issues.error(path, problem, _LINK_REMEDY)
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        listing.issues.error(path, problem, "Grant read access or remove it")
        return
    if not stat.S_ISREG(mode):
        listing.issues.error(path, "is not a regular file", "Remove it")
        return
    kind = listing.images if known or is_dicom(path) else listing.others
    kind.append(PurePosixPath(path.relative_to(root).as_posix()))


def _link_problem(path: Path, home: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a broken link"
    return "" if target.is_relative_to(home) else "is a link that leads out of the data folder"


def inside(root: Path, reference: str, where: str) -> Path:
    """The file below ``root`` that a table or JSON file (``where``, for messages) refers to.

    ``reference`` is a relative path with slashes, or backslashes of Windows.

    Raises:
        InputError: It is empty, leads out of ``root``, or no such file is there.
    """
    text = reference.strip()
    if not text or not text.isprintable():
        raise InputError(where, f"names no file ({text!r})", "Give a path relative to the folder")
    path = root / text
    if "\\" in text and not os.path.exists(path):  # os.path takes names of any length
        path = root / text.replace("\\", "/")
    if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
        problem = f"{text!r} leads out of {root}"
        raise InputError(where, problem, "Give paths below the data folder only, without ..")
    try:
        exists = path.is_file() or path.is_symlink()
    except OSError:  # a name longer than the file system allows
        exists = False
    if not exists:
        raise InputError(where, f"{text!r} does not exist below {root}", "Correct or drop the path")
    if problem := _link_problem(path, root.resolve()):
        raise InputError(path, problem, _LINK_REMEDY)
    return path
