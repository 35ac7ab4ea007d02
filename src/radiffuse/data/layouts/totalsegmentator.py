"""A folder per case with the scan, and a folder in it with a mask per structure.

The data sets of TotalSegmentator (Wasserthal et al. 2023, doi 10.1148/ryai.230024) come like this, as does what the
program writes: ``s0001/ct.nii.gz``, ``s0001/segmentations/liver.nii.gz``. AbdomenAtlas does too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ...config import Data
from ...errors import InputError
from ..class_names import classes_of_set, name_key, organ
from ..dataset import Case, Dataset
from ..documents import read_table
from ..issues import Issue, some
from .build import Draft, build, named
from .listing import SPLITS, stem, walk

MASKS = "segmentations"


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """``CASE/`` with one image file and ``segmentations/``, a binary mask per structure, named after it.

    The classes are the structures that most cases have, in the order of TotalSegmentator 2, others behind them by name;
    or those that ``class_names`` lists, in that order, whatever the spelling. A case without one of them is an error.
    ``meta.csv``, with the columns image_id and split, declares the splits.

    Raises:
        InputError: ``class_names`` names a structure that no case has, or ``label_values`` is given.
    """
    if root.is_file():
        return None
    folders = [p for p in sorted(root.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    if not any((folder / MASKS).is_dir() for folder in folders):
        return None
    if data.label_values is not None:
        remedy = "Choose and order the structures with --reader.class-names alone"
        raise InputError(root, "has a file for each class, without values to be named", remedy)
    cases, masks = {}, {}
    for folder in folders:
        image, found = _files(folder, issues)
        if image is not None:
            cases[folder], masks[folder] = image, found
    chosen, classes = _choose(root, data, [found for found in masks.values() if found])
    splits = _splits(root / "meta.csv")
    drafts = []
    for folder, image in cases.items():
        parts = tuple(masks[folder][name] for name in chosen if name in masks[folder])
        if len(parts) < len(chosen):
            pairs = zip(chosen, classes[1:], strict=True)
            lacking = [name for key, name in pairs if key not in masks[folder]]
            problem = f"lacks the masks of {some(lacking)}"
            remedy = (
                f"Add them to {MASKS}/, empty if the structure is absent, or leave the case out"
            )
            issues.append(Issue("error", str(folder), problem, remedy))
            parts = ()
        label = folder / MASKS if parts else None
        split = splits.get(folder.name)
        case = Case(folder.name, (image,), label=label, label_parts=parts, split=split)
        drafts.append(Draft(PurePosixPath(image.relative_to(root).as_posix()), case))
    dataset = build(root, "totalsegmentator", drafts, data, issues, classes=classes)
    unused = {path for found in masks.values() for path in found.values()}
    return replace(dataset, passed_over=dataset.passed_over | unused)


def _files(folder: Path, issues: list[Issue]) -> tuple[Path | None, dict[tuple[str, ...], Path]]:
    """The image of a case, and its masks by the key of their names."""
    listing = walk(folder)
    issues += listing.issues
    images = [path for path in listing.images if len(path.parts) == 1]
    if len(images) != 1:
        if listing.images:
            problem = f"holds {len(images)} images beside {MASKS}/ where one is the scan"
            issues.append(Issue("error", str(folder), problem, "Keep the scan alone"))
        return None, {}
    inner = [path for path in listing.images if path.parts[0] == MASKS and len(path.parts) == 2]
    return folder / images[0], {name_key(organ(stem(path))): folder / path for path in inner}


def _choose(
    root: Path, data: Data, masks: list[dict[tuple[str, ...], Path]]
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """Keys of the structures that become classes 1, 2, ..., and the names of all classes."""
    counts = Counter(name for found in masks for name in found)
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
    usual = [name for name, number in counts.items() if 2 * number > len(masks)]
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
    if not path.is_file():
        return {}
    rows = read_table(path)
    if not {"image_id", "split"} <= rows[0].keys():
        return {}
    return {row["image_id"]: SPLITS[s] for row in rows if (s := row["split"].lower()) in SPLITS}
