"""What to do where labels were expected and none were found: a folder that is named nearly right, or one too deep."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ...errors import InputError
from ...system.saying import near
from .listing import IMAGE_FOLDERS, LABEL_FOLDERS, entries

LIKE = 0.75
"""How much alike two names are, from 0 to 1, of which one may be the other misspelled: ``lables`` and ``labels``
are .83."""


def no_labels(root: Path | str, where: str = "") -> InputError:
    """That a data set has no labelled image; ``where`` names it otherwise than by its path."""
    remedy = "Labels lie beside the images as docs/reference/layouts.md says; see radiffuse check"
    return InputError(where or root, "holds no labelled image", pairing(Path(root)) or remedy)


def pairing(root: Path) -> str:
    """How a folder would hold images with labels, if a folder were called or given otherwise; else ''."""
    root = root.expanduser().absolute()
    if not root.is_dir():
        return ""
    names = {path.name.lower(): path.name for path in entries(root) if path.is_dir()}
    if not names.keys().isdisjoint(IMAGE_FOLDERS):
        for name in sorted(names.keys() - {*IMAGE_FOLDERS, *LABEL_FOLDERS}):
            if close := difflib.get_close_matches(name, LABEL_FOLDERS, n=1, cutoff=LIKE):
                return f"If {names[name]} holds the label maps, call it {close[0]}"
    if len(names) == 1:
        (inner,) = (root / name for name in names.values())
        cases = [path for path in entries(inner) if os.path.isdir(path / "segmentations")]
        if cases or any(os.path.isdir(inner / name) for name in LABEL_FOLDERS):
            return f"Give the folder that holds the cases: {near(inner)}"
    beside = {path.name.lower() for path in entries(root.parent) if path.is_dir()}
    if root.name.lower() in IMAGE_FOLDERS and not beside.isdisjoint(LABEL_FOLDERS):
        return f"Give the folder that holds both images and labels: {near(root.parent)}"
    return ""
