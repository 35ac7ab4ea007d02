"""What a folder of synthetic images says of their origin: ``provenance.csv`` and ``generation.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .dataset import Case, Dataset
from .documents import read_json, read_table

TABLE = "provenance.csv"
SETTINGS = "generation.json"


@dataclass(frozen=True)
class Origin:
    """Where a synthetic image comes from.

    Attributes:
        strategy: How it was drawn, or '' where that is not told.
        parents: Names of the real cases it was drawn from.
    """

    strategy: str = ""
    parents: tuple[str, ...] = ()


def read_origins(dataset: Dataset) -> dict[str, Origin]:
    """Origin by name of case; cases of which nothing is told have an empty one.

    Args:
        dataset: Synthetic images; their ``provenance.csv`` has the columns ``image`` (or ``file``), ``strategy`` and
            ``parents``, the latter joined by ``+``.

    Raises:
        InputError: The table cannot be read.
    """
    folder = _folder(dataset)
    path = folder / TABLE
    found: dict[Path, Origin] = {}
    for row in read_table(path) if path.is_file() else []:
        file = row.get("image") or row.get("file") or ""
        parents = tuple(name for name in row.get("parents", "").split("+") if name)
        found[(folder / file).resolve()] = Origin(row.get("strategy", ""), parents)
    return {case.name: found.get(case.images[0].resolve(), Origin()) for case in dataset}


def parents_of(case: Case) -> set[str]:
    """Patients that an image was drawn from, as radiffuse generate writes them; of a real image its own."""
    return set(case.group.split("+"))


def descends(case: Case, patients: Set[str]) -> bool:
    """Whether an image is of one of these patients, or was drawn from one."""
    return case.group in patients or not parents_of(case).isdisjoint(patients)


def generation_settings(dataset: Dataset) -> Mapping[str, Any]:
    """The settings that radiffuse generate left in the folder, empty where there are none.

    Raises:
        InputError: The file is there and is no JSON.
    """
    path = _folder(dataset) / SETTINGS
    values = read_json(path) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


def strategies_of(origins: Mapping[str, Origin]) -> list[str]:
    """The strategies that are told, by name; none where there is but one kind of image."""
    counts = Counter(origin.strategy for origin in origins.values())
    return sorted(name for name in counts if name) if len(counts) > 1 else []


def _folder(dataset: Dataset) -> Path:
    return dataset.root if dataset.root.is_dir() else dataset.root.parent
