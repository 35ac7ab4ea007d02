"""What was trained and scored: curves and tables of runs, studies, evaluations and tables of results."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from ..errors import InputError, RadiffuseError
from ..train.run import Run
from .refusal import unknown

POINTS = 1500
"""Most points of a curve; a longer one is thinned evenly, its last point kept."""
ROWS = 500
"""Most rows of a table."""
SUBRUNS = 200
"""Most runs taken from one folder."""
TABLES = ("summary.csv", "comparisons.csv", "gaps.csv", "classes.csv", "sweep.csv", "zeroshot.csv")
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
        """What the page is told."""
        names = ("id", "name", "kind", "command", "use", "draws", "dims")
        return {name: getattr(self, name) for name in names}


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
        try:
            return self._entries[id]
        except KeyError:
            raise unknown("run") from None

    def _found(self, path: Path) -> Iterator[Entry]:
        if path.is_file():
            if path.suffix == ".csv" and "image" not in _header(path):
                yield self._entry(path, path.stem, "table")
            return
        if (path / "config.yaml").is_file():
            yield self._run(path, path.resolve().name)
            return
        if (path / "study.yaml").is_file():
            yield self._entry(path, path.resolve().name, "study")
        elif any((path / name).is_file() for name in ("summary.csv", "cases.csv")):
            yield self._entry(path, path.resolve().name, "evaluation")
        for home in (path, path / "runs"):
            for inner in sorted(home.iterdir()) if home.is_dir() else []:
                if (inner / "config.yaml").is_file():
                    yield self._run(inner, f"{path.resolve().name}/{inner.name}")

    def _entry(self, path: Path, name: str, kind: str) -> Entry:
        return Entry(str(next(self._numbers)), name, path, kind)

    def _run(self, folder: Path, name: str) -> Entry:
        run = Run.open(folder)
        command = str(run.config.get("command"))
        use, dims = "", 0
        if run.finished and command == "synthesize":
            use, dims = "generate", 2
        elif run.finished and (folder / "plan.json").is_file() and run.plan.classes:
            use, dims = "segment", run.plan.spatial_dims
        return Entry(
            str(next(self._numbers)), name, folder, "run", command, use, command == "diffseg", dims
        )


def described(entry: Entry) -> dict[str, Any]:
    """Curves, tables and settings of one entry.

    A file of it that is damaged is named under ``problems`` and left out.
    """
    problems: list[str] = []
    result: dict[str, Any] = {**entry.view(), "curves": {}, "tables": [], "settings": {}}
    if entry.kind == "table":
        _take(result["tables"], problems, entry.name, entry.path)
    else:
        for name in TABLES:
            _take(result["tables"], problems, name, entry.path / name)
        for name in SCORES:
            if (entry.path / name).is_file() and not (entry.path / "summary.csv").is_file():
                _take_scores(result["tables"], problems, name, entry.path / name)
    if entry.kind == "run":
        run = Run.open(entry.path)
        result["curves"] = curves(run.log())
        result["settings"] = flat(run.config["settings"])
        result["finished"] = run.finished
    elif entry.kind == "study":
        result["settings"] = flat(_yaml(entry.path / "study.yaml", problems))
    result["problems"] = problems
    return result


def curves(log: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    """Every number of a log over the steps: ``name: [[step, value], ...]``; of validation ``validation.NAME``."""
    found: dict[str, list[list[float]]] = {}
    for row in log:
        step = row.get("step") if isinstance(row, dict) else None
        if not _number(step):
            continue
        inner = row.get("validation")
        values = dict(row) | {
            f"validation.{k}": v for k, v in (inner.items() if isinstance(inner, dict) else ())
        }
        for name, value in values.items():
            if name not in ("step", "seconds") and _number(value):
                found.setdefault(name, []).append([step, value])
    return {name: _thinned(points) for name, points in found.items()}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text by their full names."""
    result: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            result[f"{prefix}{key}"] = ", ".join(map(str, value))
        else:
            result[f"{prefix}{key}"] = str(value)
    return result


def read_table(path: Path) -> dict[str, Any]:
    """The first ``ROWS`` rows of a CSV file, as text.

    Raises:
        InputError: It is no CSV file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.reader(file), ROWS + 2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"cannot be read ({error})", "Restore the file") from None
    return {
        "columns": rows[0] if rows else [],
        "rows": rows[1 : ROWS + 1],
        "cut": len(rows) > ROWS + 1,
    }


# ------------------------------------------------------------------------------------------------ internal


def _take(tables: list[dict[str, Any]], problems: list[str], name: str, path: Path) -> None:
    if not path.is_file():
        return
    try:
        tables.append({"name": name, **read_table(path)})
    except RadiffuseError as error:
        problems.append(str(error))


def _take_scores(tables: list[dict[str, Any]], problems: list[str], name: str, path: Path) -> None:
    """The means of a table of scores, with intervals, as ``evaluate`` gives them."""
    import pandas as pd

    from ..evaluation.tables import METRICS, summarize

    try:
        table = pd.read_csv(path, dtype={"case": str, "group": str, "class": str})
        metrics = [metric for metric in METRICS if metric in table]
        summary = summarize(table, metrics=metrics, samples=2000)
    except (ValueError, KeyError, OSError) as error:
        problems.append(f"{path}: cannot be read ({error})")
        return
    rows = [
        [str(row["class"]), str(row["metric"]), *(f"{row[k]:.4f}" for k in ("mean", "low", "high")),
         str(row["n"])]
        for row in summary.to_dict("records")
    ]  # fmt: skip
    columns = ["class", "metric", "mean", "low", "high", "n"]
    tables.append({"name": name, "columns": columns, "rows": rows[:ROWS], "cut": len(rows) > ROWS})


def _header(path: Path) -> list[str]:
    return [str(column).strip().lower() for column in read_table(path)["columns"]]


def _yaml(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        problems.append(f"{path}: cannot be read ({error})")
        content = None
    return content if isinstance(content, dict) else {}


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _thinned(points: list[list[float]]) -> list[list[float]]:
    every = math.ceil(len(points) / POINTS)
    kept = points[::every]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
