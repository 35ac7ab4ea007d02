"""A folder of images, with or without folders in it; or one image."""

from __future__ import annotations

from pathlib import Path

from ...config import Data
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import build
from .listing import SPLITS, image_suffix, is_dicom, key, stem, walk

EXPECTED = "a folder of images"


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Every image below ``root`` is a case; top folders that are all named after splits declare them."""
    if root.is_file():
        if not image_suffix(root.name) and not is_dicom(root):
            return None
        return build(root, "images", [Case(stem(root), (root,))], data, issues, home=root.parent)
    listing = walk(root)
    issues += listing.issues
    images = listing.images
    if not images:
        return None
    splits = [SPLITS.get(path.parts[0].lower()) if path.parent.parts else None for path in images]
    if None in splits:
        splits = [None] * len(images)
    cases = [
        Case(key(path), (root / path,), split=split)
        for path, split in zip(images, splits, strict=True)
    ]
    if data.layout == "auto":
        # a picture beside a DICOM series must not turn its slices into cases
        scans = sum(is_dicom(root / path) for path in images)
        if 0 < scans < len(images):
            problem = f"holds {scans} DICOM files among {len(images) - scans} other images"
            remedy = "Put them into folders of their own, or name the layout (--layout images)"
            issues.error(root, problem, remedy)
    return build(root, "images", cases, data, issues)
