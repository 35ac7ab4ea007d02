"""Class folders: the name of the folder is the class of the whole image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import build
from .listing import LABEL_WORDS, SPLITS, is_dicom, key, stem, walk
from .patients import named_in

EXPECTED = "two or more folders of images, one per class"
RESERVED = {*LABEL_WORDS, "images", "imagestr", "labelstr", "imagests", "labelsts"}
"""Folders of other layouts, which are never classes."""
MOST_CLASSES = 50
FEWEST_IMAGES = 2
"""On average per folder; folders of one image each are patients rather than classes."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """``CLASS/image`` or ``SPLIT/CLASS/image``; at least two classes.

    ``layout="classes"`` allows deeper trees and more or smaller classes than are recognized.
    """
    listing = walk(root)
    images = listing.images
    tops = {path.parts[0].lower() for path in images}
    depth = 1 if tops and tops <= SPLITS.keys() else 0
    if not images or any(len(path.parts) < depth + 2 for path in images):
        return None
    names = {path.parts[depth] for path in images}
    if len(names) < 2 or {name.lower().replace(" ", "") for name in names} & RESERVED:
        return None
    flat = all(len(path.parts) == depth + 2 for path in images)
    few = len(names) <= MOST_CLASSES and len(images) >= FEWEST_IMAGES * len(names)
    obvious = flat and few and not all(map(named_in, names)) and not _alike(images, depth)
    if data.layout == "auto" and not (obvious and not any(is_dicom(root / p) for p in images)):
        return None  # slices of volumes are no films, even beside pictures
    issues += listing.issues
    splits = [SPLITS[path.parts[0].lower()] if depth else None for path in images]
    cases = [
        Case(key(path), (root / path,), target=path.parts[depth], split=split)
        for path, split in zip(images, splits, strict=True)
    ]
    return build(root, "classes", cases, data, issues)


def _alike(images: Sequence[PurePosixPath], depth: int) -> bool:
    """Whether folders are no classes: each has files of the same words, or one has the masks of the others.

    So are folders of patients with ``t1.nii.gz`` and ``t2.nii.gz`` each, and ``seg-lungs`` beside ``subset0``.
    """
    held: dict[str, set[str]] = defaultdict(set)
    for path in images:
        held[path.parts[depth]].add(stem(path).lower())
    first, *others = held.values()
    worded = {re.sub(r"\d", "", name) for name in first}
    same = len(worded) == len(first) > 1 and all(names == first for names in others)
    return same or any(
        not {*re.split("[^a-z]+", folder.lower())}.isdisjoint(LABEL_WORDS)
        and names <= set().union(*(held[other] for other in held if other != folder))
        for folder, names in held.items()
    )
