"""What a data folder says of where its images come from, and under which licence."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset
from .documents import read_json, read_table

TABLE = "provenance.csv"
SETTINGS = "generation.json"
LONGEST = 200
"""Characters of a licence that are kept."""


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


def stated_licence(root: Path) -> str | None:
    """What ``dataset.json`` says under ``licence`` or ``license`` (nnU-Net, Decathlon), or None."""
    try:
        content = read_json(root / "dataset.json")
    except InputError:
        return None
    words = content.get("licence") or content.get("license") if isinstance(content, dict) else None
    return " ".join(words.split())[:LONGEST] if isinstance(words, str) and words.strip() else None


def _folder(dataset: Dataset) -> Path:
    return dataset.root if dataset.root.is_dir() else dataset.root.parent
