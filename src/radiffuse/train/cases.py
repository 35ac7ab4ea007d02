"""The cases of a run: data set, plan, prepared arrays, and what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from ..config import Data, Machine, PlanSettings
from ..data.dataset import Dataset
from ..data.layouts import open_dataset
from ..data.plan import Plan, make_plan
from ..data.prepare import cache_folder, prepare
from ..data.prepared import Prepared
from ..data.provenance import descends, stated_licence
from ..data.streams import Stream
from ..errors import InputError
from ..system.files import write_atomic
from .progress import ProgressLine
from .run import Run

VALIDATION_IMAGES = 64
"""Most unlabelled images that are held out for validation."""
VALIDATION_FRACTION = 0.05
"""Fraction of the unlabelled images that is held out, where that is fewer."""


def read_dataset(path: str, reader: Data) -> Dataset:
    """Open a data set by path."""
    return open_dataset(Path(path), reader)


def plan_of(run: Run, dataset: Dataset, settings: PlanSettings, *, labelled: bool) -> Plan:
    """The run's plan: the existing one, which may have been edited, else a new one."""
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
    return prepare(
        dataset,
        plan,
        labelled=labelled,
        cache=cache_folder(reader.cache),
        skip_bad=reader.skip_bad,
        workers=machine.workers,
        scheduler=machine.scheduler,
        progress=ProgressLine("preparing"),
    )


def describe_data(
    dataset: Dataset, prepared: Prepared, parts: Mapping[str, list[str] | tuple[str, ...]]
) -> dict[str, Any]:
    """Content of data.json: names of files and cases, nothing from headers."""
    licence = stated_licence(dataset.root)
    return ({"licence": licence} if licence else {}) | {
        "root": str(dataset.root),
        "layout": dataset.layout,
        "cases": len(prepared),
        "patients": len({case.group for case in prepared.cases}),
        "classes": list(prepared.plan.classes),
        "skipped": [{"case": s.case, "reason": s.reason} for s in prepared.skipped],
        "split": {name: list(cases) for name, cases in parts.items()},
    }


def described_more(
    folders: Sequence[str], prepared: Prepared, own: Collection[str]
) -> dict[str, Any]:
    """Entries of data.json for the images that ``with_more`` added."""
    if not folders:
        return {}
    count = sum(case.name not in own for case in prepared.cases)
    return {"with": [Path(folder).name for folder in folders], "with_cases": count}


def limited(dataset: Dataset, limit: int | None, seed: int) -> Dataset:
    """A random subset of ``limit`` cases; a larger limit includes the smaller one."""
    if limit is None or limit >= len(dataset):
        return dataset
    if limit < 1:
        raise InputError(f"--limit {limit}", "leaves no image", "Use 1 or more")
    order = Stream.LIMIT.rng(seed).permutation(len(dataset))
    chosen = {dataset.cases[i].name for i in order[:limit]}
    return dataset.filter(lambda case: case.name in chosen)


def with_more(
    dataset: Dataset,
    folders: Sequence[str],
    reader: Data,
    *,
    held: AbstractSet[str] = frozenset(),
    labelled: bool = False,
) -> Dataset:
    """The data set with further images appended.

    Args:
        dataset: The data set.
        folders: Of the further images.
        reader: How folders become cases.
        held: Patients whose images, and synthetic images made from them, are left out.
        labelled: Take only images with a label map.

    Raises:
        InputError: A folder holds none, repeats a name, or has other channels or classes.
    """
    for folder in folders:
        more = read_dataset(folder, reader)
        if labelled:
            more = more.labelled
            if dataset.classes and more.classes and more.classes != dataset.classes:
                theirs, ours = ", ".join(more.classes), ", ".join(dataset.classes)
                problem = f"has the classes {theirs}, {dataset.root} has {ours}"
                remedy = "Use labels of the same classes, in the same order"
                raise InputError(f"--with {folder}", problem, remedy)
        if not len(more):
            problem = "holds no labelled image" if labelled else "holds no image"
            raise InputError(f"--with {folder}", problem, "See radiffuse check")
        dataset = dataset.joined(more.filter(lambda case: not descends(case, held)))
    return dataset


def hold_out(
    prepared: Prepared, seed: int, among: AbstractSet[str] | None = None
) -> tuple[list[int], list[str]]:
    """Indices of the training cases, and names of a few held-out cases: all those of randomly chosen patients.

    Args:
        prepared: The cases.
        seed: Of the choice.
        among: Names of cases that may be held out; None: all. No training case descends from a held-out patient.
    """
    sizes = Counter(case.group for case in prepared.cases if among is None or case.name in among)
    groups = sorted(sizes)
    wanted = min(VALIDATION_IMAGES, round(sizes.total() * VALIDATION_FRACTION))
    held: set[str] = set()
    count = 0
    for i in Stream.HELD_OUT.rng(seed).permutation(len(groups)):
        if count >= wanted or len(held) >= len(groups) - 1:
            break
        held.add(groups[i])
        count += sizes[groups[i]]
    training = [i for i, case in enumerate(prepared.cases) if not descends(case, held)]
    return training, [case.name for case in prepared.cases if case.group in held]
