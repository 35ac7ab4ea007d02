"""A folder per case with the scan and a mask per structure, as TotalSegmentator has and writes them.

``s0001/ct.nii.gz``, ``s0001/segmentations/liver.nii.gz`` (Wasserthal et al. 2023,
doi 10.1148/ryai.230024); AbdomenAtlas too.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...config import Data
from ...errors import InputError
from ..class_names import Key, classes_of_set, name_key, organ
from ..dataset import Case, Dataset
from ..issues import Issues, some
from ..names import composed
from ..tables import read_table
from .build import KEEP_ONE, build, named
from .listing import SPLITS, entries, stem, walk

EXPECTED = "folders that hold a scan and segmentations/ with a mask per structure"
MASKS = "segmentations"


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """``CASE/`` with one image file and ``segmentations/``, a binary mask per structure.

    The classes are those of ``class_names`` in that order, whatever the spelling; else the structures
    that most cases have, in the order of TotalSegmentator 2, then by name. A case without one of them
    is an error. ``meta.csv``, with the columns image_id and split, declares the splits.

    Raises:
        InputError: ``class_names`` names a structure that no case has, or ``label_values`` is given.
    """
    if root.is_file():
        return None
    folders = [p for p in entries(root) if p.is_dir() and not p.name.startswith(".")]
    if not any(os.path.isdir(folder / MASKS) for folder in folders):
        return None
    if data.label_values is not None:
        remedy = "Choose and order the structures with --reader.class-names alone"
        raise InputError(root, "has a file for each class, without values to be named", remedy)
    images, masks = {}, {}
    for folder in folders:
        image, found = _files(folder, issues)
        if image is not None:
            images[folder], masks[folder] = image, found
    chosen, classes = _choose(root, data, [found for found in masks.values() if found])
    splits = _splits(root / "meta.csv")
    cases = []
    for folder, image in images.items():
        named_keys = zip(chosen, classes[1:], strict=True)
        lacking = [name for key, name in named_keys if key not in masks[folder]]
        if lacking:
            remedy = f"Add them to {MASKS}/, empty if a structure is absent, or leave the case out"
            issues.error(folder, f"lacks the masks of {some(lacking)}", remedy)
        parts = () if lacking else tuple(masks[folder][key] for key in chosen)
        label, split = folder / MASKS if parts else None, splits.get(composed(folder.name))
        cases.append(Case(folder.name, (image,), label, label_parts=parts, split=split))
    dataset = build(root, "totalsegmentator", cases, data, issues, classes=classes)
    unused = {path for found in masks.values() for path in found.values()}
    return replace(dataset, passed_over=dataset.passed_over | unused)


def _files(folder: Path, issues: Issues) -> tuple[Path | None, dict[Key, Path]]:
    """The image of a case, and its masks by the key of their names."""
    listing = walk(folder)
    issues += listing.issues
    images = [path for path in listing.images if len(path.parts) == 1]
    if len(images) != 1:
        if listing.images:
            problem = f"holds {len(images)} images beside {MASKS}/ where one is the scan"
            issues.error(folder, problem, "Keep the scan alone")
        return None, {}
    inner = [path for path in listing.images if path.parts[0] == MASKS and len(path.parts) == 2]
    masks: dict[Key, Path] = {}
    for path in inner:
        first = masks.setdefault(name_key(organ(stem(path))), folder / path)
        if first != folder / path:
            problem = f"is a mask of the same structure as {first.name}"
            issues.error(folder / path, problem, KEEP_ONE)
            return None, {}
    return folder / images[0], masks


def _choose(
    root: Path, data: Data, masks: list[dict[Key, Path]]
) -> tuple[list[Key], tuple[str, ...]]:
    """Keys of the structures that become classes 1, 2, ..., and the names of all classes."""
    counts = Counter(key for found in masks for key in found)
    names = named(data)
    if names is not None:
        keys = [name_key(organ(name)) for name in names[1:]]
        if len(set(keys)) < len(keys):
            raise InputError(root, "takes each structure once", "Correct --reader.class-names")
        absent = [name for name, key in zip(names[1:], keys, strict=True) if key not in counts]
        if absent:
            problem = f"has no case with a mask of {some(absent)}"
            raise InputError(root, problem, "Correct --reader.class-names, background first")
        return keys, names
    usual = [key for key, number in counts.items() if 2 * number > len(masks)]
    table = classes_of_set("totalsegmentator")
    places = {name_key(name): value for value, name in table.items()}
    usual.sort(key=lambda key: (places.get(key, len(places)), key))
    spelled = {
        key: organ(stem(path).replace("_", " ")) for found in masks for key, path in found.items()
    }
    titles = (table[places[key]] if key in places else spelled[key] for key in usual)
    return usual, ("background", *titles)


def _splits(path: Path) -> dict[str, str]:
    """Split by name of case, from ``meta.csv``; {} where it has none."""
    rows = read_table(path) if path.is_file() else []
    if not rows or not {"image_id", "split"} <= rows[0].keys():
        return {}
    known = ((composed(row["image_id"]), row["split"].lower()) for row in rows)
    return {name: SPLITS[split] for name, split in known if split in SPLITS}
