"""Data of segmentation: labelled cases, split and prepared."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..config import IGNORE, Augmentation, Fit
from ..data.batches import Batch, Batches
from ..data.cases import read_case_label
from ..data.copies import copies_of_held_out
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes, find_dims
from ..data.issues import Issues, say, some
from ..data.layouts import open_dataset
from ..data.layouts.listing import CORRECTED, own_folder
from ..data.layouts.unpaired import no_labels
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..data.prepared import Prepared
from ..data.scan import times
from ..data.splits import Splits, load_splits, verify_labels
from ..data.streams import Stream
from ..errors import InputError
from ..system.files import write_atomic
from .cases import describe_data, described_more, prepare_dataset, with_more
from .further_images import held_out_parts, look_at_copies, look_at_further, say_copies
from .known import described_labels, refuse_knowing
from .open_settings import fill
from .planning.plan_training import Subject, Trial, plan_training
from .run import Run
from .start import Start, verify_kind
from .task import in_passes
from .unchanged import (
    require_same_names,
    require_same_prepared,
    require_same_splits,
    standing_plan,
)

OWN_NETWORK = ("dynunet", "imagenet", "dino")
"""Methods whose network is not the U-Net."""
HALVED = ("finetune", "scratch", "imagenet")
"""Methods whose first steps may be planned at half the resolution."""
FILMS_ALONE = ("imagenet", "dino")
"""Methods whose network knows no volumes."""
MORE = {"diffusion": 5.0, "joint": 5.0}
"""Methods that learn more slowly, see ``configuration.Request`` [ours]."""

VALIDATION_PATCHES = 16
"""Most patches that are validated on during training."""
PATCHES_PER_CASE = 4
"""The same for each validation case, where there are few."""


@dataclass(frozen=True)
class HeldOut:
    """Labelled images for validation: whole films, or patches that stay the same.

    They are read anew at each validation, a few at a time, so that memory does not grow with their number.

    Attributes:
        count: How many there are.
        read: The labelled images from a first to before a last one; the same ones give the same numbers.
        patches: Whether they are patches, whose classes are too few each for a score of its own.
    """

    count: int
    read: Callable[[int, int], Batch]
    patches: bool = False

    def parts(self, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Images ``(B, C, *S)`` float32 in [-1, 1] and labels ``(B, *S)`` int64: so many films, or one volume."""
        for start in range(0, self.count, at_once):
            batch = self.read(start, min(start + at_once, self.count))
            assert batch.labels is not None
            for part in in_passes(at_once, batch.images, batch.labels):
                yield part[0], part[1]


@dataclass(frozen=True)
class Labelled:
    """Labelled cases, ready for training.

    Attributes:
        batches: Training batches of the label budget, and of further images.
        held_out: Whole films or patches of the validation cases; None where there are none.
        settings: What was left open is decided.
    """

    dataset: Dataset
    splits: Splits
    plan: Plan
    batches: Batches
    held_out: HeldOut | None
    settings: Fit


@dataclass(frozen=True)
class PlannedLabelled:
    """What is learned from and by which plan, before any array is prepared.

    Attributes:
        cases: The label budget, the validation cases and further images.
        budget: Names of the cases of the label budget.
        settings: What was left open is decided.
    """

    dataset: Dataset
    splits: Splits
    plan: Plan
    cases: Dataset
    budget: tuple[str, ...]
    settings: Fit


def plan_labelled(
    settings: Fit,
    start: Start | None,
    trial: Trial[Fit],
    run: Run | None = None,
    seen: dict[Any, Any] | None = None,
    began: float | None = None,
) -> PlannedLabelled:
    """Read and split the labelled cases, and plan: what the settings leave open is decided here.

    Args:
        settings: Of the command.
        start: The pre-trained network to start from.
        trial: Makes what is trained, to time a few steps of it.
        run: Its ``plan.json``, which may have been edited, stands; None: nothing is written.
        seen: See ``plan_training.Subject``; None: nothing was.
        began: Likewise.

    Raises:
        InputError: Data or settings that cannot be used.
    """
    dataset = _labelled_cases(settings)
    cache = cache_folder(settings.reader.cache)
    splits = load_splits(dataset, settings.split, cache, settings.draw, write=run is not None)
    budget = splits.budget(settings.labels, settings.draw)
    cases = dataset.filter(lambda case: case.name in {*budget, *splits.validation})
    held = splits.held_out(dataset)
    cases = with_more(cases, settings.with_run, settings.reader, held=held, labelled=True)
    plan = None
    if run is not None:
        whole = {case.name for data in (dataset, cases) for case in data}
        require_same_names(run.folder, whole, trained=run.trained)
        require_same_splits(run.folder, splits, trained=run.trained)
        plan = standing_plan(run, whole, lambda: len(find_classes(dataset)))
    if start is not None:
        verify_kind(dataset, start.run, mixed=settings.reader.skip_bad)
        refuse_knowing(f"--from {settings.from_run}", start.run, dataset, splits)
    if plan is None:
        if seen is None:  # else it is one of several candidates, and was said for all
            look_at_copies(dataset, splits)
            look_at_further(settings, dataset, splits)
        subject = Subject(
            kind="fit",
            dataset=replace(cases, classes=find_classes(dataset)),
            images=len(cases) - len(splits.validation),
            labelled=True,
            segments=True,
            start=start.unet if start else None,
            own=_own_network(settings, start),
            plan=start.plan if start else None,
            halves=_may_halve(settings),
            more=MORE.get(settings.method or "", 1.0),
            began=began,
            counted=frozenset(budget) | _corrected(cases, settings.with_run),
            seen={} if seen is None else seen,
        )
        plan = plan_training(settings, subject, trial, cache, keep=run is not None)
    return PlannedLabelled(dataset, splits, plan, cases, budget, _decided(settings, plan))


def _labelled_cases(settings: Fit) -> Dataset:
    """The labelled cases, of the kind that the method learns from."""
    dataset = open_dataset(settings.data, settings.reader).labelled
    if not len(dataset):
        raise no_labels(settings.data)
    verify_labels(settings.labels, dataset)
    if settings.method in FILMS_ALONE and not settings.reader.skip_bad:
        verify_films(settings.method, find_dims(dataset))
    return dataset


def verify_films(method: str, dims: int) -> None:
    """Raise InputError if images of so many axes are volumes, which the method does not know."""
    if method in FILMS_ALONE and dims != 2:
        where = f"--method {method}"
        raise InputError(where, "is for films, and these are volumes", "Use scratch")


def _decided(settings: Fit, plan: Plan) -> Fit:
    """See ``fill``. Raise InputError if boxes of other images are to be pasted in, and a batch has no other."""
    decided = fill(settings, plan)
    if (cutmix := decided.augmentation.cutmix) and decided.training.batch < 2:
        problem = "pastes parts of other images of a batch in, and a batch has one image"
        remedy = "Give --batch-size 2 or more (with --micro-batch 1 it takes little more memory), or leave it out"
        raise InputError(f"--augmentation.cutmix {cutmix:g}", problem, remedy)
    return decided


def _may_halve(settings: Fit) -> bool:
    """See ``plan_training.Subject``; those who label a pool do so at full resolution."""
    labelled_by_others = settings.pool.teacher or settings.pool.corrector
    return settings.method in HALVED and not labelled_by_others


def _own_network(settings: Fit, start: Start | None) -> str:
    """See ``plan_training.Subject``."""
    if start is not None and start.unet is None:
        return "that of the run to start from"
    return "of the method" if settings.method in OWN_NETWORK else ""


def _corrected(cases: Dataset, folders: Sequence[str]) -> frozenset[str]:
    """Names of the cases that a person corrected: of further cases, those whose label maps are surely of a person."""
    own = {
        path.resolve()
        for path in (Path(name).expanduser() for name in folders)
        if own_folder(path) == CORRECTED
    }
    return frozenset(
        case.name for case in cases if own.intersection(case.images[0].resolve().parents)
    )


def prepare_labelled(
    run: Run,
    settings: Fit,
    start: Start | None,
    trial: Trial[Fit],
    *,
    began: float | None = None,
    quiet: bool = False,
) -> Labelled:
    """Plan and prepare the labelled cases, see ``plan_labelled``.

    ``quiet``: copies of held-out images are left out without a word, as in every fold of a choice.

    Raises:
        InputError: Data or settings that cannot be used.
    """
    planned = plan_labelled(settings, start, trial, run, began=began)
    dataset, splits, settings = planned.dataset, planned.splits, planned.settings
    plan, budget = planned.plan, planned.budget
    if not (run.folder / "plan.json").exists():
        write_atomic(run.folder / "plan.json", plan.to_json())
    prepared = prepare_dataset(
        planned.cases, plan, settings.reader, settings.machine, labelled=True
    )
    require_same_prepared(run, dataset, prepared)
    place = {case.name: i for i, case in enumerate(prepared.cases)}
    used = {*budget, *splits.validation}
    validating = splits.validation if settings.training.validate_every else ()
    for names, purpose in ((budget, "learn from"), (validating, "validate on")):
        if names and place.keys().isdisjoint(names):
            problem = f"has no usable case to {purpose}: all {len(names)} were left out as bad"
            raise InputError(dataset.root, problem, "Correct the cases; radiffuse check names them")
    held_out = [place[name] for name in splits.validation if name in place]
    further = {i for name, i in place.items() if name not in used}
    if further:
        held, cache = held_out_parts(dataset, splits), cache_folder(settings.reader.cache)
        copies = further & copies_of_held_out(prepared, held, cache)
        further -= copies
        if not quiet:
            say_copies(f"--with {','.join(settings.with_run)}", len(copies))
    indices = [*(place[name] for name in budget if name in place), *sorted(further)]
    described = describe_data(dataset, prepared, {"train": budget, "validation": splits.validation})
    source = start.run if start else None
    learned = [prepared.cases[i] for i in indices]
    described |= described_labels(source, settings.with_run, learned, {dataset.root: budget})
    run.write_data(described | described_more(settings.with_run, len(further)))
    _require_foreground(dataset, prepared, indices, quiet=quiet)
    batches = Batches(
        prepared,
        batch_size=settings.training.batch,
        seed=settings.training.seed,
        augmentation=settings.augmentation,
        indices=indices,
    )
    return Labelled(dataset, splits, plan, batches, _held_out(prepared, held_out), settings)


def _require_foreground(
    dataset: Dataset, prepared: Prepared, indices: Sequence[int], *, quiet: bool
) -> None:
    """Refuse a data set without any foreground; say what the labels to learn from do not show.

    A class that none of them shows the network never draws; of single classes nothing is said where ``quiet``. Whole
    label maps are read only for classes that the plan has found in label maps, and where nothing has foreground.
    """
    plan, count, issues = prepared.plan, len(indices), Issues()
    unseen = dict(enumerate(plan.classes[1:], start=1))
    for i in indices:
        if not unseen:
            break
        shown = prepared.label(i) if plan.whole else prepared.foreground(i)[:, 0]
        for value in np.unique(shown).tolist():
            unseen.pop(value, None)
    some_seen = len(unseen) < len(plan.classes) - 1
    if not unseen or (quiet and some_seen):
        return
    found = plan.structures.classes if plan.structures else {}
    small = {value for value, name in unseen.items() if name in found}
    small = _shown([prepared.cases[i] for i in indices], small) if small else small
    lost = [unseen.pop(value) for value in sorted(small)]
    if lost:
        volumes = plan.spacing is not None
        grid = f"{times(plan.spacing or plan.film)} {'mm' if volumes else 'px'}"
        problem = f"has {some(lost)}, too small for the grid of {grid}, where nothing of it is left"
        remedy = f"No mask will show it: give more --hours or a finer --{'spacing' if volumes else 'grid'}"
        issues.warning(dataset.root, problem, remedy)
    where = f"in the {count} label{'s' * (count != 1)} to learn from"
    if unseen and (some_seen or lost):
        problem = f"has no {some([*unseen.values()])} {where}, so no mask will show it"
        remedy = "Take more with --labels, or label cases that show it"
        issues.warning(dataset.root, problem, remedy)
    elif unseen:
        if not any(_shown([case], range(1, IGNORE)) for case in dataset):
            remedy = f"Give labels that show something; if {IGNORE} is the foreground, --label-values 0,{IGNORE}"
            raise InputError(dataset.root, "has no foreground in any label map", remedy)
        problem = f"has no foreground {where}"
        issues.warning(dataset.root, problem, "Take more with --labels, or others with --draw")
    say(issues)


def _shown(cases: Iterable[Case], wanted: Iterable[int]) -> set[int]:
    """Which of the wanted values label maps show, which are read one by one until all are found."""
    missing, found = set(wanted), set[int]()
    for case in cases:
        with contextlib.suppress(InputError):  # left out by skip_bad
            found |= missing & set(np.unique(read_case_label(case).array).tolist())
        if not (missing := missing - found):
            break
    return found


def _held_out(prepared: Prepared, indices: Sequence[int]) -> HeldOut | None:
    if not indices:
        return None
    each = 1
    if patches := not prepared.plan.whole:
        each = max(1, min(PATCHES_PER_CASE, VALIDATION_PATCHES // len(indices)))
        indices = indices[:VALIDATION_PATCHES]
    source = Batches(prepared, batch_size=1, seed=0, augmentation=Augmentation())
    places = [(index, number) for index in indices for number in range(each)]

    def read(start: int, stop: int) -> Batch:
        chosen = places[start:stop]
        return source.collate([source.sample(i, Stream.VALIDATION.rng(0, i, k)) for i, k in chosen])

    return HeldOut(len(places), read, patches)
