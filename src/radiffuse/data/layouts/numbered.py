"""Files whose first word says what they are, before a number: ``volume-7.nii`` and ``segmentation-7.nii`` of LiTS.

Liver Tumor Segmentation Benchmark (Bilic et al. 2023, doi 10.1016/j.media.2022.102680); its ``test-volume-7.nii`` were
released without labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import PurePosixPath

from .bids import MASK
from .listing import LABEL_WORDS, stem

IMAGE = re.compile(r"(?:test[-_ ])?(?:volume|vol|image|img|scan|ct)[-_ ]?(\d+)", re.IGNORECASE)
LABEL = re.compile(rf"(?:{'|'.join(LABEL_WORDS)})[-_ ]?(\d+)", re.IGNORECASE)
TEST = re.compile(r"test[-_ ]volume[-_ ]?\d+", re.IGNORECASE)
"""An image of the test part."""


def places_of_numbers(
    paths: Collection[PurePosixPath],
) -> dict[PurePosixPath, tuple[PurePosixPath, str]]:
    """The path of its image without suffix, and ``image`` or ``mask``, by file; {} where no mask has an image.

    The mask of an image lies in its folder, or is the only one of its number, as the image is. One without an image
    has its own path.
    """
    images: dict[str, list[PurePosixPath]] = defaultdict(list)
    masks: dict[str, list[PurePosixPath]] = defaultdict(list)
    for path in paths:
        for pattern, found in ((IMAGE, images), (LABEL, masks)):
            if match := pattern.fullmatch(stem(path)):
                found[match[1]].append(path)
    image_of = {}
    for number, files in masks.items():
        known = [path for path in images[number] if not TEST.fullmatch(stem(path))]
        for mask in files:
            beside = [path for path in known if path.parent == mask.parent]
            fitting = beside or (known if len(files) == 1 else [])
            if len(fitting) == 1:
                image_of[mask] = fitting[0]
    if not image_of:
        return {}
    places = {path: (_place(path), "image") for files in images.values() for path in files}
    return places | {
        mask: (_place(image_of.get(mask, mask)), MASK) for files in masks.values() for mask in files
    }


def _place(path: PurePosixPath) -> PurePosixPath:
    return path.parent / stem(path)
