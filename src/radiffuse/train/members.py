"""A run that is a choice of runs: its model is a list of them, and they predict together."""

from __future__ import annotations

import re
from typing import Any

from ..config.values import misfit
from ..errors import RunError
from ..system.files import read_json, verify_sums
from .run import Run

MEMBERS = "members"
"""Kind of such a model, and the folder that the runs lie in."""
DRAWING = ("mask-denoiser", "joint-denoiser")
"""Kinds of networks whose masks are drawn in several steps."""
REMEDY = "Restore the folder, or repeat the command"


def kind_of(run: Run) -> str:
    """Kind of the network of a run, ``MEMBERS`` of one that was chosen automatically; '' where there is none yet.

    Raises:
        InputError: ``config.json`` of the model is damaged.
    """
    path = run.model / "config.json"
    return str(read_json(path, dict[str, Any]).get("kind")) if path.is_file() else ""


def trainings_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The logs of a run by name: of an automatic one those of its members, else its own, named ''.

    Raises:
        RunError: A log is damaged.
    """
    parts = sorted((run.folder / MEMBERS).glob("*/log.jsonl"))
    return {path.parent.name: Run(path.parent).log() for path in parts} or {"": run.log()}


def views_of(run: Run) -> tuple[str, ...]:
    """The views that a run averages at prediction, as its choice found that they gain; () for other runs.

    Raises:
        RunError: The list is damaged.
    """
    if (content := _content(run)) is None:
        return ()
    if misfit(views := content.get("tta", []), list[str]) or not set(views) <= {"mirror", "scale"}:
        raise RunError(run.model / "config.json", "names no views", REMEDY)
    return tuple(views)


def members_of(run: Run) -> tuple[Run, ...]:
    """The runs that vote as one run: those below ``members/`` if it was chosen automatically, else itself.

    Raises:
        RunError: One of them is missing, or the list is damaged.
    """
    if (content := _content(run)) is None:
        return (run,)
    path, names = run.model / "config.json", content.get("members")
    plain = not misfit(names, list[str])
    if not plain or not names or not all(re.fullmatch(r"[\w@+-]+", name) for name in names):
        raise RunError(path, "names no members", REMEDY)
    verify_sums(run.model, path.name)
    found = tuple(Run(run.folder / MEMBERS / name) for name in names)
    for part in found:
        if not (part.finished and (part.folder / "config.yaml").is_file()):
            raise RunError(part.folder, "is missing, or not whole", REMEDY)
    return found


def _content(run: Run) -> dict[str, Any] | None:
    """The list of members; None where the run is one network."""
    path = run.model / "config.json"
    content = read_json(path) if path.is_file() else None
    return content if isinstance(content, dict) and content.get("kind") == MEMBERS else None
