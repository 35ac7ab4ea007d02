"""Walking through a folder: which files are images, which are passed over, which are refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ..issues import Issue
from ..readers import SUFFIXES

PASSED_FOLDERS = {"__macosx", "$recycle.bin", "system volume information", "__pycache__"}
PASSED_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "dicomdir"}
SIDECARS = {
    *(".md", ".rst", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html"),
    *(".pdf", ".parquet", ".xlsx", ".py", ".sh", ".log", ".toml", ".cff", ".bib", ".raw", ".zraw"),
}
"""Files beside images that say something about them; ``.raw`` belongs to its ``.mhd``."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""Words for a split, in folder names and tables, and what they are here."""

_KNOWN: ContextVar[dict[Path, Listing] | None] = ContextVar("walked folders", default=None)
_LONGEST_FIRST = sorted({*SUFFIXES, *DICOM_SUFFIXES}, key=len, reverse=True)
_LINK_REMEDY = "Copy the file in its place, or give the folder that holds both"


@dataclass
class Listing:
    """The files below a folder, by their paths relative to it, sorted.

    Attributes:
        images: Files of a format the readers know, by suffix (or by content, for DICOM without
            one).
        others: Files that are neither an image nor a usual companion of images.
        issues: Links and files that were refused.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)


def image_suffix(name: str) -> str:
    """The suffix of a format the readers know, such as ``.nii.gz``, or ''."""
    lowered = name.lower()
    return next((s for s in _LONGEST_FIRST if lowered.endswith(s) and len(name) > len(s)), "")


def stem(path: PurePosixPath | Path | str) -> str:
    """File name without the suffix of its format (``a.nii.gz`` becomes ``a``, ``1.2.3`` stays)."""
    name = PurePosixPath(path).name
    suffix = image_suffix(name)
    return name[: -len(suffix)] if suffix else name


def key(path: PurePosixPath) -> str:
    """Path without the suffix of its format: what matches an image with its label."""
    return (path.parent / stem(path)).as_posix()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by suffix, or by its magic bytes where it has no known suffix."""
    name = path.name.lower()
    if name.endswith(DICOM_SUFFIXES):
        return True
    if image_suffix(name) or path.suffix.lower() in SIDECARS:
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def own_folder(path: Path) -> str:
    """What a folder that radiffuse itself wrote is, such as "a run of radiffuse", or ''."""
    if not path.is_dir():
        return ""
    names = {entry.name for entry in os.scandir(path)}
    if "config.yaml" in names and names & {"plan.json", "log.jsonl", "model", "state"}:
        return "a run of radiffuse"
    if "rows.jsonl" in names:
        return "a folder of arrays that radiffuse prepared"
    return ""


def walk(root: Path) -> Listing:
    """List a folder and everything below it.

    Hidden files, system litter and companions of images are passed over, as are run folders. Links
    that lead out of the folder are refused: what is checked, split and hashed must be what lies
    there.

    Raises:
        InputError: The folder itself cannot be listed.
    """
    known = _KNOWN.get()
    if known is None:
        return _walk(root)
    if root not in known:
        known[root] = _walk(root)
    found = known[root]
    return Listing(list(found.images), list(found.others), list(found.issues))


@contextmanager
def walked_once() -> Iterator[None]:
    """Within it a folder is walked once, however many layouts look at it."""
    token = _KNOWN.set({})
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _walk(root: Path) -> Listing:
    listing = Listing()
    home = root.resolve()
    unreadable: list[OSError] = []
    for top, folders, files in os.walk(root, onerror=unreadable.append):
        here = Path(top)
        folders[:] = sorted(name for name in folders if _enter(here / name, home, listing))
        for name in sorted(files):
            if name.startswith(".") or name.lower() in PASSED_FILES:
                continue
            _sort_in(here / name, root, home, listing)
    for error in unreadable:
        where = str(error.filename or root)
        issue = Issue("error", where, f"cannot be listed ({error.strerror})", "Grant read access")
        if Path(where) == root:
            raise InputError(issue.where, issue.problem, issue.remedy)
        listing.issues.append(issue)
    listing.images.sort(key=lambda path: path.parts)  # as paths compare, but much faster
    listing.others.sort(key=lambda path: path.parts)
    return listing


def _enter(folder: Path, home: Path, listing: Listing) -> bool:
    if folder.name.startswith(".") or folder.name.lower() in PASSED_FOLDERS:
        return False
    if folder.is_symlink():
        problem = _link_problem(folder, home) or "is a link to another folder in the same data set"
        remedy = _LINK_REMEDY.replace("the file", "the folder")
        listing.issues.append(Issue("error", str(folder), problem, remedy))
        return False
    return not own_folder(folder)


def _sort_in(path: Path, root: Path, home: Path, listing: Listing) -> None:
    relative = PurePosixPath(path.relative_to(root).as_posix())
    known = bool(image_suffix(path.name))
    if not known and path.suffix.lower() in SIDECARS:
        return
    if path.is_symlink() and (problem := _link_problem(path, home)):
        listing.issues.append(Issue("error", str(path), problem, _LINK_REMEDY))
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        listing.issues.append(Issue("error", str(path), problem, "Grant read access or remove it"))
        return
    if not stat.S_ISREG(mode):
        listing.issues.append(Issue("error", str(path), "is not a regular file", "Remove it"))
    elif known or is_dicom(path):
        listing.images.append(relative)
    else:
        listing.others.append(relative)


def _link_problem(path: Path, home: Path) -> str:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "is a broken link"
    return "" if target.is_relative_to(home) else "is a link that leads out of the data folder"


def inside(root: Path, reference: str, where: str) -> Path:
    """The file that a table or JSON file refers to, which must lie below ``root``.

    Args:
        root: Folder that the reference is relative to and may not leave.
        reference: Relative path with / (or, from Windows, with backslashes).
        where: Who refers to it, for the message.

    Raises:
        InputError: The reference is empty, leads out of ``root``, or no such file is there.
    """
    text = reference.strip()
    if not text or not text.isprintable():
        raise InputError(where, f"names no file ({text!r})", "Give a path relative to the folder")
    path = root / text
    if "\\" in text and not os.path.exists(path):  # which takes a name of any length
        path = root / text.replace("\\", "/")
    if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
        raise InputError(
            where,
            f"{text!r} leads out of {root}",
            "Give paths below the data folder only, without ..",
        )
    try:
        exists = path.is_file() or path.is_symlink()
    except OSError:  # a name longer than the file system allows
        exists = False
    if not exists:
        raise InputError(
            where, f"{text!r} does not exist below {root}", "Correct the path or drop it"
        )
    if problem := _link_problem(path, root.resolve()):
        raise InputError(path, problem, _LINK_REMEDY)
    return path
