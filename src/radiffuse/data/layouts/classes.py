"""Class folders: the name of the folder is the class of the whole image."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Dataset
from ..issues import Issue
from .build import build, plain
from .listing import SPLITS, walk

RESERVED = {
    "images",
    "labels",
    "masks",
    "imagestr",
    "labelstr",
    "imagests",
    "labelsts",
    "annotations",
}
"""Folders that hold parts of other layouts and are never classes."""
MOST_CLASSES = 50
FEWEST_IMAGES = 2
"""On average per folder; folders of one image each are patients rather than classes."""


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """``CLASS/image`` or ``SPLIT/CLASS/image``; at least two classes.

    Recognized by itself only where every image lies directly in its class folder, and there are at
    most 50 folders of two images or more on average; ``layout="classes"`` takes deeper trees and
    more classes.
    """
    if root.is_file():
        return None
    listing = walk(root)
    tops = {path.parts[0].lower() for path in listing.images}
    depth = 1 if tops and tops <= SPLITS.keys() else 0
    if not listing.images or any(len(path.parts) < depth + 2 for path in listing.images):
        return None
    names = {path.parts[depth] for path in listing.images}
    if len(names) < 2 or {name.lower() for name in names} & RESERVED:
        return None
    if data.layout == "auto" and not _obvious(listing.images, depth, len(names)):
        return None
    drafts = [
        plain(
            root,
            path,
            target=path.parts[depth],
            split=SPLITS[path.parts[0].lower()] if depth else None,
        )
        for path in listing.images
    ]
    issues += listing.issues
    return build(root, "classes", drafts, data, issues)


def _obvious(images: list[PurePosixPath], depth: int, classes: int) -> bool:
    flat = all(len(path.parts) == depth + 2 for path in images)
    return flat and classes <= MOST_CLASSES and len(images) >= FEWEST_IMAGES * classes
