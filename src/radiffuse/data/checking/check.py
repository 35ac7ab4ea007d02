"""The contents of a data set and all of its faults at once."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...config import IGNORE, Data
from ..dataset import Case, Dataset
from ..issues import Issue, Issues, some
from ..label_values import judge_values
from ..layouts import survey
from ..layouts.doubts import look_at_values
from ..layouts.listing import walk
from .examine import CaseRecord
from .processes import examine_all


@dataclass(frozen=True)
class CheckResult:
    """A record per case in the order of the data set, issues with errors first, see ``summarize``."""

    cases: tuple[CaseRecord, ...]
    issues: tuple[Issue, ...]
    summary: dict[str, Any]

    @property
    def errors(self) -> tuple[Issue, ...]:
        """The issues that stop a run."""
        return tuple(issue for issue in self.issues if issue.severity == "error")


def check_path(
    path: Path | str,
    data: Data | None = None,
    *,
    decode: bool = True,
    workers: int | None = None,
) -> CheckResult:
    """Look at how a path is organized, at every case in it, then at the cases together.

    Args:
        path: The data set.
        data: How it becomes cases.
        decode: Read pixels; else headers alone, without seeing damage inside files.
        workers: Processes; None: one per core; 0: this process, which a broken decoder may kill.

    Raises:
        InputError: The path does not exist or no layout fits it.
    """
    dataset, found = survey(path, data)
    records = examine_all(dataset, decode=decode, workers=workers)
    issues = Issues([*found, *(issue for record in records for issue in record.issues)])
    _look_for_copies(dataset.cases, records, issues)
    _look_for_mixtures(dataset, records, issues)
    few = {case for case, record in zip(dataset, records, strict=True) if record.few}
    look_at_values(dataset, few.__contains__, issues)
    _look_at_patients(dataset, issues)
    pairs = zip(dataset, records, strict=True)
    maps = [record.label_counts for case, record in pairs if case.own_values]
    issues += judge_values(dataset.root, [m for m in maps if m], declared=bool(dataset.classes))
    _look_for_leftovers(dataset, {issue.where for issue in found}, issues)
    ordered = sorted(dict.fromkeys(issues), key=lambda issue: issue.severity != "error")
    return CheckResult(tuple(records), tuple(ordered), summarize(dataset, records))


def _look_for_copies(cases: Sequence[Case], records: Sequence[CaseRecord], issues: Issues) -> None:
    """Report images equal in every pixel; under two patients they leak from training into test."""
    alike: dict[str, list[Case]] = defaultdict(list)
    for case, record in zip(cases, records, strict=True):
        if record.digest:
            alike[record.digest].append(case)
    for first, *copies in alike.values():
        for case in copies:
            problem, remedy = f"is the same image as {first.name}", "Remove one of the two"
            if case.group != first.group:
                problem += f", under another patient ({case.group} and {first.group})"
                remedy += ", or give both the same patient: it would leak from training into test"
            issues.error(case.images[0], problem, remedy)


def _look_for_mixtures(dataset: Dataset, records: Sequence[CaseRecord], issues: Issues) -> None:
    places = {c.name: os.path.relpath(c.images[0], dataset.root) for c in dataset}
    readable = [record for record in records if record.spatial_shape]
    dims = {record.name: f"{len(record.spatial_shape)}D" for record in readable}
    declared = len(dataset.channels)
    color = declared == 3 or any(record.channels == 3 for record in readable)
    held = {r.name: 3 if color and r.as_color else r.channels for r in readable}
    channels = {name: f"{number}-channel" for name, number in held.items()}
    for kind, values in (("films and volumes", dims), ("numbers of channels", channels)):
        counts = Counter(values.values()).most_common()
        if len(counts) > 1:
            rare = counts[-1][0]
            names = [places[name] for name, value in values.items() if value == rare]
            parts = " and ".join(f"{number} {value}" for value, number in counts)
            problem = f"mixes {kind}: {parts} images; {rare} are {some(names)}"
            issues.error(dataset.root, problem, "Put each kind into a data set of its own")
    units = Counter(record.unit for record in readable).most_common()
    if len(units) > 1:
        names = [places[record.name] for record in readable if record.unit == units[-1][0]]
        parts = " and ".join(f"{number} in {unit}" for unit, number in units)
        problem = f"mixes units: {parts} ({units[-1][0]}: {some(names)})"
        remedy = "Keep kinds of images apart, and export each CT with its rescale: else its values are no HU"
        issues.warning(dataset.root, problem, remedy)
    numbers = {*held.values()}
    if dataset.layout in ("nnunet", "msd") and len(numbers) == 1 and numbers != {declared}:
        problem = f"declares {declared} channels, but its images have {numbers.pop()}"
        issues.error(dataset.root, problem, "Correct the channels in dataset.json")


def _look_at_patients(dataset: Dataset, issues: Issues) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for case in dataset:
        if case.split:
            splits[case.group].add(case.split)
    parted = {group: parts for group, parts in sorted(splits.items()) if len(parts) > 1}
    if parted:
        names = [f"{group} ({', '.join(sorted(parts))})" for group, parts in parted.items()]
        problem = f"parts {len(parted)} patients between splits: {some(names)}"
        remedy = "Move each patient into one split, or correct --group or patients.csv"
        issues.error(dataset.root, problem, remedy)
    if len(dataset) > 1 and len({case.group for case in dataset}) == 1:
        problem = f"gives all {len(dataset)} cases the same patient ({dataset.cases[0].group})"
        remedy = "Name the patients with --group or patients.csv; a split needs at least two"
        issues.warning(dataset.root, problem, remedy)


def _look_for_leftovers(dataset: Dataset, named: set[str], issues: Issues) -> None:
    """Report files that no case uses, but those ``named`` by an issue already, and folders that are closed."""
    listing = walk(dataset.root)
    issues += listing.closed
    used = dataset.passed_over.union(*(case.files for case in dataset))
    below = [(path, dataset.root / path) for path in listing.images]
    idle = [str(path) for path, full in below if full not in used and str(full) not in named]
    if idle:
        found = "an image that belongs" if len(idle) == 1 else f"{len(idle)} images that belong"
        problem = f"holds {found} to no case: {some(idle)}"
        issues.warning(dataset.root, problem, "Make sure that nothing is missing")
    if listing.others:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in listing.others)
        shown = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common(5))
        number = len(listing.others)
        problem = f"holds {number} file{'s' if number > 1 else ''} of unknown kind ({shown})"
        names = some([str(path) for path in listing.others], most=3)
        issues.warning(dataset.root, problem, f"Convert them if they are images: {names}")


def summarize(dataset: Dataset, records: Sequence[CaseRecord]) -> dict[str, Any]:
    """A data set in values that JSON can hold.

    ``splits``, ``targets`` and ``spatial_dims`` count cases. ``size`` and ``spacing`` (smallest,
    median, largest along each axis, of volumes right, anterior and superior) are those of the usual
    number of axes, None if unknown; ``classes`` have their share of the voxels that are not ignored,
    and the cases with them.
    """
    readable = [record for record in records if record.spatial_shape]
    dims = Counter(len(record.spatial_shape) for record in readable)
    usual = dims.most_common(1)[0][0] if dims else 0
    alike = [record for record in readable if len(record.spatial_shape) == usual]
    return {
        "layout": dataset.layout,
        "cases": len(dataset),
        "readable": len(readable),
        "patients": len({case.group for case in dataset}),
        "patients_named": dataset.patients_named,
        "labelled": len(dataset.labelled),
        "channels": list(dataset.channels),
        "splits": dict(Counter(case.split for case in dataset if case.split)),
        "targets": dict(Counter(case.target for case in dataset if case.target)),
        "spatial_dims": {str(number): count for number, count in sorted(dims.items())},
        "size": _range([record.spatial_shape for record in alike]),
        "spacing": _range([record.spacing for record in alike if record.spacing is not None]),
        "intensity": _intensity(readable),
        "classes": _shares(dataset.classes, records),
    }


def _range(rows: Sequence[Sequence[float]]) -> dict[str, list[float]] | None:
    """Smallest, median and largest value of each column; None without rows."""
    if not rows:
        return None
    table = np.asarray(rows, np.float64)
    reductions: dict[str, Any] = {"smallest": np.min, "median": np.median, "largest": np.max}
    return {name: reduce(table, axis=0).tolist() for name, reduce in reductions.items()}


def _intensity(records: Sequence[CaseRecord]) -> dict[str, Any] | None:
    ranges = np.asarray([r.intensity for r in records if r.intensity is not None], np.float64)
    if not len(ranges):
        return None
    return {
        "lowest": float(ranges[:, 0].min()),
        "mean": float(ranges[:, 1].mean()),
        "highest": float(ranges[:, 2].max()),
        "unit": ", ".join(sorted({record.unit for record in records})),
    }


def _shares(classes: Sequence[str], records: Sequence[CaseRecord]) -> dict[str, dict[str, float]]:
    voxels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for record in records:
        voxels.update(record.label_counts)
        cases.update(record.label_counts.keys())
    # Of a class among those that are not ignored, which it is scored among.
    counted = sum(number for value, number in voxels.items() if value != IGNORE)
    everything = sum(voxels.values())
    shares: dict[str, dict[str, float]] = {}
    names = dict(enumerate(classes or ("background",))) | {IGNORE: "(ignored, of all)"}
    for value in sorted({*voxels, *(range(len(classes)) if voxels else ())}):
        total = everything if value == IGNORE else counted
        share = voxels[value] / total if total else 0.0
        name = names.get(value, f"class-{value}")
        shares[name] = {"value": value, "share": share, "cases": cases[value]}
    return shares
