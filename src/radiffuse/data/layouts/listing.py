"""Walking through a folder: which files are images, passed over, or refused."""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ...errors import InputError
from ..issues import Issues
from ..links import REMEDY, link_fault, refuse_link
from ..names import unified
from ..readers import SUFFIXES
from ..readers import is_dicom as holds_dicom

PASSED_FOLDERS = {
    *("__macosx", "$recycle.bin", "system volume information", "__pycache__", "lost+found"),
    *("@eadir", "#recycle", "@recycle"),  # previews and removed files on network drives
}
PASSED_FILES = {
    *("thumbs.db", "desktop.ini", "ehthumbs.db", "dicomdir"),
    *("readme", "changes", "license", "citation"),
}
SIDECARS = {
    *(".md", ".rst", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html"),
    *(".pdf", ".parquet", ".xlsx", ".py", ".sh", ".log", ".toml", ".cff", ".bib", ".raw", ".zraw"),
}
"""Companions of images; ``.raw`` belongs to an ``.mhd``."""
LABEL_WORDS = (
    *("seg", "mask", "label", "labels", "segmentation", "annotation", "masks", "annotations"),
    *("groundtruth", "gt", "msk"),
)
"""Last words of the names of label maps."""
IMAGE_FOLDERS = ("images", "img", "imagestr")
LABEL_FOLDERS = ("labels", "masks", "label", "labelstr")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Split by its usual names in folders and tables."""

GENERATED = "a folder of images that radiffuse generated"
PREDICTED = "a folder of masks that radiffuse predicted"
CORRECTED = "a folder of corrections"
MARKS: dict[str, tuple[str, ...]] = {
    "rows.jsonl": ("a folder of arrays that radiffuse prepared",),
    "prediction.json": (PREDICTED, '"radiffuse"', '"runs"', '"settings"'),
    "generation.json": (GENERATED, '"run"', '"model"', '"seed"'),
    "corrections.jsonl": (CORRECTED, '"radiffuse"', '"case"', '"label"'),
    "evaluation.json": ("an evaluation of radiffuse", '"radiffuse"', '"masks"', '"truth"'),
    "judge.json": ("a judgment of radiffuse", '"network"', '"fidelity"', '"copies"'),
    "study.yaml": ("a study of radiffuse", "data:", "methods:", "draws:"),
    "augment.yaml": ("a study of radiffuse", "data:", "pools:", "ratios:"),
    "export.json": ("an export of radiffuse", '"checked_batches"'),
    "plans.json": ("an export of radiffuse", '"radiffusePlans_'),
}
"""By the file that marks it: what a folder is, and the keys that the file holds."""
MARK_HEAD = 2**16
"""Characters of such a file that are looked at."""

GRANT = "Grant read access"

_KNOWN: ContextVar[tuple[Path, dict[Path, Listing]] | None] = ContextVar("walked", default=None)
"""The data folder, and the folders below it that were walked."""
_LONGEST_FIRST = sorted({*SUFFIXES, *DICOM_SUFFIXES}, key=len, reverse=True)


@dataclass
class Listing:
    """The files below a folder by relative path, sorted: images, others but companions, and faults.

    ``closed`` are those of the faults that are folders which this user may not look into.
    """

    images: list[PurePosixPath] = field(default_factory=list)
    others: list[PurePosixPath] = field(default_factory=list)
    issues: Issues = field(default_factory=Issues)
    closed: Issues = field(default_factory=Issues)


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
    try:
        names = set(os.listdir(path)) if path.is_dir() else set()
    except OSError:  # the walk names it
        return ""
    if "config.yaml" in names and names & {"plan.json", "log.jsonl", "model", "state"}:
        return "a run of radiffuse"
    return next(
        (w for name, (w, *keys) in MARKS.items() if name in names and _has(path / name, keys)), ""
    )


def _has(path: Path, keys: list[str]) -> bool:
    head = start_of(path)
    return head is not None and all(key in head for key in keys)


def is_picture(path: PurePosixPath) -> bool:
    """Whether the name is that of a PNG or JPEG, which hold no volume."""
    return path.suffix.lower() in (".png", ".jpg", ".jpeg")


def start_of(path: Path) -> str | None:
    """The first characters of a text file; None of a folder, or of a file that this user may not read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MARK_HEAD)
    except OSError:
        return None


def walk(root: Path) -> Listing:
    """List a folder and everything below it; an empty listing where ``root`` is no folder.

    Hidden files, system files, companions of images and folders that radiffuse wrote are passed over, the
    latter with a warning. Links that lead out of the folder are refused: what is checked and hashed must lie inside.

    Raises:
        InputError: The data folder itself cannot be listed.
    """
    known = _KNOWN.get()
    if known is None:
        return _walk(root)
    if root not in known[1]:
        known[1][root] = _walk(root)
    return known[1][root]


def entries(folder: Path) -> list[Path]:
    """What is directly in a folder, sorted; nothing where it is none, or closed to this user, which ``walk`` says."""
    try:
        return sorted(folder.iterdir()) if os.access(folder, os.X_OK) else []
    except (PermissionError, NotADirectoryError):
        return []


@contextmanager
def walked_once(root: Path) -> Iterator[None]:
    """Within the block ``root`` is the data folder, and each folder in it is walked once, for all layouts."""
    token = _KNOWN.set((root if root.is_dir() else root.parent, {}))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def _home(root: Path) -> Path:
    """The data folder that ``root`` is in: links may lead anywhere in it."""
    known = _KNOWN.get()
    return known[0] if known is not None and root.is_relative_to(known[0]) else root


def _walk(root: Path) -> Listing:
    listing = Listing()
    if not root.is_dir():
        return listing
    home = _home(root)
    unreadable: list[OSError] = []
    own: dict[str, list[str]] = defaultdict(list)
    for top, folders, files in os.walk(root, onerror=unreadable.append):
        here = Path(top)
        if not os.access(top, os.X_OK):  # its names can be listed, and nothing behind them
            unreadable.append(PermissionError(errno.EACCES, os.strerror(errno.EACCES), top))
            folders.clear()
            continue
        inner = sorted(name for name in folders if _enter(here / name, home, listing.issues))
        kinds = {name: own_folder(here / name) for name in inner}
        folders[:] = [name for name in inner if not kinds[name]]
        for name in inner:
            own[kinds[name]].append((here / name).relative_to(root).as_posix())
        for name in sorted(files):
            if not name.startswith(".") and name.lower() not in PASSED_FILES:
                _sort_in(here / name, root, home, listing)
    for error in unreadable:
        where, problem = Path(error.filename or root), f"cannot be listed ({error.strerror})"
        if where == home:
            raise InputError(home, problem, GRANT)
        listing.closed.error(where, problem, GRANT)
    listing.issues += listing.closed
    own.pop("", None)
    for kind, names in own.items():
        others = f"{len(names) - 1} more like it are passed over: each is {kind}"
        problem = f"and {others}" if names[1:] else f"is passed over: it is {kind}"
        remedy = "Give it by itself" if kind in (GENERATED, CORRECTED) else "Keep it elsewhere"
        listing.issues.warning(root / names[0], problem, remedy)
    listing.images.sort(key=lambda path: path.parts)  # as paths compare, but much faster
    listing.others.sort(key=lambda path: path.parts)
    return listing


def _enter(folder: Path, home: Path, issues: Issues) -> bool:
    if folder.name.startswith(".") or folder.name.lower() in PASSED_FOLDERS:
        return False
    if fault := link_fault(folder, home):
        issues.error(*fault, REMEDY.format("folder"))
        return False
    return True


def _sort_in(path: Path, root: Path, home: Path, listing: Listing) -> None:
    known = bool(image_suffix(path.name))
    if not known and path.suffix.lower() in SIDECARS:
        return
    if path.is_symlink() and (fault := link_fault(path, home)):
        listing.issues.error(*fault, REMEDY.format("file"))
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        listing.issues.error(path, problem, f"{GRANT} or remove it")
        return
    if not stat.S_ISREG(mode):
        listing.issues.error(path, "is not a regular file", "Remove it")
        return
    kind = listing.images if known or is_dicom(path) else listing.others
    kind.append(PurePosixPath(path.relative_to(root).as_posix()))


def inside(root: Path, reference: str, where: str) -> Path:
    """The file below ``root`` that a table or JSON file (``where``, for messages) refers to.

    ``reference`` is a path below ``root``, with slashes or the backslashes of Windows. If no file
    has exactly that spelling, the only one that differs just in case or in the encoding of accents is used.

    Raises:
        InputError: It is empty, leads out of ``root``, or no such file is there.
    """
    text = reference.strip()
    if not text or not text.isprintable():
        raise InputError(where, f"names no file ({text!r})", "Give a path relative to the folder")
    path = root / text
    if "\\" in text and not os.path.exists(path):  # os.path takes names of any length
        path = root / text.replace("\\", "/")
    if path.is_absolute() and path.is_relative_to(root.absolute()):
        path = root / path.relative_to(root.absolute())
    if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
        problem = f"{text!r} leads out of {root}"
        raise InputError(where, problem, "Give paths below the data folder only, without ..")
    found = path if os.path.lexists(path) else _respelled(root, path.relative_to(root).parts)
    if found is None or not (found.is_symlink() or found.is_file()):
        raise InputError(where, f"{text!r} does not exist below {root}", "Correct or drop the path")
    refuse_link(found, _home(root))
    return found


def is_file_below(root: Path, reference: str) -> bool:
    """Whether ``inside`` would find the file, even if it is a link that ``inside`` refuses."""
    try:
        return bool(inside(root, reference, ""))
    except InputError as error:
        return error.where != ""


def named_file(folder: Path, name: str, endings: Sequence[str]) -> Path | None:
    """The file ``name`` in a folder with the first of the endings that is there, however it is spelled (``inside``)."""
    names = [f"{name}{ending}" for ending in endings]
    exact = next((folder / one for one in names if (folder / one).is_file()), None)
    return exact or next(filter(None, (_respelled(folder, [one]) for one in names)), None)


def _respelled(path: Path, parts: Sequence[str]) -> Path | None:
    """The one file or folder whose path is spelled like ``parts`` but for case and accents, or None."""
    for part in parts:
        try:
            entries = _entries(str(path), path.stat().st_mtime_ns)
        except OSError:
            return None
        same = (part,) if part in entries.get(unified(part), ()) else entries.get(unified(part), ())
        if len(same) != 1:
            return None
        path /= same[0]
    return path


@lru_cache(maxsize=64)
def _entries(folder: str, changed: int) -> dict[str, tuple[str, ...]]:
    """Names in a folder, as it was at ``changed``, by what ``unified`` makes of them."""
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(os.listdir(folder)):
        found[unified(name)] = (*found.get(unified(name), ()), name)
    return found
