"""``images/`` and ``labels/`` (or ``masks/``), matched by file name without suffix.

So are BTCV (``img/img0001.nii.gz``, ``label/label0001.nii.gz``) and FLARE22
(``images/CASE_0000.nii.gz``, ``labels/CASE.nii.gz``), and sets with a folder per class of the whole image
(``COVID/images/1.png``, ``COVID/masks/1.png``). Montgomery (``CXR_png/1.png``, ``ManualMask/leftMask/1.png``)
has a mask per structure, see ``by_structure``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import declared_classes
from ..dataset import Case, Dataset
from ..issues import Issues, some
from ..names import unified
from .build import KEEP_ONE, build
from .by_structure import Structures, masks_by_structure, structure_names
from .doubts import guessing
from .experts import first_experts, say_experts
from .listing import SPLITS, is_dicom, key, walk
from .pair_folders import MARK, Part, part_folders

EXPECTED = "images/ and labels/ (or masks/) with files of the same names"
CHANNEL = re.compile(r"_0000$")
"""The only channel of an image, as nnU-Net and FLARE22 name it."""
ROLE = re.compile(
    r"(?:(?<=/)|^)(?:img|image|volume|label|mask|seg|segmentation)[_-]?(?=\d+$)", re.IGNORECASE
)
"""What a file is, before its number."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """Images with label maps, at the top, inside folders named after splits or classes, or with such folders inside.

    An image without a label and a label without an image are errors; under ``skip_bad`` the former
    stays as an unlabelled case. A folder of DICOM slices in ``images/`` is one image, named after
    the folder. A folder around both is the class of the whole image (``pair_folders``).

    Raises:
        InputError: ``labels/`` has no ``images/`` beside it, or either has several candidates; folders of
            structures differ between parts, or ``label_values`` is given beside them.
    """
    if root.is_file():
        return None
    cases: list[Case] = []
    found = False
    tests: list[Part] = []
    structures: list[Structures] = []
    later: set[Path] = set()
    for part in part_folders(root, guessing(root, data)):
        if part.labels is None and part.images is not None and part.split == "test":
            tests.append(part)
        elif part.labels is None and part.images is not None and part.folder:
            problem = (
                "is a folder of images without masks/ beside it, where other folders have both"
            )
            issues.error(part.images, problem, "Add the masks, or move the images elsewhere")
            cases += _unlabelled(part, issues)
        if part.labels is None or (part.images is None and data.layout != "auto"):
            continue
        if part.images is None:
            remedy = f"Call the folder of the images {part.labels.parent / 'images'}"
            raise InputError(part.labels, "is a folder of labels without images/ beside it", remedy)
        found = True
        masks = masks_by_structure(part.images, part.labels)
        structures.append(masks)
        _, others = first_experts(walk(part.labels).images)
        say_experts(part.labels, others, issues)
        later.update(part.labels / path for path in others)
        cases += _match(part, part.images, part.labels, masks, issues)
    if not found:
        return None
    cases = _with_split_folders(cases)
    if tests and {case.split for case in cases} <= {None, "train"}:
        # The test labels were never released: the other cases are split as in any data set.
        cases = [replace(case, split=None) for case in cases]
        cases += [case for part in tests for case in _unlabelled(part, issues)]
    classes = declared_classes(root, issues) or structure_names(root, structures, data)
    dataset = build(root, "pairs", cases, data, issues, classes=classes)
    return replace(dataset, passed_over=dataset.passed_over | later)


def _unlabelled(part: Part, issues: Issues) -> list[Case]:
    twice: set[Path] = set()
    images = _by_key(part.images, twice, issues) if part.images else {}
    return [_case(part, name, path) for name, path in sorted(images.items()) if path not in twice]


def _case(part: Part, name: str, image: Path) -> Case:
    """A case without a label, named after the folders around it."""
    wanted = "/".join(filter(None, (part.split, part.folder, name)))
    return Case(wanted, (image,), split=part.split, target=part.target)


def _with_split_folders(cases: list[Case]) -> list[Case]:
    """Cases with the split of their folder, where all of ``images/`` lies in ``images/train``, ``images/val``, ..."""
    tops = [SPLITS.get(case.name.partition("/")[0].lower()) for case in cases if "/" in case.name]
    if len(tops) < len(cases) or None in tops or len(set(tops)) < 2:
        return cases
    return [replace(case, split=split) for case, split in zip(cases, tops, strict=True)]


def _match(
    part: Part, images: Path, labels: Path, structures: Structures, issues: Issues
) -> list[Case]:
    twice: set[Path] = set()
    pictures, series = _examinations(images, twice, issues)
    maps = dict.fromkeys(structures.masks, labels) or _by_key(
        labels, twice, issues, first_experts(walk(labels).images)[1]
    )
    single: Callable[[str], str] = partial(CHANNEL.sub, "")
    for plain in (unified, single, partial(ROLE.sub, ""), partial(MARK.sub, "")):
        idle = [name for name in pictures if name not in maps]
        spare = [name for name in maps if name not in pictures]
        for name, own in _loosely(idle, spare, plain).items():
            # The case of CASE_0000 is CASE; of img0001 and label0001, 1 and 1_mask it is that of the image.
            kept = own if plain is single else name
            maps[kept], pictures[kept] = maps.pop(own), pictures.pop(name)
    several = _refuse_channels(pictures, maps, issues)
    cases = []
    for name, path in sorted(pictures.items()):
        label = maps.pop(name, None)
        if name in several or not twice.isdisjoint({path, label}):
            continue
        if label is None:
            remedy = f"Add {labels / name} with its suffix, or move the image elsewhere"
            issues.error(path, "has no label", remedy)
        masks = structures.of(name, issues) if label == labels else ()
        label = None if label == labels and not masks else label
        case = _case(part, name, path)
        cases.append(replace(case, label=label, label_parts=masks, series=series.get(name, ())))
    for name, label in sorted(maps.items()):
        if label in twice or name in several:
            continue
        remedy = f"Add {images / name} with its suffix, or remove the label"
        issues.error(label, "is a label without an image", remedy)
    return cases


def _refuse_channels(
    pictures: Mapping[str, Path], maps: Mapping[str, Path], issues: Issues
) -> set[str]:
    """An error for each label of several images ``CASE_ct``, ``CASE_pt``; the names of these and of the label."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(pictures):
        label = name.rpartition("_")[0].rstrip("_")
        first = pictures[label].name if label in pictures else "_0000."
        if name not in maps and label in maps and "_0000." in first:
            found[label].append(name)
    several = {}
    for label, names in found.items():
        images = [pictures[name].name for name in (label, *names) if name in pictures]
        if len(images) < 2:
            continue
        several[label] = names
        problem = f"is the label of several images ({some(images)})"
        remedy = f"Channels of one case are {label}_0000, {label}_0001, ... beside a dataset.json as nnU-Net has them"
        issues.error(maps[label], problem, f"{remedy}; move away what is no channel")
    return {*several, *(name for names in several.values() for name in names)}


def _loosely(
    images: Iterable[str], labels: Iterable[str], plain: Callable[[str], str]
) -> dict[str, str]:
    """Name of the label by name of the image, where ``plain`` makes them equal, and unique."""
    cores: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for names, found in zip((images, labels), cores, strict=True):
        for name in names:
            found[plain(name)].append(name)
    return {
        names[0]: cores[1][core][0]
        for core, names in cores[0].items()
        if len(names) == len(cores[1].get(core, ())) == 1
    }


def _by_key(
    folder: Path, twice: set[Path], issues: Issues, without: Collection[PurePosixPath] = ()
) -> dict[str, Path]:
    """Images by name, but not those in ``without``, nor those directly in one of its folders.

    ``twice`` receives those beside which lies another of the same name.
    """
    listing = walk(folder)
    issues += listing.issues
    found: dict[str, Path] = {}
    for relative in listing.images:
        name, path = key(relative), folder / relative
        if without and not {relative, relative.parent}.isdisjoint(without):
            continue
        if found.setdefault(name, path) != path:
            issues.error(path, f"has the same name as {found[name].name}", KEEP_ONE)
            twice.add(found[name])
    return found


def _examinations(
    images: Path, twice: set[Path], issues: Issues
) -> tuple[dict[str, Path], dict[str, tuple[Path, ...]]]:
    """Images by name, where a folder of at least two DICOM slices is one of them."""
    slices: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for relative in walk(images).images:
        if relative.parent.parts and is_dicom(images / relative):
            slices[relative.parent].append(relative)
    folders = {folder: files for folder, files in slices.items() if len(files) > 1}
    found = _by_key(images, twice, issues, folders.keys())
    series = {}
    for folder, files in folders.items():
        if file := found.get(folder.as_posix()):
            issues.error(images / folder, f"has the same name as {file.name}", KEEP_ONE)
            twice.add(images / folder)
        found[folder.as_posix()] = images / folder
        series[folder.as_posix()] = tuple(images / file for file in files)
    return found, series
