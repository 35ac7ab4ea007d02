"""Raw data of nnU-Net 2 (github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config import IGNORE, Data
from ...errors import InputError
from ...system.files import read_json
from ..class_names import class_names
from ..dataset import Case, Dataset
from ..issues import Issues
from ..names import composed, listed_fold
from .build import KEEP_ONE, build
from .listing import inside, walk

EXPECTED = "dataset.json with channel_names, imagesTr/ and labelsTr/"


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``, ``imagesTs/`` and ``dataset.json``.

    Cases of ``imagesTs`` are the test; fold 0 of ``splits_final.json``, if there, divides the others
    into train and validation. A single file may hold all channels (RGB).

    Raises:
        InputError: ``dataset.json`` or ``splits_final.json`` cannot be understood.
    """
    path = root / "dataset.json"
    content = read_json(path) if path.is_file() else None
    if not isinstance(content, dict) or not {"channel_names", "file_ending"} <= content.keys():
        return None
    ending, names = content["file_ending"], content["channel_names"]
    if not isinstance(ending, str) or not isinstance(names, dict) or not names:
        raise InputError(path, "lacks channel_names or file_ending", "Follow nnU-Net's format")
    channels = tuple(str(names[number]) for number in sorted(names, key=lambda n: int(n)))
    labels, ignored = _labels(content.get("labels"))
    classes = class_names(labels, path)
    if isinstance(content.get("dataset"), dict):
        cases = _listed(root, content["dataset"], path, issues)
    else:
        cases = _in_folders(root, "Tr", ending, len(channels), issues)
    cases += _in_folders(root, "Ts", ending, len(channels), issues)
    folds = root / "splits_final.json"
    fold = listed_fold(folds, 0) if folds.is_file() else {}
    cases = [
        replace(case, split=case.split or fold.get(case.name), ignore_value=ignored)
        for case in cases
    ]
    return build(root, "nnunet", cases, data, issues, classes=classes, channels=channels)


def _labels(labels: Any) -> tuple[Any, int | None]:
    """The labels without ``ignore``, and its value where that is not 255."""
    if not isinstance(labels, dict) or "ignore" not in labels:
        return labels, None
    value = labels["ignore"]
    others = {name: number for name, number in labels.items() if name != "ignore"}
    whole = isinstance(value, int) and not isinstance(value, bool)
    return others, value if whole and value != IGNORE else None


def _in_folders(root: Path, part: str, ending: str, channels: int, issues: Issues) -> list[Case]:
    """Cases of ``imagesTr`` or ``imagesTs`` by their file names."""
    folder, labels = root / f"images{part}", root / f"labels{part}"
    if not folder.is_dir():
        return []
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    twice: set[str] = set()
    for path in _images(folder, issues):
        name, _, number = path.name.removesuffix(ending).rpartition("_")
        if path.name.endswith(ending) and name and len(number) == 4 and number.isdecimal():
            first = files[composed(name)].setdefault(int(number), path)
            if first != path:
                issues.error(path, f"has the same name as {first.name}", KEEP_ONE)
                twice.add(composed(name))
        else:
            issues.error(path, "is no channel of a case", f"Call it CASE_0000{ending}")
    maps: dict[str, Path] = {}
    for path in _images(labels, issues):
        name = composed(path.name.removesuffix(ending))
        if path.name.endswith(ending) and maps.setdefault(name, path) != path:
            issues.error(path, f"has the same name as {maps[name].name}", KEEP_ONE)
            twice.add(name)
    cases = []
    for name, by_number in sorted(files.items()):
        label = maps.pop(name, None)
        images = _all_channels(folder / f"{name}_NNNN{ending}", by_number, channels, issues)
        if part == "Tr" and label is None:
            remedy = f"Add {labels / (name + ending)}, or move the case to imagesTs"
            issues.error(by_number[min(by_number)], "has no label", remedy)
        if images and name not in twice:
            cases.append(Case(name, images, label, split="test" if part == "Ts" else None))
    for label in maps.values():
        remedy = f"Add its image to {folder}, or remove the label"
        issues.error(label, "is a label without an image", remedy)
    return cases


def _images(folder: Path, issues: Issues) -> list[Path]:
    listing = walk(folder)
    issues += listing.issues
    return [folder / path for path in listing.images]


def _all_channels(
    where: Path, by_number: dict[int, Path], channels: int, issues: Issues
) -> tuple[Path, ...]:
    """The files in order of channels, or () and an issue where some are missing."""
    numbers = sorted(by_number)
    one = numbers == [0] and by_number[0].name.lower().endswith((".png", ".tif", ".tiff"))
    if one or numbers == list(range(channels)):
        return tuple(by_number[number] for number in numbers)
    present = ", ".join(f"{number:04d}" for number in numbers)
    problem = f"has the channels {present} where dataset.json declares {channels}"
    issues.error(where, problem, "Add the missing files, or correct channel_names")
    return ()


def _listed(root: Path, entries: dict[str, Any], path: Path, issues: Issues) -> list[Case]:
    """Cases that ``dataset.json`` lists itself, under ``dataset``."""
    cases = []
    for name, entry in entries.items():
        where = f"{path}, case {name}"
        with issues.collected():
            try:
                images = tuple(inside(root, str(file), where) for file in entry["images"])
                if not images:
                    raise KeyError("images")
                cases.append(Case(name, images, inside(root, str(entry["label"]), where)))
            except (KeyError, TypeError):
                remedy = 'Write {"images": [...], "label": ...}'
                issues.error(where, "lacks images or label", remedy)
    return cases
