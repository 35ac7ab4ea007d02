"""Which folders hold images and which their label maps: at the top, by split, or in a folder per class of the image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from .classes import FEWEST_IMAGES, MOST_CLASSES
from .listing import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    LABEL_WORDS,
    PREDICTED,
    SPLITS,
    entries,
    key,
    own_folder,
    walk,
)
from .patients import named_in

ALSO_IMAGES = (
    *("image", "imgs", "original", "originals", "scans", "films", "input", "inputs"),
    "jpegimages",
    *("volume", "volumes", "cxrpng"),
)
ALSO_LABELS = (
    *LABEL_WORDS,
    *("groundtruths", "gts", "segs", "segmentations", "manual", "1stmanual", "truth"),
    *("segmentationclass", "manualmask"),
)
"""Less usual names, for folders with images in them where none has a usual name; ``Ground Truth`` is
``groundtruth``."""
MARK = re.compile(rf"[ _.-](?:{'|'.join(LABEL_WORDS)}|img|image|\dstHO|\dndHO)$", re.IGNORECASE)
"""What a file is, after its name, as in ``1_mask``; or whose mask it is, see ``experts``."""
HELD_OUT = {"val": "validation", "va": "validation", "ts": "test"}
"""Endings of folders beside ``imagesTr`` and ``labelsTr`` that hold another part, with labels (WORD)."""
ANNOTATED = ("annot", "_annot", "_labels", "_masks")
"""Endings of folders of labels beside folders named after splits: ``trainannot`` beside ``train``."""


class Part(NamedTuple):
    """A folder of images and one of their labels, None where missing.

    Attributes:
        images: The folder of images.
        labels: The folder of label maps.
        split: The split that the folders around them name.
        folder: The folder of a class that holds both, '' where there is none.
        target: Its name, where such folders are classes of whole images.
    """

    images: Path | None
    labels: Path | None
    split: str | None
    folder: str = ""
    target: str | None = None


def part_folders(root: Path, guess: bool) -> list[Part]:
    """Folders at the top and in folders named after splits, or else in a folder per class.

    Args:
        root: The data folder.
        guess: Whether less usual names count too, and folders per class.

    Raises:
        InputError: A folder holds several that may be the images or the labels.
    """
    found = list(_by_split(root, guess))
    if any(part.labels is not None for part in found):
        return found
    return (_by_last_word(root) or _by_class(root) if guess else []) or found


def _by_split(root: Path, guess: bool) -> Iterator[Part]:
    inner = _folders_in(root)
    by_name = {path.name.lower(): path for path in inner}
    held_out = [
        Part(by_name[f"images{end}"], by_name[f"labels{end}"], split)
        for end, split in HELD_OUT.items()
        if {f"images{end}", f"labels{end}"} <= by_name.keys()
    ]
    for base in (root, *(p for p in inner if p.name.lower() in SPLITS)):
        split = ("train" if held_out else None) if base == root else SPLITS[base.name.lower()]
        yield Part(*_both(base, guess), split)
    yield from held_out
    for name, split in SPLITS.items():
        pictures = by_name.get(name) or by_name.get(f"{name}_images")
        maps = [by_name[name + ending] for ending in ANNOTATED if name + ending in by_name]
        for one in maps if pictures else ():
            yield Part(pictures, one, split)
        if not maps and f"{name}_images" in by_name:
            yield Part(by_name[f"{name}_images"], None, split)


def _by_last_word(root: Path) -> list[Part]:
    """``png_images`` and ``png_masks`` (SIIM-ACR), ``..._Training_Input`` and ``..._Training_GroundTruth`` (ISIC).

    A folder of labels belongs to the only folder of images in which a label has its image; of several, to the only one
    of the same split. Another of images is unlabelled if its name says that it is for the test.
    """
    words = {p: re.split("[ _-]", p.name.lower()) for p in _folders_in(root) if not own_folder(p)}
    images = [p for p, name in words.items() if name[-1] in (*IMAGE_FOLDERS, *ALSO_IMAGES)]
    splits = {p: next((SPLITS[w] for w in name if w in SPLITS), None) for p, name in words.items()}
    pairs = {}
    for labels in (p for p, name in words.items() if name[-1] in ALSO_LABELS):
        fitting = [p for p in images if _fit(Part(p, labels, None))]
        if len(fitting) > 1:  # such as numbers that begin anew in each part
            fitting = [p for p in fitting if splits[p] == splits[labels]]
        if len(fitting) == 1:
            pairs[labels] = fitting[0]
    if not pairs or len(set(pairs.values())) < len(pairs):
        return []
    told = len({splits[p] for p in pairs}) > 1
    parts = [Part(p, labels, splits[p] if told else None) for labels, p in pairs.items()]
    tests = [p for p in images if splits[p] == "test" and p not in pairs.values()]
    return parts + [Part(p, None, "test") for p in tests]


def _by_class(root: Path) -> list[Part]:
    """``CLASS/images`` and ``CLASS/masks``, also inside folders named after splits; [] where nothing is such a tree.

    Folders of patients, and more or smaller ones than classes have, are no classes, and their images no less cases.
    """
    parts = []
    for base in (root, *(p for p in _folders_in(root) if p.name.lower() in SPLITS)):
        split = None if base == root else SPLITS[base.name.lower()]
        for folder in _folders_in(base):
            if folder.name.lower() in SPLITS or own_folder(folder):
                continue
            images, labels = _both(folder, guess=True)
            if images is not None:
                labels = labels or _last_word(folder)
                parts.append(Part(images, labels, split, folder.name))
    if not any(_fit(part) for part in parts):  # masks of other names, such as one per nucleus
        return []
    names = {part.folder for part in parts}
    count = sum(len(walk(part.images).images) for part in parts if part.images)
    few = 2 <= len(names) <= MOST_CLASSES and count >= FEWEST_IMAGES * len(names)
    if not few or all(map(named_in, names)):
        return parts
    return [part._replace(target=part.folder) for part in parts]


def _fit(part: Part) -> bool:
    """Whether any label of a part is named like an image of it."""
    if part.images is None or part.labels is None:
        return False
    names = {key(path) for path in walk(part.images).images}
    labels = {key(path) for path in walk(part.labels).images}
    return not names.isdisjoint({*labels, *(MARK.sub("", name) for name in labels)})


def _both(base: Path, guess: bool) -> tuple[Path | None, Path | None]:
    """The folders of images and of labels in a folder; ``guess``: by other names too."""
    images, labels = _folder(base, IMAGE_FOLDERS), _folder(base, LABEL_FOLDERS)
    usual = labels is not None
    if guess:
        images = images or _folder(base, ALSO_IMAGES, filled=True)
        labels = labels or _folder(base, ALSO_LABELS, filled=True)
    if labels is not None and _predicted_beside(labels, images):
        labels = None
    return images, labels if images or usual else None


def _folders_in(base: Path) -> list[Path]:
    return [p for p in entries(base) if p.is_dir() and not p.is_symlink()]


def _folder(base: Path, names: tuple[str, ...], *, filled: bool = False) -> Path | None:
    """The folder with one of these names, whatever its case, and where ``filled`` with images in it."""
    plain = {p: re.sub("[ _-]", "", p.name.lower()) for p in entries(base) if p.is_dir()}
    return _only(
        base,
        [p for p, name in plain.items() if name in names and not (filled and not walk(p).images)],
    )


def _last_word(base: Path) -> Path | None:
    """The folder with images whose last word is one for labels, as in ``lung masks``."""
    last = {p: re.split("[ _-]", p.name.lower())[-1] for p in _folders_in(base)}
    return _only(base, [p for p, word in last.items() if word in ALSO_LABELS and walk(p).images])


def _only(base: Path, folders: list[Path]) -> Path | None:
    found = sorted(folders)
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
