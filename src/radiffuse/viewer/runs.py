"""What was trained and scored: curves and tables of runs, studies, evaluations and tables of results."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ..config.values import flatten
from ..data.plan import read_plan
from ..errors import RadiffuseError
from ..system.files import read_yaml
from ..train.members import DRAWING, MEMBERS, kind_of, members_of
from ..train.planning.plan_text import colored
from ..train.run import CHOICE, Run
from .choices import choice_of
from .refusal import known
from .tables import mean_scores, shown_table

POINTS = 1500
"""Most points of a curve; a longer one is thinned evenly, its last point kept."""
SUBRUNS = 200
"""Most runs taken from one folder."""
TRIED = "candidates.csv"
"""Of an automatic run, where ``choices`` shows more of it."""
TABLES = (
    "summary.csv",
    "comparisons.csv",
    "gaps.csv",
    "classes.csv",
    "sweep.csv",
    "zeroshot.csv",
    TRIED,
)
SCORES = ("validation/cases.csv", "test/cases.csv", "cases.csv")
"""Scores case by case, of which the means are shown."""


@dataclass(frozen=True)
class Entry:
    """A run, study, evaluation or table in the list.

    Attributes:
        id: Number.
        name: Short.
        path: Folder or file.
        kind: ``run``, ``study``, ``evaluation`` or ``table``.
        command: Of a run.
        use: ``segment`` or ``generate`` where the page can use the run for it, else ''.
        draws: Whether the run samples its masks (mask diffusion).
        dims: Spatial axes of what it segments; 0 where it does not.
    """

    id: str
    name: str
    path: Path
    kind: str
    command: str = ""
    use: str = ""
    draws: bool = False
    dims: int = 0

    def view(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


class Runs:
    """The list."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._numbers = itertools.count(1)

    def add(self, path: Path) -> bool:
        """Take up what a path holds, a folder of runs too; whether it was anything of this kind."""
        found = list(itertools.islice(self._found(path), SUBRUNS))
        for entry in found:
            self._entries[entry.id] = entry
        return bool(found)

    def all(self) -> list[Entry]:
        """In the order they were given."""
        return list(self._entries.values())

    def get(self, id: str) -> Entry:
        """An entry by its number.

        Raises:
            Refused: There is none (404).
        """
        return known(self._entries, id, "run")

    def _found(self, path: Path) -> Iterator[Entry]:
        name = path.resolve().name
        if path.is_file():
            if path.suffix == ".csv" and "image" not in _header(path):
                yield self._entry(path, path.stem, "table")
            return
        if (path / "config.yaml").is_file():
            yield from self._with_members(path, name)
            return
        if (path / "study.yaml").is_file():
            yield self._entry(path, name, "study")
        elif any((path / file).is_file() for file in ("summary.csv", "cases.csv")):
            yield self._entry(path, name, "evaluation")
        for home in (path, path / "runs"):
            for inner in sorted(home.iterdir()) if home.is_dir() else []:
                if (inner / "config.yaml").is_file():
                    yield from self._with_members(inner, f"{name}/{inner.name}")

    def _entry(self, path: Path, name: str, kind: str, **more: Any) -> Entry:
        return Entry(str(next(self._numbers)), name, path, kind, **more)

    def _with_members(self, folder: Path, name: str) -> Iterator[Entry]:
        """A run, and of an automatic one the runs it consists of, for their curves: it stands for them elsewhere."""
        yield self._run(folder, name)
        for part in sorted((folder / MEMBERS).glob("*/config.yaml")):
            title = f"{name}: {part.parent.name}"
            yield self._entry(part.parent, title, "run", command=f"member of {name}")

    def _run(self, folder: Path, name: str) -> Entry:
        run = Run.open(folder)
        more: dict[str, Any] = {"command": str(run.config.get("command"))}
        if run.finished and more["command"] == "synthesize":
            more |= {"use": "generate", "dims": 2}
        elif run.finished and (folder / "plan.json").is_file() and run.plan.classes:
            draws = any(kind_of(part) in DRAWING for part in members_of(run))
            more |= {"use": "segment", "dims": run.plan.spatial_dims, "draws": draws}
        return self._entry(folder, name, "run", **more)


def described(entry: Entry) -> dict[str, Any]:
    """Curves, tables and settings of one entry.

    A file of it that is damaged is named under ``problems`` and left out.
    """
    problems: list[str] = []
    files = {entry.name: entry.path}
    if entry.kind != "table":
        scores = () if (entry.path / "summary.csv").is_file() else SCORES
        chosen = {TRIED} if (entry.path / CHOICE).is_file() else set()
        files = {name: entry.path / name for name in (*TABLES, *scores) if name not in chosen}
    tables = []
    for name, path in files.items():
        if path.is_file():
            try:
                tables.append(
                    {"name": name} | (mean_scores if name in SCORES else shown_table)(path)
                )
            except RadiffuseError as error:
                problems.append(str(error))
    result: dict[str, Any] = {
        **entry.view(),
        "curves": {},
        "tables": tables,
        "settings": {},
        "choice": {},
        "notes": [],
    }
    if entry.kind == "run":
        run = Run.open(entry.path)
        try:
            result["curves"] = curves(run.log())
        except RadiffuseError as error:
            problems.append(str(error))
        try:
            result["choice"] = choice_of(entry.path)
        except RadiffuseError as error:
            problems.append(str(error))
        try:
            result["notes"] = _notes(entry.path)
        except RadiffuseError as error:
            problems.append(str(error))
        result["settings"] = flat(run.config["settings"])
        result["finished"] = run.finished
    elif entry.kind == "study":
        try:
            result["settings"] = flat(read_yaml(entry.path / "study.yaml"))
        except RadiffuseError as error:
            problems.append(str(error))
    return result | {"problems": problems}


def curves(log: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Every number of a log over the steps: ``name: [[step, value], ...]``; of validation ``validation.NAME``."""
    found: dict[str, list[list[float]]] = {}
    for row in log:
        for name, value in flatten(row).items():
            if name not in ("step", "seconds") and _number(value):
                found.setdefault(name, []).append([row["step"], value])
    return {name: _thinned(points) for name, points in found.items()}


def flat(values: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text by their full names, ``from`` and ``with`` as they are typed."""
    return {
        re.sub(r"(^|\.)(from|with|for)_run$", r"\1\2", name): ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
        for name, value in flatten(values).items()
    }


# ------------------------------------------------------------------------------------------------ internal


def _notes(folder: Path) -> list[str]:
    """What the plan of a run does to its images, in sentences; an automatic run says it for its members."""
    path = folder / "plan.json"
    if folder.parent.name == MEMBERS or not path.is_file():
        return []
    return [text for text in [colored(read_plan(path))] if text]


def _header(path: Path) -> list[str]:
    return [str(column).strip().lower() for column in shown_table(path)["columns"]]


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _thinned(points: list[list[float]]) -> list[list[float]]:
    every = math.ceil(len(points) / POINTS)
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
