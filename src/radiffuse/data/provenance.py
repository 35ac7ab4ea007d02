"""What a data folder says about the origin of its images, and about their licence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.files import read_json
from .dataset import Case, Dataset
from .names import composed, patient_key
from .tables import read_table

TABLE = "provenance.csv"
SETTINGS = "generation.json"
ANCESTORS = "ancestors.json"
"""The patients and cases that many images descend from, written once: tables have ``ancestors-HASH`` in their place."""
LONGEST = 200
"""Characters of a licence that are kept."""


Ancestors = dict[str, list[str]]
"""``patients`` and ``cases`` that ``ANCESTORS`` has for a name."""


def name_of_ancestors(patients: Sequence[str], cases: Sequence[str]) -> str:
    """What stands for them in tables."""
    text = repr((sorted(patients), sorted(cases)))
    return f"ancestors-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_ancestors(folder: Path) -> dict[str, Ancestors]:
    """By name, as ``ancestors.json`` of a folder has them; {} where it has none.

    Raises:
        InputError: It is damaged.
    """
    path = folder / ANCESTORS
    return read_json(path, dict[str, Ancestors]) if path.is_file() else {}


@dataclass(frozen=True)
class Origin:
    """How a synthetic image was drawn, '' where unknown, and from which real cases."""

    strategy: str = ""
    parents: tuple[str, ...] = ()
    shared: bool = False
    """Whether its patients are all that a model or a density learned from, as those of images drawn beside it."""


def read_origins(dataset: Dataset) -> dict[str, Origin]:
    """Origin by name of case, from ``provenance.csv``; empty for cases that it lacks.

    Its columns are ``image`` (or ``file``), ``strategy``, and ``parents`` joined by ``+``, or their name in
    ``ancestors.json``.

    Raises:
        InputError: The table cannot be read.
    """
    folder = _folder(dataset)
    path = folder / TABLE
    found: dict[str, Origin] = {}
    shared = {name: tuple(known.get("cases", ())) for name, known in read_ancestors(folder).items()}
    for row in read_table(path) if path.is_file() else []:
        file = row.get("image") or row.get("file") or ""
        text = row.get("parents", "")
        parents = shared.get(text) or tuple(name for name in text.split("+") if name)
        known = row.get("patient") in shared
        found[_place(folder / file)] = Origin(row.get("strategy", ""), parents, known)
    return {case.name: found.get(_place(case.images[0]), Origin()) for case in dataset}


def descent_from(patients: Iterable[str]) -> Callable[[Case], bool]:
    """What says whether an image is of one of these patients, or was drawn from one.

    Each folder may spell a patient in its own way. The name of a patient may hold a +.
    """
    keys = {"+".join(_keys(name)) for name in patients}
    joined = [f"+{key}+" for key in keys if "+" in key]

    def descends(case: Case) -> bool:
        if not keys.isdisjoint(_keys(case.group)):
            return True
        drawn_from = f"+{'+'.join(_keys(case.group))}+" if joined else ""
        return any(key in drawn_from for key in joined)

    return descends


def of_other_patients(images: Dataset, patients: Iterable[str]) -> Dataset:
    """The images that are neither of these patients nor drawn from one."""
    descends = descent_from(patients)
    return images.filter(lambda case: not descends(case))


@lru_cache(maxsize=8)
def _keys(group: str) -> tuple[str, ...]:
    """What spellings of each ancestor share; thousands of drawn images may have thousands of them in common."""
    return tuple(map(patient_key, group.split("+")))


def generation_settings(dataset: Dataset) -> Mapping[str, Any]:
    """The settings that radiffuse generate wrote into the folder, or {}.

    Raises:
        InputError: The file is no JSON.
    """
    path = _folder(dataset) / SETTINGS
    return read_json(path, dict[str, Any]) if path.is_file() else {}


def stated_licence(root: Path) -> str | None:
    """The ``licence`` or ``license`` in ``dataset.json`` (nnU-Net, Decathlon), or None."""
    try:
        content = read_json(root / "dataset.json")
    except InputError:
        return None
    words = content.get("licence") or content.get("license") if isinstance(content, dict) else None
    return " ".join(words.split())[:LONGEST] if isinstance(words, str) and words.strip() else None


def _place(path: Path) -> str:
    return composed(str(path.resolve()))


def _folder(dataset: Dataset) -> Path:
    return dataset.root if dataset.root.is_dir() else dataset.root.parent
