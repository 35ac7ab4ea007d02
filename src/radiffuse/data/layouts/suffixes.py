"""Files whose last word says what they are, ``CASE_t1``, ``CASE_seg``, in one folder or one per case.

So are BraTS (``BraTS2021_00000/BraTS2021_00000_flair.nii.gz`` ... ``_seg.nii.gz``) and many sets in
one folder (``001_img.nii``, ``001_mask.nii``). ISIC and BUSI name the image by the case alone
(``001.jpg``, ``001_mask.png``; of BUSI also ``001_mask_1.png``); others give each case a folder
(``001/image.png``, ``001/mask.png``). Masks of BIDS may lie elsewhere, see ``bids``; where the first word says what a
file is (LiTS: ``volume-1.nii``, ``segmentation-1.nii``), see ``numbered``; of several experts, see ``experts``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues
from ..names import composed
from .bids import MASK, places_of_masks
from .build import KEEP_ONE, build
from .doubts import guessing
from .experts import EXPERT, first_experts, say_experts
from .listing import LABEL_WORDS, SPLITS, is_picture, stem, walk
from .numbered import TEST, places_of_numbers

EXPECTED = "files called CASE_t1, CASE_t2, ... and CASE_seg (or CASE_img and CASE_mask)"
IMAGE_WORDS = ("img", "image")
"""Last words that only say that a file is an image."""
SEQUENCES = {
    *("t1", "t1w", "t1n", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "flair", "pd", "adc", "dwi"),
    *("swi", "ct", "pet"),
}
"""Last words that are channels of one case even where nothing is labelled."""
NUMBERED = re.compile(rf"(?:(.+)[_-])?({'|'.join(LABEL_WORDS)})[_-](\d+)", re.IGNORECASE)
"""A further mask of an image that has one without a number."""

Files = dict[PurePosixPath, dict[str, PurePosixPath]]
"""By common part of the path, files by last word."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Files that share all but the last word of their name, after ``_`` or ``-``, are one case.

    So are images and a mask of BIDS, an image ``CASE`` and its label ``CASE_mask``, and the files of a folder with a
    label ``mask``.
    A last word in ``LABEL_WORDS`` is the label, any other a channel, in alphabetical order. ``CASE_mask_1`` is joined
    with ``CASE_mask``. All cases need the same channels; one without a label is an error, and unlabelled under
    ``skip_bad``; one with several labels, or two files of one name, is an error and left out. Files without any label
    fit only if their words are in ``SEQUENCES`` or the layout was named.
    """
    listing = walk(root)
    faults = Issues(listing.issues)
    twice: set[PurePosixPath] = set()
    found, later = first_experts(listing.images)
    files = _by_case(root, found, guessing(root, data), twice, faults)
    labelled = sum(len(words) for words in files.values() if _labels(words))
    if not files or (data.layout == "auto" and not _obvious(files, labelled, len(found))):
        return None
    usual = Counter(
        _channels(words) for words in files.values() if _labels(words) or not labelled
    ).most_common(1)[0][0]
    if not usual:
        return None
    issues += faults
    cases, passed, splits = [], twice | _accompanying(files), _split_folders(files)
    for place, words in sorted(files.items()):
        labels = tuple(root / path for path in _labels(words))
        if place in passed:
            continue
        if len(kinds := sorted({_kind(word) for word in words if _kind(word)})) > 1:
            problem = f"has several label maps ({' and '.join(kinds)})"
            issues.error(labels[0], problem, "Keep one of them in the folder")
            continue
        split = "test" if TEST.fullmatch(place.name) else splits.get(place)
        if split == "test" and not labels and len(usual) == 1:  # named by the case alone (SegTHOR)
            cases += [Case(stem(path), (root / path,), split=split) for path in words.values()]
            continue
        if _channels(words) != usual:
            own, others = (", ".join(names) or "none" for names in (_channels(words), usual))
            where = root / next(iter(words.values()))
            problem = f"has the images {own} where other cases have {others}"
            issues.error(where, problem, "Add the missing files, or remove the case")
            continue
        if not labels and labelled and split != "test":
            remedy = f"Add {place.name}_{LABEL_WORDS[0]}, or move it to an unlabelled folder"
            issues.error(root / words[usual[0]], "has no label", remedy)
        images = tuple(root / words[word] for word in usual)
        parts = labels if len(labels) > 1 else ()
        label = labels[0] if labels else None
        cases.append(Case(place.name, images, label, label_parts=parts, split=split))
    if several := [case.label.name for case in cases if case.label and case.label_parts]:
        problem = f"has {len(several)} images with numbered masks beside one, such as {several[0]}: they are joined"
        issues.warning(root, problem, "Make sure that they are pieces of one label")
    channels = ("image",) if len(usual) == 1 and usual[0] in IMAGE_WORDS else usual
    classes = declared_classes(root, issues)
    say_experts(root, later, issues)
    dataset = build(root, "suffixes", cases, data, issues, classes=classes, channels=channels)
    return replace(dataset, passed_over=dataset.passed_over.union(root / path for path in later))


def _by_case(
    root: Path,
    images: list[PurePosixPath],
    guess: bool,
    twice: set[PurePosixPath],
    issues: Issues,
) -> Files:
    """``guess``: labels may be named after a whole image, or alone in a folder; ``twice`` receives unclear cases."""
    files: Files = defaultdict(dict)

    def add(place: PurePosixPath, word: str, path: PurePosixPath) -> None:
        first = files[place].setdefault(word, path)
        if first != path:
            problem = f"is the same part of the case as {first.name}"
            issues.error(root / spelled[path], problem, KEEP_ONE)
            twice.add(place)

    spelled = {PurePosixPath(composed(path.as_posix())): path for path in images}
    if len(spelled) < len(images):  # names that differ in nothing but their accents stay apart
        spelled = {path: path for path in images}
    masks = places_of_masks(spelled)
    parts = {p: (masks[p], MASK) if p in masks else _part(p) for p in spelled}
    parts |= places_of_numbers(spelled) if guess else {}
    known = set(parts.values())
    for path in parts:
        if further := NUMBERED.fullmatch(stem(path)):
            place, word = path.parent / (further[1] or ""), further[2].lower()
            if (place, word) in known:
                parts[path] = place, f"{word}_{further[3]}"
    for path, (place, word) in parts.items():
        if word:
            add(place, word, path)
    alone = {place for place, words in files.items() if guess and not _channels(words)}
    others = [path for path, (_, word) in parts.items() if not _kind(word)]
    whole = [path for path in others if path.parent / stem(path) in alone]
    if whole:  # then every image is a case, named by its whole name
        taken = {path for words in files.values() if _labels(words) for path in words.values()}
        moved = {path: (path.parent / stem(path), IMAGE_WORDS[1]) for path in others}
        moved = {path: part for path, part in moved.items() if path not in taken}
    else:
        inner = {p.parent for place in alone for p in files[place].values() if p.parent == place}
        moved = {p: (p.parent, _word_alone(p)) for p in others if p.parent in inner}
    for path, (place, word) in moved.items():
        files[parts[path][0]].pop(parts[path][1], None)
        add(place, word, path)
    return {
        place: {word: spelled[path] for word, path in words.items()}
        for place, words in files.items()
        if words
    }


def _part(path: PurePosixPath) -> tuple[PurePosixPath, str]:
    """The common part of the path of a file, and its last word in lower case, or ''."""
    name = stem(path)
    if name.lower() in LABEL_WORDS and path.parent.parts:
        return path.parent, name.lower()
    if match := EXPERT.fullmatch(name):
        return path.parent / match[1], MASK
    match = re.fullmatch(r"(.+)[_-]([^_-]+)", name)
    return (path.parent / match[1], match[2].lower()) if match else (path, "")


def _word_alone(path: PurePosixPath) -> str:
    """What a file without a mark is in its folder: its name, unless that is only the folder's (SegTHOR)."""
    name = stem(path).lower()
    return IMAGE_WORDS[1] if name == path.parent.name.lower() else name


def _split_folders(files: Files) -> dict[PurePosixPath, str]:
    """The split of each place, where all lie in two or more top folders named after splits (ACDC); else none."""
    splits = {
        p: SPLITS[p.parts[0].lower()] for p in files if p.parts[1:] and p.parts[0].lower() in SPLITS
    }
    return splits if len(splits) == len(files) and len({*splits.values()}) > 1 else {}


def _accompanying(files: Files) -> set[PurePosixPath]:
    """Places of files without a label that only come with labelled cases: ``check`` names them, and they are no error.

    So are cines of which frames are labelled (``patient001_4d`` of ACDC), previews of volumes (VerSe), and what lies
    in a folder of a case (``case_00000/instances`` of KiTS23), unless it has the images of a case itself.
    """
    labelled = {place: words for place, words in files.items() if _labels(words)}
    channels = {_channels(words) for words in labelled.values()}
    pictured = any(is_picture(path) for words in labelled.values() for path in words.values())
    folders = {p for p, words in labelled.items() if all(f.parent == p for f in words.values())}

    def accompanies(place: PurePosixPath, words: dict[str, PurePosixPath]) -> bool:
        cine = place.name.lower().endswith(("_4d", "-4d")) or "4d" in words
        preview = not pictured and all(map(is_picture, words.values()))
        inside = not folders.isdisjoint(place.parents) and _channels(words) not in channels
        return cine or preview or inside

    others = (
        (place, words) for place, words in files.items() if labelled and place not in labelled
    )
    return {place for place, words in others if accompanies(place, words)}


def _obvious(files: Files, labelled: int, images: int) -> bool:
    """Whether enough of the images fit for the layout to be recognized."""
    if labelled:
        return 2 * sum(len(words) for words in files.values() if _labels(words)) >= images
    words = {word for case in files.values() for word in case}
    return len(words) > 1 and words <= SEQUENCES and sum(map(len, files.values())) == images


def _kind(word: str) -> str:
    """The word in ``LABEL_WORDS`` that says that a file is a label, with or without a number behind it, or ''."""
    kind, _, number = word.partition("_")
    return kind if kind in LABEL_WORDS and (number.isdecimal() or kind == word) else ""


def _labels(words: dict[str, PurePosixPath]) -> tuple[PurePosixPath, ...]:
    """The label maps of a case, that without a number first; () where it has no image."""
    found = sorted((word for word in words if _kind(word)), key=lambda word: (len(word), word))
    return tuple(words[word] for word in found) if _channels(words) else ()


def _channels(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in words if not _kind(word)))
