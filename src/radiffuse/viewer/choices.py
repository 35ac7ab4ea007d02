"""What an automatic run tried and chose, for the page: sentences, and tables of candidates, folds and members."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..automatic.outlook import CURVE
from ..automatic.record import Record, by_reason
from ..automatic.scores import by_case, read_folds
from ..errors import RadiffuseError
from .tables import shown_table


def choice_of(folder: Path) -> dict[str, Any]:
    """``sentences``, and ``tables`` with ``title``, ``columns`` and ``rows`` of text; {} where nothing was chosen.

    Raises:
        InputError: ``choice.json`` is damaged.
    """
    record = Record.read(folder, 0.0)
    if record is None:
        return {}
    tables = [_candidates(record), _members(record), _folds(record)]
    if (folder / CURVE).is_file():
        more = shown_table(folder / CURVE)
        tables.append(more | {"title": "What more labels would bring: mean Dice, 95 % intervals"})
    untried = [
        f"Not tried: {', '.join(names)} ({why})"
        for why, names in by_reason(record.left_out | record.passed_over).items()
    ]
    sentences = [*record.decisions, *filter(None, [record.outlook]), *untried]
    return {"sentences": sentences, "tables": [table for table in tables if table["rows"]]}


# ------------------------------------------------------------------------------------------------ internal


def _candidates(record: Record) -> dict[str, Any]:
    """What was tried, the best first, with the Dice of each fold."""
    folds = len(record.folds.parts)
    rows = []
    for entry in sorted(record.tried, key=lambda one: one.quality, reverse=True):
        own = [_dice(folder) for folder in record.folders(entry.candidate, entry.steps)]
        numbers = [f"{entry.dice:.3f}", f"{entry.surface:.3f}", f"{entry.seconds / 60:.1f}"]
        why = record.candidate(entry.candidate).why
        rows.append([entry.candidate, str(entry.steps), *numbers, *own, why])
    parts = [f"fold {fold + 1}" for fold in range(folds)]
    columns = ["candidate", "steps", "Dice", "surface Dice", "minutes", *parts, "what"]
    title = "Tried on cases that were left out, the best first; by fold: Dice"
    return {"title": title, "columns": columns, "rows": rows}


def _dice(folder: Path) -> str:
    """Mean Dice of a fold; '' where it has no scores any more."""
    try:
        return f"{by_case(read_folds([folder]))['dice'].mean():.3f}"
    except (RadiffuseError, OSError):
        return ""


def _members(record: Record) -> dict[str, Any]:
    rows = [
        [member["candidate"], f"{member['steps']}", f"{member['seed']}"]
        for member in record.members
    ]
    title = "Chosen, and trained on all labels" + "; they vote" * (len(rows) > 1)
    return {"title": title, "columns": ["candidate", "steps", "seed"], "rows": rows}


def _folds(record: Record) -> dict[str, Any]:
    rows = [
        [f"{number}", f"{len(names)}", ", ".join(names)]
        for number, names in enumerate(record.folds.parts, start=1)
    ]
    title = f"Folds; no {record.folds.by} is in two of them"
    return {"title": title, "columns": ["fold", "cases", "left out in it"], "rows": rows}
