"""``images/`` and ``labels/`` (or ``masks/``), matched by file name without suffix.

BTCV comes like this (``img/img0001.nii.gz``, ``label/label0001.nii.gz``), and FLARE22 (``images/CASE_0000.nii.gz``,
``labels/CASE.nii.gz``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issue
from .build import Draft, build
from .listing import SPLITS, Listing, is_dicom, key, walk

IMAGE_FOLDERS = ("images", "img", "imagestr")
LABEL_FOLDERS = ("labels", "masks", "label", "labelstr")
CHANNEL = re.compile(r"_0000$")
"""The only channel of an image, as nnU-Net and FLARE22 name it."""
ROLE = re.compile(r"(?:(?<=/)|^)(?:img|image|label|mask|seg)[_-]?(?=\d+$)", re.IGNORECASE)
"""What a file is, before its number."""
ANNOTATED = ("annot", "_annot", "_labels", "_masks")
"""Endings of folders of labels beside folders called train, val and test."""


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """Images with label maps; also inside folders called train, validation and test, or as train and trainannot.

    An image without a label and a label without an image are errors; under ``skip_bad`` the former
    stays as an unlabelled case. A folder of DICOM slices in ``images/`` is one image, named after
    the folder.

    Raises:
        InputError: There is ``labels/`` without ``images/`` beside it, or several candidates for
            either.
    """
    if root.is_file():
        return None
    drafts: list[Draft] = []
    found = False
    tests: Path | None = None
    for base, split in _bases(root):
        images, labels = _folder(base, IMAGE_FOLDERS), _folder(base, LABEL_FOLDERS)
        if labels is None and images is not None and split == "test":
            tests = images
        if labels is None or (images is None and data.layout != "auto"):
            continue
        if images is None:
            raise InputError(
                labels,
                "is a folder of labels without images/ beside it",
                f"Call the folder of the images {base / 'images'}",
            )
        found = True
        drafts += _match(root, images, labels, split, issues)
    for images, labels, split in _annotated(root):
        found = True
        drafts += _match(root, images, labels, split, issues)
    if not found:
        return None
    if tests is not None and {draft.case.split for draft in drafts} <= {None, "train"}:
        # The labels of the test were never released: the others are parted as any data set.
        drafts = [replace(draft, case=replace(draft.case, split=None)) for draft in drafts]
        drafts += _unlabelled(root, tests, issues)
    return build(root, "pairs", drafts, data, issues, classes=declared_classes(root, issues))


def _bases(root: Path) -> list[tuple[Path, str | None]]:
    splits = [
        (path, SPLITS[path.name.lower()])
        for path in sorted(root.iterdir())
        if path.name.lower() in SPLITS and path.is_dir() and not path.is_symlink()
    ]
    return [(root, None), *splits]


def _annotated(root: Path) -> list[tuple[Path, Path, str]]:
    """Folders ``train`` and ``trainannot``, and so on."""
    folders = {
        p.name.lower(): p for p in sorted(root.iterdir()) if p.is_dir() and not p.is_symlink()
    }
    return [
        (folders[name], folders[name + ending], SPLITS[name])
        for name in folders
        if name in SPLITS
        for ending in ANNOTATED
        if name + ending in folders
    ]


def _folder(base: Path, names: tuple[str, ...]) -> Path | None:
    found = sorted(p for p in base.iterdir() if p.name.lower() in names and p.is_dir())
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise InputError(base, f"holds both {both}", "Keep one of them in this folder")
    return found[0] if found else None


def _match(
    root: Path, images: Path, labels: Path, split: str | None, issues: list[Issue]
) -> list[Draft]:
    pictures, series = _examinations(root, images, issues)
    maps = _by_key(walk(labels), labels, issues)
    for pattern in (CHANNEL, ROLE):
        idle = [name for name in pictures if name not in maps]
        spare = [name for name in maps if name not in pictures]
        for name, own in _loosely(idle, spare, pattern).items():
            # The case of CASE_0000 is CASE; of img0001 and label0001 it is img0001.
            kept = own if pattern is CHANNEL else name
            maps[kept], pictures[kept] = maps.pop(own), pictures.pop(name)
    drafts = []
    for name, path in sorted(pictures.items()):
        label = maps.pop(name, None)
        if label is None:
            remedy = (
                f"Add {labels / name} with its suffix, or move the image to an unlabelled folder"
            )
            issues.append(Issue("error", str(path), "has no label", remedy))
        relative = PurePosixPath(path.relative_to(root).as_posix())
        wanted = f"{split}/{name}" if split else name
        case = Case(wanted, (path,), label=label, split=split, series=series.get(name, ()))
        drafts.append(Draft(relative, case))
    for name, label in sorted(maps.items()):
        remedy = f"Add {images / name} with its suffix, or remove the label"
        issues.append(Issue("error", str(label), "is a label without an image", remedy))
    return drafts


def _unlabelled(root: Path, images: Path, issues: list[Issue]) -> list[Draft]:
    drafts = []
    for name, path in sorted(_by_key(walk(images), images, issues).items()):
        case = Case(f"test/{name}", (path,), split="test")
        drafts.append(Draft(PurePosixPath(path.relative_to(root).as_posix()), case))
    return drafts


def _loosely(
    images: Iterable[str], labels: Iterable[str], pattern: re.Pattern[str]
) -> dict[str, str]:
    """Name of the label by name of the image, where they agree once ``pattern`` is taken out of both.

    Names that several images, or several labels, would come to are left alone.
    """
    bare: list[dict[str, list[str]]] = []
    for names in (images, labels):
        found: dict[str, list[str]] = defaultdict(list)
        for name in names:
            found[pattern.sub("", name)].append(name)
        bare.append(found)
    return {
        names[0]: bare[1][core][0]
        for core, names in bare[0].items()
        if len(names) == len(bare[1].get(core, ())) == 1
    }


def _by_key(listing: Listing, folder: Path, issues: list[Issue]) -> dict[str, Path]:
    issues += listing.issues
    found: dict[str, Path] = {}
    for relative in listing.images:
        name, path = key(relative), folder / relative
        if name in found:
            problem = f"has the same name as {found[name].name}"
            issues.append(Issue("error", str(path), problem, "Keep one of the two"))
        else:
            found[name] = path
    return found


def _examinations(
    root: Path, images: Path, issues: list[Issue]
) -> tuple[dict[str, Path], dict[str, tuple[Path, ...]]]:
    """Images by name, where a folder of at least two DICOM slices is one of them."""
    listing = walk(images)
    slices: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for relative in listing.images:
        if relative.parent.parts and is_dicom(images / relative):
            slices[relative.parent].append(relative)
    folders = {folder: files for folder, files in slices.items() if len(files) > 1}
    listing.images = [path for path in listing.images if path.parent not in folders]
    found = _by_key(listing, images, issues)
    series = {}
    for folder, files in folders.items():
        found[folder.as_posix()] = images / folder
        series[folder.as_posix()] = tuple(images / file for file in files)
    return found, series
