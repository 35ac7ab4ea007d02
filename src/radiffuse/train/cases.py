"""The cases of a run: data set, plan, prepared arrays, and what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Data, Machine, PlanSettings
from ..data.cases import read_case_image
from ..data.copies import without_held_out
from ..data.dataset import Case, Dataset
from ..data.fingerprint import evenly
from ..data.issues import Issues, say
from ..data.layouts import open_dataset
from ..data.layouts.corrections import renamed_in, under_new_names, without_corrected
from ..data.layouts.doubts import holds_few, look_at_values
from ..data.layouts.listing import CORRECTED, GENERATED, own_folder
from ..data.layouts.unpaired import no_labels
from ..data.plan import Plan, make_plan
from ..data.prepare import cache_folder, prepare
from ..data.prepared import Prepared
from ..data.provenance import descent_from, stated_licence
from ..data.streams import Stream
from ..errors import InputError
from ..system.distributed import rank
from ..system.files import write_atomic
from .progress import ProgressLine
from .run import Run
from .unchanged import standing_plan

MASK_SAMPLE = {2: 32, 3: 4}
"""Films and volumes of each set that are looked at, whether they are masks."""
VALIDATION_IMAGES = 64
"""Most unlabelled images that are held out for validation."""
VALIDATION_FRACTION = 0.05
"""Fraction of the unlabelled images that is held out, where that is fewer."""


def open_more(path: str, reader: Data) -> Dataset:
    """Open a data set that is learned from beside another.

    Of corrections and drawn images their own records say what labels mean and whose they are, not the ``reader``, which
    is that of the other: its expression for patients would hide whom images were drawn from.
    """
    own = own_folder(Path(path).expanduser()) in (CORRECTED, GENERATED)
    return open_dataset(path, Data(skip_bad=reader.skip_bad) if own else reader)


def plan_of(
    run: Run | None,
    dataset: Dataset,
    settings: PlanSettings,
    reader: Data,
    *,
    labelled: bool,
    among: Collection[str] | None = None,
) -> Plan:
    """The run's plan: the one that stands, see ``standing_plan``, else a new one, made of the cases ``among`` alone.

    Without a run nothing is written; None: of all cases.
    """
    if run is not None and (there := standing_plan(run, (case.name for case in dataset))):
        return there
    seen = dataset if among is None else dataset.filter(lambda case: case.name in among)
    plan = make_plan(seen, settings, labelled=labelled, skip_bad=reader.skip_bad)
    if run is not None:
        write_atomic(run.folder / "plan.json", plan.to_json())
    return plan


def prepare_dataset(
    dataset: Dataset, plan: Plan, reader: Data, machine: Machine, *, labelled: bool
) -> Prepared:
    """Prepare a data set with a progress line; first a few of its images are looked at, which may be masks."""
    if not labelled and rank() == 0:
        chosen = evenly(len(dataset), MASK_SAMPLE[plan.spatial_dims])
        looked_at = {dataset.cases[i] for i in chosen}
        issues = Issues()
        look_at_values(dataset, lambda case: case in looked_at and _holds_few(case), issues)
        say(issues)
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


def _holds_few(case: Case) -> bool:
    try:
        return holds_few(read_case_image(case).array)
    except InputError:
        return False  # preparing names it, or leaves it out


def describe_data(
    dataset: Dataset, prepared: Prepared, parts: Mapping[str, list[str] | tuple[str, ...]]
) -> dict[str, Any]:
    """Content of data.json: names of files and cases, nothing from headers."""
    licence = stated_licence(dataset.root)
    return ({"licence": licence} if licence else {}) | {
        "root": str(dataset.root.absolute()),
        "layout": dataset.layout,
        "cases": len(prepared),
        "patients": len({case.group for case in prepared.cases}),
        "patients_named": dataset.patients_named,
        "classes": list(prepared.plan.classes),
        "skipped": [{"case": s.case, "reason": s.reason} for s in prepared.skipped],
        "split": {name: list(cases) for name, cases in parts.items()},
    }


def described_more(folders: Sequence[str], count: int) -> dict[str, Any]:
    """Entries of data.json for the images of further folders that are learned from."""
    if not folders:
        return {}
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
    held: Dataset | None = None,
    labelled: bool = False,
) -> Dataset:
    """The data set with the images of further folders appended; only those with a label map where ``labelled``.

    Images of the patients of the cases ``held``, copies of their files, and synthetic images made from them are left
    out. Drawn images whose name is taken are called ``NAME@2``, where their folder is the second one.

    Raises:
        InputError: A folder is named twice, holds none, repeats a name of images that were not drawn, or has other
            channels or classes.
    """
    places = [Path(folder).expanduser().resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"--with {','.join(folders)}", f"names {folder} twice", "Name it once")
        more = open_more(folder, reader)
        if labelled:
            more = more.labelled
            renamed = under_new_names(dataset.classes, renamed_in(more.root))
            if dataset.classes and more.classes not in ((), dataset.classes, renamed):
                theirs, ours = ", ".join(more.classes), ", ".join(dataset.classes)
                problem = f"has the classes {theirs}, {dataset.root} has {ours}"
                remedy = "Use labels of the same classes, in the same order"
                raise InputError(f"--with {folder}", problem, remedy)
        if not len(more):
            if labelled:
                raise no_labels(folder, f"--with {folder}")
            raise InputError(f"--with {folder}", "holds no image", "See radiffuse check")
        kept = without_held_out(more, held, dataset)
        if not len(kept):
            issues = Issues()
            problem = f"holds {len(more)} images, all of validation or test patients or drawn from them: none is used"
            issues.warning(f"--with {folder}", problem, "Give others, or draw with this split")
            say(issues)
        if own_folder(more.root) == GENERATED:
            kept = _numbered(kept, {case.name for case in dataset}, folders.index(folder) + 1)
        dataset = without_corrected(dataset, kept).joined(kept)
    return dataset


def _numbered(drawn: Dataset, taken: Collection[str], number: int) -> Dataset:
    """Drawn images, which are numbered in each folder anew; a name that is taken gets the number of the folder."""
    cases = (replace(c, name=f"{c.name}@{number}") if c.name in taken else c for c in drawn)
    return replace(drawn, cases=tuple(cases))


def hold_out(
    prepared: Prepared, seed: int, among: AbstractSet[str] | None = None
) -> tuple[list[int], list[str]]:
    """Indices of the training cases, and names of a few held-out cases: all those of randomly chosen patients.

    A patient with more images than are wanted is held out only where all have more: it may have most of what is there.

    Args:
        prepared: The cases.
        seed: Of the choice.
        among: Names of cases that may be held out; None: all. No training case descends from a held-out patient.
    """
    sizes = Counter(case.group for case in prepared.cases if among is None or case.name in among)
    groups = sorted(sizes)
    wanted = min(VALIDATION_IMAGES, round(sizes.total() * VALIDATION_FRACTION))
    order = [groups[i] for i in Stream.HELD_OUT.rng(seed).permutation(len(groups))]
    held: set[str] = set()
    count = 0
    for group in [one for one in order if sizes[one] <= wanted] or order:
        if count >= wanted or len(held) >= len(groups) - 1:
            break
        held.add(group)
        count += sizes[group]
    descends = descent_from(held)
    training = [i for i, case in enumerate(prepared.cases) if not descends(case)]
    chosen = (case for case in prepared.cases if case.group in held)
    return training, [case.name for case in chosen if among is None or case.name in among]
