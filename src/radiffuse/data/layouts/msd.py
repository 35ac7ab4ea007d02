"""Medical Segmentation Decathlon (Antonelli et al. 2022, doi 10.1038/s41467-022-30695-9)."""

from __future__ import annotations

from dataclasses import replace
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

EXPECTED = "dataset.json with a list 'training'"


def read(root: Path, data: Data, issues: Issues) -> Dataset | None:
    """``dataset.json`` lists pairs under ``training`` (AMOS: and ``validation``), images under ``test``.

    The names under ``modality`` become the channels, all of them in one four-dimensional file.

    Raises:
        InputError: ``dataset.json`` cannot be understood.
    """
    path = root / "dataset.json"
    content = read_json(path) if path.is_file() else None
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        return None
    parts: dict[str, str | None] = {"training": None, "test": "test"}
    if content.get("validation"):
        parts = {"training": "train", "validation": "validation", "test": "test"}
    cases = listed(content, parts, path, issues, partial(_case, root))
    classes = class_names(content["labels"], path) if content.get("labels") else ()
    modality = content.get("modality") or {"0": "image"}
    if not isinstance(modality, dict):
        raise InputError(path, "does not name its modalities by number", 'Write {"0": "CT"}')
    channels = channel_names(modality)
    cases = [replace(case, file_channels=len(channels)) for case in cases]
    return build(root, "msd", cases, data, issues, classes=classes, channels=channels)


def _case(root: Path, entry: dict[str, Any], split: str | None, where: str) -> Case:
    if not isinstance(entry.get("image"), str):
        raise InputError(where, *NO_IMAGE)
    image = inside(root, entry["image"], where)
    label = str(entry.get("label") or "")
    if split != "test" and not label:
        raise InputError(where, "names no label", "Add the label, or move the entry to 'test'")
    if split == "test" and label and not (root / label).exists():
        label = ""  # named, but never released
    label_file = inside(root, label, where) if label else None
    return Case(stem(image), (image,), label_file, split=split)
