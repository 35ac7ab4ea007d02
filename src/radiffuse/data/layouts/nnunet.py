"""Raw data of nnU-Net 2 (github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...config import IGNORE, Data
from ...errors import InputError
from ..class_names import class_names
from ..dataset import Case, Dataset
from ..documents import read_json
from ..issues import Issue
from .build import Draft, build
from .listing import inside, walk


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz``, ``imagesTs/`` and ``dataset.json``.

    Cases of ``imagesTs`` have the split test. Where ``splits_final.json`` lies beside it, its fold
    0 parts the others into train and validation. A single file may hold all channels (RGB).

    Raises:
        InputError: ``dataset.json`` or ``splits_final.json`` cannot be understood.
    """
    path = root / "dataset.json"
    if root.is_file() or not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not {"channel_names", "file_ending"} <= content.keys():
        return None
    ending, names = content["file_ending"], content["channel_names"]
    if not isinstance(ending, str) or not isinstance(names, dict) or not names:
        raise InputError(
            path, "has no usable channel_names or file_ending", "Follow nnU-Net's format"
        )
    channels = tuple(str(names[number]) for number in sorted(names, key=lambda n: int(n)))
    labels, ignored = _labels(content.get("labels"))
    classes = class_names(labels, path)
    if isinstance(content.get("dataset"), dict):
        drafts = _listed(root, content["dataset"], path, issues)
    else:
        drafts = _found(root, "Tr", ending, len(channels), issues)
    drafts += _found(root, "Ts", ending, len(channels), issues)
    fold = _first_fold(root / "splits_final.json")
    drafts = [_with_split(draft, fold, ignored) for draft in drafts]
    return build(root, "nnunet", drafts, data, issues, classes=classes, channels=channels)


def _labels(labels: Any) -> tuple[Any, int | None]:
    """The labels without ``ignore``, and its value where that is not 255."""
    if not isinstance(labels, dict) or "ignore" not in labels:
        return labels, None
    value = labels["ignore"]
    others = {name: number for name, number in labels.items() if name != "ignore"}
    whole = isinstance(value, int) and not isinstance(value, bool)
    return others, value if whole and value != IGNORE else None


def _found(root: Path, part: str, ending: str, channels: int, issues: list[Issue]) -> list[Draft]:
    """Cases of ``imagesTr`` or ``imagesTs`` by their file names."""
    folder, labels = root / f"images{part}", root / f"labels{part}"
    if not folder.is_dir():
        return []
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    listing = walk(folder)
    issues += listing.issues
    for relative in listing.images:
        name, _, number = relative.name.removesuffix(ending).rpartition("_")
        if relative.name.endswith(ending) and name and len(number) == 4 and number.isdecimal():
            files[name][int(number)] = folder / relative
        else:
            remedy = f"Call it CASE_0000{ending}, as dataset.json says"
            issues.append(Issue("error", str(folder / relative), "is no channel of a case", remedy))
    maps = _label_maps(labels, ending, issues)
    drafts = []
    for name, by_number in sorted(files.items()):
        label = maps.pop(name, None)
        images = _all_channels(folder / f"{name}_NNNN{ending}", by_number, channels, issues)
        if part == "Tr" and label is None:
            remedy = f"Add {labels / (name + ending)}, or move the case to imagesTs"
            issues.append(Issue("error", str(by_number[min(by_number)]), "has no label", remedy))
        if images:
            drafts.append(_draft(root, name, images, label, "test" if part == "Ts" else None))
    for label in maps.values():
        remedy = f"Add its image to {folder}, or remove the label"
        issues.append(Issue("error", str(label), "is a label without an image", remedy))
    return drafts


def _label_maps(folder: Path, ending: str, issues: list[Issue]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    listing = walk(folder)
    issues += listing.issues
    return {
        path.name.removesuffix(ending): folder / path
        for path in listing.images
        if path.name.endswith(ending)
    }


def _all_channels(
    where: Path, by_number: dict[int, Path], channels: int, issues: list[Issue]
) -> tuple[Path, ...]:
    """The files in order of channels, or () and a line where some are missing."""
    numbers = sorted(by_number)
    if numbers == list(range(channels)) or numbers == [0]:
        if len(numbers) < channels and not by_number[0].name.lower().endswith(
            (".png", ".tif", ".tiff")
        ):
            numbers = []
    else:
        numbers = []
    if not numbers:
        present = ", ".join(f"{number:04d}" for number in sorted(by_number))
        problem = f"has the channels {present} where dataset.json declares {channels}"
        remedy = "Add the missing files, or correct channel_names"
        issues.append(Issue("error", str(where), problem, remedy))
    return tuple(by_number[number] for number in numbers)


def _listed(root: Path, cases: dict[str, Any], path: Path, issues: list[Issue]) -> list[Draft]:
    """Cases that ``dataset.json`` lists itself, under ``dataset``."""
    drafts = []
    for name, entry in cases.items():
        where = f"{path}, case {name}"
        try:
            images = tuple(inside(root, str(file), where) for file in entry["images"])
            label = inside(root, str(entry["label"]), where)
        except (KeyError, TypeError):
            remedy = 'Write {"images": [...], "label": ...}'
            issues.append(Issue("error", where, "lacks images or label", remedy))
        except InputError as error:
            issues.append(Issue.of(error))
        else:
            drafts.append(_draft(root, name, images, label, None))
    return drafts


def _draft(
    root: Path, name: str, images: tuple[Path, ...], label: Path | None, split: str | None
) -> Draft:
    relative = PurePosixPath(images[0].relative_to(root).as_posix())
    return Draft(relative, Case(name, images, label=label, split=split))


def _first_fold(path: Path) -> dict[str, str]:
    """Split by name of case, from fold 0 of ``splits_final.json``; {} where there is none."""
    if not path.is_file():
        return {}
    folds = read_json(path)
    try:
        fold = {str(name): "train" for name in folds[0]["train"]}
        return fold | {str(name): "validation" for name in folds[0]["val"]}
    except (IndexError, KeyError, TypeError):
        raise InputError(
            path, "is no list of folds with train and val", "Remove or repair it"
        ) from None


def _with_split(draft: Draft, fold: dict[str, str], ignored: int | None) -> Draft:
    split = draft.case.split or fold.get(draft.case.name)
    return replace(draft, case=replace(draft.case, split=split, ignore_value=ignored))
