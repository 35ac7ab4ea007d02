"""Medical Segmentation Decathlon (Antonelli et al. 2022, doi 10.1038/s41467-022-30695-9)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...config import Data
from ...errors import InputError
from ..class_names import class_names
from ..dataset import Case, Dataset
from ..documents import read_json
from ..issues import Issue
from .build import Draft, build
from .listing import inside, key


def read(root: Path, data: Data, issues: list[Issue]) -> Dataset | None:
    """``dataset.json`` lists pairs under ``training``, images alone under ``test``, and in AMOS ``validation`` too.

    The names under ``modality`` become the channels; a four-dimensional image is one file that
    holds all of them.

    Raises:
        InputError: ``dataset.json`` cannot be understood.
    """
    path = root / "dataset.json"
    if root.is_file() or not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        return None
    drafts: list[Draft] = []
    parts: list[tuple[str, str | None]] = [("training", None), ("test", "test")]
    if content.get("validation"):
        parts = [("training", "train"), ("validation", "validation"), ("test", "test")]
    for part, split in parts:
        for number, entry in enumerate(content.get(part) or []):
            try:
                drafts.append(_draft(root, entry, split, f"{path}, {part}[{number}]"))
            except InputError as error:
                issues.append(Issue.of(error))
    drafts = once(drafts, path, issues)
    classes = class_names(content["labels"], path) if content.get("labels") else ()
    modality = content.get("modality") or {"0": "image"}
    if not isinstance(modality, dict):
        raise InputError(path, "does not name its modalities by number", 'Write {"0": "CT"}')
    channels = tuple(
        str(name) for _, name in sorted(modality.items(), key=lambda item: str(item[0]))
    )
    drafts = [
        replace(draft, case=replace(draft.case, file_channels=len(channels))) for draft in drafts
    ]
    return build(root, "msd", drafts, data, issues, classes=classes, channels=channels)


def _draft(root: Path, entry: Any, split: str | None, where: str) -> Draft:
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise InputError(where, "names no image", 'Write {"image": ..., "label": ...}')
    image = inside(root, entry["image"].removeprefix("./"), where)
    if split != "test" and not entry.get("label"):
        raise InputError(where, "names no label", "Add the label, or move the entry to 'test'")
    name = str(entry.get("label") or "").removeprefix("./")
    if split == "test" and name and not (root / name).exists():
        name = ""  # named, and never released
    label = inside(root, name, where) if name else None
    relative = PurePosixPath(image.relative_to(root).as_posix())
    name = PurePosixPath(key(relative)).name
    return Draft(relative, Case(name, (image,), label=label, split=split))


def once(drafts: list[Draft], path: Path, issues: list[Issue]) -> list[Draft]:
    """The first draft of every image; a second one is an issue."""
    seen: dict[PurePosixPath, Draft] = {}
    for draft in drafts:
        if draft.image in seen:
            problem = f"lists {draft.image} twice"
            issues.append(Issue("error", str(path), problem, "Keep one entry per image"))
        seen.setdefault(draft.image, draft)
    return list(seen.values())
