"""Data lists of MONAI: a JSON file that lists images and labels by part, with or without folds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ...config import Data
from ...errors import InputError
from ...system.files import read_json
from ..class_names import class_names
from ..dataset import Case, Dataset
from ..issues import Issues
from .build import NO_IMAGE, build, channel_names, listed
from .listing import inside, stem

EXPECTED = "a JSON data list of MONAI with 'training', or a folder with datalist.json"
PARTS: dict[str, str | None] = {
    "training": "train",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Keys of the file, with the split they stand for."""
NAMES = ("datalist.json", "data_list.json")
"""Names of the file in a folder."""


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """``{"training": [{"image": ..., "label": ..., "fold": 0}], "validation": [...], "testing": [...]}``.

    ``root`` is the file or its folder, which paths are relative to. ``image`` is a path, or a list of
    one file per channel. Where entries of ``training`` have a ``fold``, those of ``--split.fold`` are
    validation. ``labels`` and ``modality`` name classes and channels as in the Decathlon.

    Raises:
        InputError: The file cannot be understood.
    """
    path = next((root / name for name in NAMES if (root / name).is_file()), root)
    if not path.is_file() or path.suffix.lower() != ".json":
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        return None
    home = path.parent
    declared = any(content.get(part) for part in ("validation", "test", "testing"))
    parts = PARTS if declared else dict.fromkeys(PARTS)
    cases = listed(content, parts, path, issues, partial(_case, home))
    counts = {len(case.images) for case in cases}
    if len(counts) > 1:
        problem = f"lists {min(counts)} images in one entry and {max(counts)} in another"
        raise InputError(path, problem, "Give every case the same channels")
    classes = class_names(content["labels"], path) if content.get("labels") else ()
    channels = _channels(content.get("modality"), counts.pop() if counts else 1)
    return build(
        root, "datalist", cases, data, issues, home=home, classes=classes, channels=channels
    )


def _case(home: Path, entry: dict[str, Any], split: str | None, where: str) -> Case:
    images = entry.get("image")
    names: list[Any] = images if isinstance(images, list) else [images]
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(where, *NO_IMAGE)
    label, fold = entry.get("label"), entry.get("fold")
    if label is not None and not isinstance(label, str):
        raise InputError(where, "has a label that is no path", "Give the file of a label map")
    if fold is not None and (not isinstance(fold, int) or isinstance(fold, bool) or fold < 0):
        raise InputError(where, f"has the fold {fold!r}", "Use 0, 1, 2, ...")
    paths = tuple(inside(home, name, where) for name in names)
    label_file = inside(home, label, where) if label else None
    fold = fold if split in (None, "train") else None
    return Case(stem(paths[0]), paths, label_file, split=split, fold=fold)


def _channels(modality: Any, count: int) -> tuple[str, ...]:
    if isinstance(modality, dict) and len(modality) == count:
        return channel_names(modality)
    if isinstance(modality, str) and count == 1 and modality.strip():
        return (modality.strip(),)
    return ("image",) if count == 1 else tuple(f"channel-{i}" for i in range(count))
