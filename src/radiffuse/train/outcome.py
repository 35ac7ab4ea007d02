"""The predicted cost of a training, printed at its start, and the actual cost, printed at its end."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console

from ..config import Machine
from ..system.files import read_json, write_json
from ..system.hardware import peak_memory, this_machine
from .device import resolve_precision
from .log import seconds_of
from .loop import Trained
from .planning.plan_text import format_plan
from .progress import duration
from .run import Run

FILE = "cost.json"


def announce(run: Run) -> None:
    """Print the plan of a run with its reasons, where something was decided."""
    if (plan := run.plan).training is not None:
        Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(format_plan(plan))


def compare_costs(run: Run, trained: Trained, machine: Machine) -> None:
    """Write what a training took, and what computed it, into ``cost.json``; print it beside what a plan predicted.

    Where no step was left, the minutes are those of the log, beside what the process before had noted, if anything.
    """
    plan, path = run.plan.training, run.folder / FILE
    if trained.share:
        minutes = trained.seconds / 60 / trained.share  # a resumed run: in proportion
        measured: dict[str, Any] = {
            "minutes": round(minutes, 2),
            "memory_gib": round(peak_memory() / 2**30, 2),
            "hardware": this_machine(machine.accelerator),
            "precision": resolve_precision(machine),
            "compiled": bool(machine.compile),
            "normalization": list(trained.normalization),
        }
    else:
        minutes = seconds_of(run) / 60
        noted = read_json(path, dict[str, dict[str, Any]]) if path.is_file() else {}
        measured = noted.get("measured", {}) | {"minutes": round(minutes, 2)}
    cost = {"measured": measured}
    if plan is not None:
        cost = {"predicted": {"minutes": plan.minutes, "memory_gib": plan.memory_gib}} | cost
    write_json(path, cost)
    if plan is not None and trained.share:
        print(
            f"radiffuse: took {duration(60 * minutes)} (predicted {duration(60 * plan.minutes)}), "
            f"{measured['memory_gib']:.1f} GiB of memory (predicted {plan.memory_gib:.1f})",
            file=sys.stderr,
        )
