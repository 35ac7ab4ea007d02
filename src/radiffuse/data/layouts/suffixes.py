"""One folder, or one folder per case, where the end of a file's name says what it is: ``CASE_t1``, ``CASE_seg``.

BraTS comes like this (``BraTS2021_00000/BraTS2021_00000_flair.nii.gz`` ... ``_seg.nii.gz``), and many sets that lie in
one folder (``001_img.nii``, ``001_mask.nii``).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from ...config import Data
from ..dataset import Case, Dataset
from ..documents import declared_classes
from ..issues import Issue
from ..listing import stem, walk
from .build import Draft, build

LABEL_WORDS = ("seg", "mask", "label", "labels", "segmentation", "annotation")
"""Last words of the names of label maps."""
IMAGE_WORDS = ("img", "image")
"""Last words that say no more than that a file is an image."""

Files = dict[PurePosixPath, dict[str, PurePosixPath]]
"""By common part of the path, files by last word."""


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """Files that share all but the last word of their name, split off by ``_``, are one case.

    A last word such as ``seg`` or ``mask`` is the label, each other one a channel, in alphabetical order. Every case
    needs the same channels; one without a label is an error, and an unlabelled case under ``skip_bad``.
    """
    if root.is_file():
        return None
    listing = walk(root)
    files = _by_case(listing.images)
    labelled = sum(len(words) for words in files.values() if _label(words))
    # By itself the layout is taken only where most of what lies there fits it.
    if not labelled or (data.layout == "auto" and 2 * labelled < len(listing.images)):
        return None
    issues += listing.issues
    usual = _usual_channels(files)
    drafts = []
    for case, words in sorted(files.items()):
        label = _label(words)
        images = {word: path for word, path in words.items() if word not in LABEL_WORDS}
        if tuple(sorted(images)) != usual:
            where = str(root / next(iter(words.values())))
            problem = f"has the images {_list(images)} where other cases have {_list(usual)}"
            issues.append(
                Issue("error", where, problem, "Add the missing files, or remove the case")
            )
            continue
        first = images[usual[0]]
        if label is None:
            remedy = f"Add {case.name}_{LABEL_WORDS[0]}, or move it to an unlabelled folder"
            issues.append(Issue("error", str(root / first), "has no label", remedy))
        paths = tuple(root / images[word] for word in usual)
        drafts.append(Draft(first, Case(case.name, paths, label=root / label if label else None)))
    channels = ("image",) if len(usual) == 1 and usual[0] in IMAGE_WORDS else usual
    classes = declared_classes(root, issues)
    return build(root, "suffixes", drafts, data, issues, classes=classes, channels=channels)


def _by_case(images: list[PurePosixPath]) -> Files:
    files: Files = defaultdict(dict)
    for path in images:
        name, _, word = stem(path).rpartition("_")
        if name and word:
            files[path.parent / name][word.lower()] = path
    return files


def _label(words: dict[str, PurePosixPath]) -> PurePosixPath | None:
    return next((words[word] for word in LABEL_WORDS if word in words and len(words) > 1), None)


def _usual_channels(files: Files) -> tuple[str, ...]:
    counts = Counter(
        tuple(sorted(word for word in words if word not in LABEL_WORDS))
        for words in files.values()
        if _label(words)
    )
    return counts.most_common(1)[0][0]


def _list(words: object) -> str:
    return ", ".join(words) or "none"  # type: ignore[arg-type]
