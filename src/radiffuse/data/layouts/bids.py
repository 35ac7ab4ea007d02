"""Masks named as BIDS names them, and the images that they belong to (BIDS 1.8, "Imaging derivatives").

``sub-01_T1w`` has the mask ``sub-01_label-lesion_mask`` or ``sub-01_dseg``, beside it or below ``derivatives/NAME/``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import PurePosixPath

from .listing import LABEL_WORDS, is_picture, stem

MASK = "mask"
MASK_WORDS = {*LABEL_WORDS, "dseg"}
OF_MASKS = ("label-", "desc-", "seg-", "res-", "den-", "atlas-")
"""Entities that say which mask of an image it is."""
Places = dict[tuple[PurePosixPath, bool], set[PurePosixPath]]
"""Common parts of paths, by what follows the folder of the subject, and whether pictures are among them."""


def places_of_masks(paths: Collection[PurePosixPath]) -> dict[PurePosixPath, PurePosixPath]:
    """The common part of the paths of its images (``anat/sub-01``), or the path of its image without suffix, by mask.

    An image in the folder of the mask goes before one that lies likewise below another folder; masks that would fit
    images in several folders, or fit none, are left out. A picture is no image of a mask that is a volume, but its
    preview; a mask that is a picture may belong to a film in any format.
    """
    places: Places = defaultdict(set)
    masks = {}
    for path in paths:
        words = stem(path).split("_")
        if not words[0].startswith("sub-"):
            continue
        if words[-1].lower() in MASK_WORDS:
            masks[path] = words[:-1]
            continue
        for name in (words[:-1], words):
            below = _below(path.parent) / "_".join(name)
            for pictures in {True, is_picture(path)}:
                places[below, pictures].add(path.parent / "_".join(name))
    found = {path: _place(path, words, places) for path, words in masks.items()}
    return {path: place for path, place in found.items() if place is not None}


def _place(mask: PurePosixPath, words: list[str], places: Places) -> PurePosixPath | None:
    plain = [word for word in words if not word.startswith(OF_MASKS)]
    anywhere = [word for word in plain if not word.startswith("space-")]
    for name in ("_".join(each) for each in (words, plain, anywhere)):
        fitting = places.get((_below(mask.parent) / name, is_picture(mask)), set())
        if mask.parent / name in fitting:
            return mask.parent / name
        if len(fitting) == 1:
            return next(iter(fitting))
    return None


def _below(folder: PurePosixPath) -> PurePosixPath:
    """A folder from that of its subject on."""
    parts = folder.parts
    first = next((i for i, part in enumerate(parts) if part.startswith("sub-")), len(parts))
    return PurePosixPath(*parts[first:])
