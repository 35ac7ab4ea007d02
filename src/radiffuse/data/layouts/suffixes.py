"""Files whose last word says what they are, ``CASE_t1``, ``CASE_seg``, in one folder or one per case.

So are BraTS (``BraTS2021_00000/BraTS2021_00000_flair.nii.gz`` ... ``_seg.nii.gz``) and many sets in
one folder (``001_img.nii``, ``001_mask.nii``).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...config import Data
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import KEEP_ONE, build
from .listing import stem, walk

EXPECTED = "files called CASE_t1, CASE_t2, ... and CASE_seg (or CASE_img and CASE_mask)"
LABEL_WORDS = ("seg", "mask", "label", "labels", "segmentation", "annotation")
"""Last words of the names of label maps."""
IMAGE_WORDS = ("img", "image")
"""Last words that only say that a file is an image."""
SEQUENCES = {
    *("t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "flair", "pd", "adc", "dwi"),
    *("swi", "ct", "pet"),
}
"""Last words that are channels of one case even where nothing is labelled."""

Files = dict[PurePosixPath, dict[str, PurePosixPath]]
"""By common part of the path, files by last word."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Files that share all but the last word of their name, after ``_`` or ``-``, are one case.

    A last word in ``LABEL_WORDS`` is the label, any other a channel, in alphabetical order. All cases
    need the same channels; one without a label is an error, and unlabelled under ``skip_bad``. Files
    without any label fit only if their words are in ``SEQUENCES`` or the layout was named.
    """
    listing = walk(root)
    faults = Issues(listing.issues)
    files = _by_case(root, listing.images, faults)
    labelled = sum(len(words) for words in files.values() if _label(words))
    if not files or (data.layout == "auto" and not _obvious(files, labelled, len(listing.images))):
        return None
    usual = Counter(
        _channels(words) for words in files.values() if _label(words) or not labelled
    ).most_common(1)[0][0]
    if not usual:
        return None
    issues += faults
    cases = []
    for place, words in sorted(files.items()):
        label = _label(words)
        if _channels(words) != usual:
            own, others = (", ".join(names) or "none" for names in (_channels(words), usual))
            where = root / next(iter(words.values()))
            problem = f"has the images {own} where other cases have {others}"
            issues.error(where, problem, "Add the missing files, or remove the case")
            continue
        if label is None and labelled:
            remedy = f"Add {place.name}_{LABEL_WORDS[0]}, or move it to an unlabelled folder"
            issues.error(root / words[usual[0]], "has no label", remedy)
        images = tuple(root / words[word] for word in usual)
        cases.append(Case(place.name, images, label=root / label if label else None))
    channels = ("image",) if len(usual) == 1 and usual[0] in IMAGE_WORDS else usual
    classes = declared_classes(root, issues)
    return build(root, "suffixes", cases, data, issues, classes=classes, channels=channels)


def _by_case(root: Path, images: list[PurePosixPath], issues: Issues) -> Files:
    files: Files = defaultdict(dict)
    for path in images:
        match = re.fullmatch(r"(.+)[_-]([^_-]+)", stem(path))
        if match is None:
            continue
        words, word = files[path.parent / match[1]], match[2].lower()
        if words.setdefault(word, path) != path:
            problem = f"is the same part of the case as {words[word].name}"
            issues.error(root / path, problem, KEEP_ONE)
    return files


def _obvious(files: Files, labelled: int, images: int) -> bool:
    """Whether enough of the images fit for the layout to be recognized."""
    if labelled:
        return 2 * labelled >= images
    words = {word for case in files.values() for word in case}
    return len(words) > 1 and words <= SEQUENCES and sum(map(len, files.values())) == images


def _label(words: dict[str, PurePosixPath]) -> PurePosixPath | None:
    return next((words[word] for word in LABEL_WORDS if word in words and len(words) > 1), None)


def _channels(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if word not in LABEL_WORDS))
