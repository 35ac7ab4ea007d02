"""What every act does before its own work: read the data set, settle the plan, prepare the arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Data, Machine, PlanSettings, UNetConfig
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.plan import Plan, make_plan
from ..data.prepare import Prepared, cache_folder, prepare
from ..engine.progress import ProgressLine
from ..engine.run import Run
from ..errors import InputError
from ..files import write_atomic

WEIGHTS = Path(__file__).parent.parent / "weights"


def read_dataset(path: str, reader: Data) -> Dataset:
    """Open a data set by path."""
    return open_dataset(Path(path), reader)


def plan_of(run: Run, dataset: Dataset, settings: PlanSettings, *, labelled: bool) -> Plan:
    """The run's plan: the one it already has, which may have been edited, else a new one."""
    path = run.folder / "plan.json"
    if path.exists():
        return run.plan
    plan = make_plan(dataset, settings, labelled=labelled)
    write_atomic(path, plan.to_json())
    return plan


def prepare_dataset(
    dataset: Dataset, plan: Plan, reader: Data, machine: Machine, *, labelled: bool
) -> Prepared:
    """Prepare a data set with a progress line."""
    line = ProgressLine("preparing")
    return prepare(
        dataset,
        plan,
        labelled=labelled,
        cache=cache_folder(reader.cache),
        skip_bad=reader.skip_bad,
        workers=machine.workers,
        progress=line,
    )


def describe_data(
    dataset: Dataset, prepared: Prepared, parts: Mapping[str, list[str] | tuple[str, ...]]
) -> dict[str, Any]:
    """What the data was, for data.json; names of files and cases, nothing from headers."""
    return {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(prepared),
        "patients": len({case.group for case in prepared.cases}),
        "classes": list(prepared.plan.classes),
        "skipped": [{"case": s.case, "reason": s.reason} for s in prepared.skipped],
        "split": {name: list(cases) for name, cases in parts.items()},
    }


def find_pretrained(name: str) -> Run:
    """A finished run by folder, or shipped weights by name.

    Raises:
        InputError: Neither is there, or the run has not finished.
    """
    path = Path(name)
    if not path.exists() and "/" not in name and (WEIGHTS / name).is_dir():
        path = WEIGHTS / name
    if not path.exists():
        known = ", ".join(sorted(p.name for p in WEIGHTS.glob("*") if p.is_dir())) or "none"
        raise InputError(
            name, "is neither a run nor shipped weights", f"Shipped weights are: {known}"
        )
    run = Run.open(path)
    if not run.finished:
        raise InputError(
            run.folder,
            "has not finished training",
            f"Run radiffuse {run.config.get('command')} again with the same settings",
        )
    return run


def verify_size(plan: Plan, unet: UNetConfig) -> None:
    """Refuse a size that the network cannot halve often enough.

    Raises:
        InputError: Names the multiple that is needed.
    """
    multiple = 2 ** (len(unet.multipliers) - 1)
    if any(n % multiple for n in plan.size):
        raise InputError(
            f"size {'x'.join(map(str, plan.size))}",
            f"the network needs a multiple of {multiple} along each axis",
            "Set --size accordingly, or use a network with fewer levels",
        )
