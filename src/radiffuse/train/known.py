"""Whose labels a run knows: those it learned from, and those of the runs that it started from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.dataset import Dataset
from ..data.issues import some
from ..data.splits import Splits
from ..errors import InputError
from .run import Run


def is_data_of(run: Run, dataset: Dataset) -> bool:
    """Whether a run learned from this data set, wherever either is read from."""
    return _same_place(run.data.get("root"), dataset)


def trained_on(runs: Sequence[Run], dataset: Dataset) -> set[str]:
    """Names of the cases of the patients whose labels a run learned from, or one that it started from."""
    found: set[str] = set()
    for root, names in (item for run in runs for item in labels_of(run).items()):
        if _same_place(root, dataset):
            found.update(names)
    patients = {case.group for case in dataset if case.name in found}
    return {case.name for case in dataset if case.group in patients}


def labels_of(run: Run) -> dict[str, list[str]]:
    """By data folder the cases whose labels a run learned from, with those of the runs that it started from."""
    found: dict[str, list[str]] = {}
    data = run.data
    parts, root, before = data.get("split"), data.get("root"), data.get("labels_before")
    train = parts.get("train") if isinstance(parts, dict) else None
    both = [*(before.items() if isinstance(before, dict) else ()), (root, train)]
    for folder, names in both:
        if isinstance(folder, str) and isinstance(names, list):
            found[folder] = sorted({*found.get(folder, ()), *map(str, names)})
    return found


def refuse_knowing(where: str, run: Run, dataset: Dataset, splits: Splits) -> None:
    """Refuse a run that learned from labels of patients of validation or test.

    Raises:
        InputError: Names some of the cases; ``where``: the setting that gives the run.
    """
    if seen := sorted(trained_on([run], dataset) & {*splits.validation, *splits.test}):
        problem = f"learned from {some(seen, 3)}, which this run holds out"
        raise InputError(where, problem, "Give a run with the same split")


def _same_place(root: object, dataset: Dataset) -> bool:
    return isinstance(root, str) and Path(root).resolve() == dataset.root.resolve()
