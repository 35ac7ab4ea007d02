"""The labelled cases of an automatic choice, and what is to be tried on them."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import FIT, Fit, Split
from ..data.dataset import Case, Dataset
from ..data.issues import some
from ..data.layouts import open_dataset
from ..data.layouts.unpaired import no_labels
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits, verify_labels, write_splits
from ..errors import InputError
from ..train.further_images import look_at_copies, look_at_further
from ..train.known import trained_on
from ..train.planning.configuration import AT_WORK, DEFAULT_HOURS
from ..train.planning.plan_text import slowed_in_words
from ..train.start import find_pretrained
from .candidates import find_candidates, proposals
from .folds import LEAST_PATIENTS, make_folds
from .halving import pool_in_words, with_pool_untried
from .record import Record, by_reason
from .schedule import POOL_COST, Schedule, choose_schedule, least_hours, spares_structures


@dataclass(frozen=True)
class Labels:
    """The labelled cases.

    Attributes:
        dataset: All of them.
        splits: Of them.
        names: Those to learn from.
    """

    dataset: Dataset
    splits: Splits
    names: tuple[str, ...]

    @property
    def cases(self) -> list[Case]:
        """The cases to learn from."""
        learned = {*self.names}
        return [case for case in self.dataset if case.name in learned]

    @property
    def patients(self) -> int:
        """How many patients the cases are of."""
        return len({case.group for case in self.cases})

    @property
    def untried(self) -> str:
        """Why nothing is left out, where nothing is."""
        if self.patients < LEAST_PATIENTS:
            few = "one patient" if self.patients == 1 else f"{self.patients} patients"
            return f"the labels are of {few}, too few to leave any out to choose by"
        return "there is too little time to try anything on folds"

    def write_split(self, path: Path, train: Sequence[str], validation: Sequence[str] = ()) -> None:
        """A splits file; held out with ``validation`` is what the labels' own splits hold out."""
        held = (*self.splits.validation, *self.splits.test)
        write_splits(path, Splits(tuple(train), tuple(validation), held))


def read_labels(settings: Fit, *, write: bool) -> Labels:
    """Read and split the labelled cases.

    Raises:
        InputError: There are none, or too few, or the run to start from knows some of them.
    """
    dataset = open_dataset(settings.data, settings.reader).labelled
    if not len(dataset):
        raise no_labels(settings.data)
    verify_labels(settings.labels, dataset)
    cache = cache_folder(settings.reader.cache)
    usual = FIT["auto"].split
    splits = load_splits(dataset, settings.split, cache, settings.draw, write=write, usual=usual)
    names = splits.budget(settings.labels, settings.draw)
    if settings.from_run:
        source = find_pretrained(settings.from_run)
        if seen := sorted(trained_on([source], dataset).intersection(names)):
            problem = f"learned from {some(seen, 3)}, which auto leaves out to choose by"
            raise InputError(f"--from {settings.from_run}", problem, "Name a --method")
    return Labels(dataset, splits, names)


def by_split(settings: Fit, every: Path) -> Fit:
    """The settings of what learns from all labels, as a splits file names them."""
    return replace(settings, split=Split(file=str(every)), labels=None, draw=0)


def open_record(settings: Fit, labels: Labels, every: Path, path: Path, began: float) -> Record:
    """A new record: folds, and the candidates with their plans.

    Args:
        settings: Of the command.
        labels: The labelled cases.
        every: A splits file, which is written here: all labels to learn from, and the rest held out.
        path: Of the record, which is not written.
        began: When the command did.

    Raises:
        InputError: Nothing can be trained.
    """
    labels.write_split(every, labels.names)
    planned = by_split(settings, every)
    hours, seen = settings.hours or DEFAULT_HOURS["fit"], dict[Any, Any]()
    dataset, seed, pool = labels.dataset, settings.split.seed, bool(settings.unlabelled)
    schedule, share = choose_schedule(
        lambda hours: find_candidates(planned, dataset, hours, 1, seen)[0][0],
        hours,
        labels=len(labels.names),
        candidates=len([*proposals(planned, dataset)]),
        folds=len(make_folds(dataset, labels.names, seed).parts),
        pool=pool,
    )
    folds = make_folds(dataset, labels.names, seed, schedule.folds)
    most = schedule.tries(pool=pool)
    found, left_out = find_candidates(planned, dataset, AT_WORK * hours * share, most, seen)
    return Record(path, folds, hours, found, left_out, schedule=schedule, began=began)


def plan_choice(settings: Fit) -> tuple[Record, Labels]:
    """What ``fit`` would begin with; nothing is written.

    Raises:
        InputError: Nothing can be trained.
    """
    labels = read_labels(settings, write=False)
    look_at_copies(labels.dataset, labels.splits)
    look_at_further(settings, labels.dataset, labels.splits)
    with tempfile.TemporaryDirectory() as folder:
        every, path = (Path(folder) / name for name in ("all.json", "choice.json"))
        return open_record(settings, labels, every, path, time.monotonic()), labels


def described(
    record: Record, labels: Labels, *, pool: bool, more: int = 0, decided: bool = False
) -> Iterator[str]:
    """Folds, candidates and rounds, a line each; ``more`` cases are learned from beside the labelled ones.

    ``decided``: why there are no folds is said elsewhere.
    """
    patients, schedule = labels.patients, record.schedule
    yield (
        f"{len(labels.names)} labelled cases of {patients} patients"
        f"{f' and {more} of --with' if more else ''}, {record.folds}, "
        f"{60 * record.hours:.0f} min"
    )
    for one in record.candidates:
        minutes = f", about {one.seconds / 60:.1f} min a training" if one.seconds else ""
        length = one.steps()
        busy = slowed_in_words(one.plan.training) if one.plan.training else ""
        minutes += f"; {busy}" if busy else ""
        yield f"  {one.name}: {one.why}; {length:,} step{'s' * (length != 1)}{minutes}"
    for why, others in by_reason(record.left_out).items():
        yield f"  not tried: {', '.join(others)} ({why})"
    if not record.folds.parts:
        first = record.candidates[0]
        which = with_pool_untried(schedule.final, pooled=schedule.pooled)
        several = pool and spares_structures(schedule, first, len(labels.names))
        used = pool_in_words(*which, able=first.can_use_pool, several=several) if pool else ""
        used += ", for half of these steps" if pool and schedule.halved else ""
        if not decided:
            yield f"  {labels.untried}" + (f"; {used}" if used else "")
        if patients >= LEAST_PATIENTS and first.seconds:
            yield f"  {_more_time(record, labels, patients, pool=pool and first.can_use_pool)}"
        return
    rounds = ", then ".join(f"{100 * share:.0f} %" for share in schedule.shares)
    yield f"  in every fold {rounds} of these steps, as time allows; what is chosen then on all labels"
    if len(record.candidates) > 1:
        yield f"  {record.candidates[0].name} is chosen unless the folds show that another is better"
    if pool:
        yield f"  what leads is tried with the pool too, which takes about {POOL_COST:g} times as long"


def _more_time(record: Record, labels: Labels, patients: int, *, pool: bool) -> str:
    """From how many hours on more would be done, by the speed that was measured."""

    def least(wanted: Callable[[Schedule], bool]) -> str:
        count = len(record.candidates) + len(record.left_out)
        counts: dict[str, Any] = {"candidates": count, "folds": patients, "pool": pool}
        hours = least_hours(record.candidates[0], len(labels.names), wanted, **counts)
        if hours <= record.hours:  # the bound is of this grid, and a finer one is what takes longer
            return f"more than --hours {record.hours:g}"
        return f"--hours {math.ceil(100 * hours) / 100:g} or more"

    text = f"at this speed folds take {least(lambda one: bool(one.folds))}"
    schedule = record.schedule
    if pool and not with_pool_untried(schedule.final, pooled=schedule.pooled)[1]:
        text += f", the pool alone {least(lambda one: one.pooled)}"
    return text
