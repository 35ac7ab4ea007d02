"""``images/`` and ``labels/`` (or ``masks/``), matched by file name without suffix.

So are BTCV (``img/img0001.nii.gz``, ``label/label0001.nii.gz``) and FLARE22
(``images/CASE_0000.nii.gz``, ``labels/CASE.nii.gz``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import KEEP_ONE, build
from .doubts import guessing
from .listing import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    LABEL_WORDS,
    PREDICTED,
    SPLITS,
    is_dicom,
    key,
    own_folder,
    unified,
    walk,
)

EXPECTED = "images/ and labels/ (or masks/) with files of the same names"
ALSO_IMAGES = ("image", "imgs", "original", "originals", "scans", "films", "inputs", "jpegimages")
ALSO_LABELS = (
    *LABEL_WORDS,
    "groundtruths",
    "gts",
    "segs",
    "segmentations",
    "manual",
    "1stmanual",
    "truth",
    "segmentationclass",
)
"""Less usual names, for folders with images in them where none has a usual name; ``Ground Truth`` is
``groundtruth``."""
CHANNEL = re.compile(r"_0000$")
"""The only channel of an image, as nnU-Net and FLARE22 name it."""
MARK = re.compile(rf"[ _.-](?:{'|'.join(LABEL_WORDS)}|img|image)$", re.IGNORECASE)
"""What a file is, after its name, as in ``1_mask``."""
ROLE = re.compile(r"(?:(?<=/)|^)(?:img|image|label|mask|seg)[_-]?(?=\d+$)", re.IGNORECASE)
"""What a file is, before its number."""
ANNOTATED = ("annot", "_annot", "_labels", "_masks")
"""Endings of folders of labels beside folders named after splits: ``trainannot`` beside ``train``."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Images with label maps, at the top, inside folders named after splits, or with such folders inside.

    An image without a label and a label without an image are errors; under ``skip_bad`` the former
    stays as an unlabelled case. A folder of DICOM slices in ``images/`` is one image, named after
    the folder.

    Raises:
        InputError: ``labels/`` has no ``images/`` beside it, or either has several candidates.
    """
    if root.is_file():
        return None
    cases: list[Case] = []
    found = False
    tests: Path | None = None
    for images, labels, split in _folders(root, guessing(root, data)):
        if labels is None and images is not None and split == "test":
            tests = images
        if labels is None or (images is None and data.layout != "auto"):
            continue
        if images is None:
            remedy = f"Call the folder of the images {labels.parent / 'images'}"
            raise InputError(labels, "is a folder of labels without images/ beside it", remedy)
        found = True
        cases += _match(images, labels, split, issues)
    if not found:
        return None
    cases = _with_split_folders(cases)
    if tests is not None and {case.split for case in cases} <= {None, "train"}:
        # The test labels were never released: the other cases are split as in any data set.
        cases = [replace(case, split=None) for case in cases]
        twice: set[Path] = set()
        unlabelled = sorted(_by_key(tests, twice, issues).items())
        cases += [
            Case(f"test/{name}", (path,), split="test")
            for name, path in unlabelled
            if path not in twice
        ]
    return build(root, "pairs", cases, data, issues, classes=declared_classes(root, issues))


def _with_split_folders(cases: list[Case]) -> list[Case]:
    """Cases with the split of their folder, where all of ``images/`` lies in ``images/train``, ``images/val``, ..."""
    tops = [SPLITS.get(case.name.partition("/")[0].lower()) for case in cases if "/" in case.name]
    if len(tops) < len(cases) or None in tops or len(set(tops)) < 2:
        return cases
    return [replace(case, split=split) for case, split in zip(cases, tops, strict=True)]


def _folders(root: Path, guess: bool) -> Iterator[tuple[Path | None, Path | None, str | None]]:
    """Folders of images and of labels, None where missing, with their split; ``guess``: by other names too."""
    inner = [p for p in sorted(root.iterdir()) if p.is_dir() and not p.is_symlink()]
    for base in (root, *(p for p in inner if p.name.lower() in SPLITS)):
        split = None if base == root else SPLITS[base.name.lower()]
        images, labels = _folder(base, IMAGE_FOLDERS), _folder(base, LABEL_FOLDERS)
        usual = labels is not None
        if guess:
            images = images or _folder(base, ALSO_IMAGES, filled=True)
            labels = labels or _folder(base, ALSO_LABELS, filled=True)
        if labels is not None and _predicted_beside(labels, images):
            labels = None
        yield images, labels if images or usual else None, split
    by_name = {path.name.lower(): path for path in inner}
    for name, split in SPLITS.items():
        pictures = by_name.get(name) or by_name.get(f"{name}_images")
        maps = [by_name[name + ending] for ending in ANNOTATED if name + ending in by_name]
        for one in maps if pictures else ():
            yield pictures, one, split
        if not maps and f"{name}_images" in by_name:
            yield by_name[f"{name}_images"], None, split


def _folder(base: Path, names: tuple[str, ...], *, filled: bool = False) -> Path | None:
    """The folder with one of these names, whatever its case, and where ``filled`` with images in it."""
    plain = {p: re.sub("[ _-]", "", p.name.lower()) for p in base.iterdir() if p.is_dir()}
    found = sorted(
        p for p, name in plain.items() if name in names and not (filled and not walk(p).images)
    )
    if len(found) > 1:  # predict wrote beside the labels
        found = [path for path in found if own_folder(path) != PREDICTED]
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise InputError(base, f"holds both {both}", "Keep one of them in this folder")
    return found[0] if found else None


def _predicted_beside(labels: Path, images: Path | None) -> bool:
    """Whether masks that radiffuse predicted lie beside the scans without being named after them."""
    if own_folder(labels) != PREDICTED:
        return False
    names = {key(path) for path in walk(images).images} if images is not None else set()
    return names.isdisjoint(key(path) for path in walk(labels).images)


def _match(images: Path, labels: Path, split: str | None, issues: Issues) -> list[Case]:
    twice: set[Path] = set()
    pictures, series = _examinations(images, twice, issues)
    maps = _by_key(labels, twice, issues)
    single: Callable[[str], str] = partial(CHANNEL.sub, "")
    for plain in (unified, single, partial(ROLE.sub, ""), partial(MARK.sub, "")):
        idle = [name for name in pictures if name not in maps]
        spare = [name for name in maps if name not in pictures]
        for name, own in _loosely(idle, spare, plain).items():
            # The case of CASE_0000 is CASE; of img0001 and label0001, 1 and 1_mask it is that of the image.
            kept = own if plain is single else name
            maps[kept], pictures[kept] = maps.pop(own), pictures.pop(name)
    cases = []
    for name, path in sorted(pictures.items()):
        label = maps.pop(name, None)
        if not twice.isdisjoint({path, label}):
            continue
        if label is None:
            remedy = f"Add {labels / name} with its suffix, or move the image elsewhere"
            issues.error(path, "has no label", remedy)
        wanted = f"{split}/{name}" if split else name
        cases.append(Case(wanted, (path,), label, split=split, series=series.get(name, ())))
    for name, label in sorted(maps.items()):
        if label in twice:
            continue
        remedy = f"Add {images / name} with its suffix, or remove the label"
        issues.error(label, "is a label without an image", remedy)
    return cases


def _loosely(
    images: Iterable[str], labels: Iterable[str], plain: Callable[[str], str]
) -> dict[str, str]:
    """Name of the label by name of the image, where ``plain`` makes them equal, and unique."""
    cores: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for names, found in zip((images, labels), cores, strict=True):
        for name in names:
            found[plain(name)].append(name)
    return {
        names[0]: cores[1][core][0]
        for core, names in cores[0].items()
        if len(names) == len(cores[1].get(core, ())) == 1
    }


def _by_key(
    folder: Path, twice: set[Path], issues: Issues, without: Collection[PurePosixPath] = ()
) -> dict[str, Path]:
    """Images by name, but not those directly in one of the folders ``without``.

    ``twice`` receives those beside which lies another of the same name.
    """
    listing = walk(folder)
    issues += listing.issues
    found: dict[str, Path] = {}
    for relative in listing.images:
        name, path = key(relative), folder / relative
        if relative.parent not in without and found.setdefault(name, path) != path:
            issues.error(path, f"has the same name as {found[name].name}", KEEP_ONE)
            twice.add(found[name])
    return found


def _examinations(
    images: Path, twice: set[Path], issues: Issues
) -> tuple[dict[str, Path], dict[str, tuple[Path, ...]]]:
    """Images by name, where a folder of at least two DICOM slices is one of them."""
    slices: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for relative in walk(images).images:
        if relative.parent.parts and is_dicom(images / relative):
            slices[relative.parent].append(relative)
    folders = {folder: files for folder, files in slices.items() if len(files) > 1}
    found = _by_key(images, twice, issues, folders.keys())
    series = {}
    for folder, files in folders.items():
        if file := found.get(folder.as_posix()):
            issues.error(images / folder, f"has the same name as {file.name}", KEEP_ONE)
            twice.add(images / folder)
        found[folder.as_posix()] = images / folder
        series[folder.as_posix()] = tuple(images / file for file in files)
    return found, series
