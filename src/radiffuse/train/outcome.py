"""The predicted cost of a training, printed at its start, and the actual cost, printed at its end."""

from __future__ import annotations

import sys

import psutil
import torch
from rich.console import Console

from ..system.files import write_json
from .loop import Trained
from .plan_text import format_plan
from .run import Run

FILE = "cost.json"


def announce(run: Run) -> None:
    """Print the plan of a run with its reasons, where something was decided."""
    if (plan := run.plan).training is not None:
        Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(format_plan(plan))


def compare_costs(run: Run, trained: Trained, steps: int) -> None:
    """Print what a training took beside what was predicted, and write both into ``cost.json``."""
    if (plan := run.plan.training) is None or not trained.steps:
        return
    minutes = trained.seconds / 60 * steps / trained.steps  # a resumed run: in proportion
    found = {"minutes": round(minutes, 2), "memory_gib": round(peak_memory() / 2**30, 2)}
    predicted = {"minutes": plan.minutes, "memory_gib": plan.memory_gib}
    write_json(run.folder / FILE, {"predicted": predicted, "measured": found})
    print(
        f"radiffuse: took {minutes:.1f} min (predicted {plan.minutes:.1f}), "
        f"{found['memory_gib']:.1f} GiB of memory (predicted {plan.memory_gib:.1f})",
        file=sys.stderr,
    )


def peak_memory() -> int:
    """Most bytes that a training took: of the GPU, or of this process."""
    if torch.cuda.is_available() and (most := torch.cuda.max_memory_reserved()):
        return int(most)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # of POSIX alone

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
