"""A folder of images, with or without folders in it; or one image."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Dataset
from ..issues import Issue
from .build import build, plain
from .listing import SPLITS, image_suffix, is_dicom, walk


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """Every image below ``root`` is a case, named after its path.

    If all of them lie in folders called train, validation, test (or usual variants), that is their
    split.
    """
    if root.is_file():
        if not image_suffix(root.name) and not is_dicom(root):
            return None
        draft = plain(root.parent, PurePosixPath(root.name))
        return build(root, "images", [draft], data, issues, home=root.parent)
    listing = walk(root)
    issues += listing.issues
    if not listing.images:
        return None
    splits = {
        SPLITS.get(path.parts[0].lower()) if path.parent.parts else None for path in listing.images
    }
    in_splits = None not in splits
    drafts = [
        plain(root, path, split=SPLITS[path.parts[0].lower()] if in_splits else None)
        for path in listing.images
    ]
    if data.layout == "auto":
        _refuse_mixture(root, listing.images, issues)
    return build(root, "images", drafts, data, issues)


def _refuse_mixture(root: Path, paths: list[PurePosixPath], issues: list[Issue]) -> None:
    """Slices of a DICOM series must not become cases because a picture lies beside them."""
    scans = [path for path in paths if is_dicom(root / path)]
    if scans and len(scans) < len(paths):
        problem = f"holds {len(scans)} DICOM files among {len(paths) - len(scans)} other images"
        remedy = "Put them into folders of their own, or name the layout (--layout images)"
        issues.append(Issue("error", str(root), problem, remedy))
