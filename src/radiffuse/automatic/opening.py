"""What an automatic choice begins with: folds, candidates and how the time is shared, and lines that say so."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Fit
from ..train.further_images import look_at_copies, look_at_further
from ..train.learning_rate import cut_short
from ..train.planning.configuration import AT_WORK, DEFAULT_HOURS
from ..train.planning.plan_text import slowed_in_words
from ..train.run import CHOICE
from .candidates import Candidate, find_candidates, planned_finer, proposals
from .folds import LEAST_PATIENTS, make_folds
from .labels import Labels, by_split, read_labels
from .record import Record, by_reason
from .schedule import ENOUGH, POOL_COST, Schedule, choose_schedule, least_hours, spares_structures
from .trainings import FINE_SHARE, finer_in_words, pool_in_words, with_pool_untried


def new_record(settings: Fit, labels: Labels, every: Path, path: Path, began: float) -> Record:
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
    finer, first = list[Candidate](), found[0]
    both = all(with_pool_untried(schedule.final, pooled=schedule.pooled))
    if pool and both and not folds.parts and first.can_use_pool and first.is_timed:
        longer = FINE_SHARE * hours / ENOUGH  # it may be shorter than usual, as in the folds
        finer = planned_finer([first], planned, dataset, longer, seen) or []
    return Record(path, folds, hours, found, left_out, finer=finer, schedule=schedule, began=began)


def plan_choice(settings: Fit) -> tuple[Record, Labels]:
    """What ``fit`` would begin with; nothing is written.

    Raises:
        InputError: Nothing can be trained.
    """
    labels = read_labels(settings, write=False)
    look_at_copies(labels.dataset, labels.splits)
    look_at_further(settings, labels.dataset, labels.splits)
    with tempfile.TemporaryDirectory() as folder:
        every, path = (Path(folder) / name for name in ("all.json", CHOICE))
        return new_record(settings, labels, every, path, time.monotonic()), labels


def described(
    record: Record, labels: Labels, *, pool: bool, more: int = 0, reason: bool = True
) -> Iterator[str]:
    """Folds, candidates and rounds, a line each.

    Args:
        record: As it begins.
        labels: The labelled cases.
        pool: Whether there is one.
        more: Cases of ``--with``, which are learned from as well.
        reason: Whether to say why nothing is tried, where nothing is.
    """
    patients, schedule = labels.patients, record.schedule
    yield (
        f"{len(labels.names)} labelled cases of {patients} patients"
        f"{f' and {more} of --with' if more else ''}, {record.folds}, "
        f"{60 * record.hours:.0f} min"
    )
    for one in record.candidates:
        minutes = f", about {one.seconds / 60:.1f} min per training run" if one.seconds else ""
        length = one.steps()
        busy = slowed_in_words(one.plan.training) if one.plan.training else ""
        minutes += f"; {busy}" if busy else ""
        yield f"  {one.name}: {one.why}; {length:,} step{'s' * (length != 1)}{minutes}"
        least = min(schedule.shares) if record.folds.parts else 1.0
        if short := cut_short(replace(one.settings.training, steps=one.steps(least))):
            yield f"  {one.name}: {short}"
    for why, others in by_reason(record.left_out).items():
        yield f"  not tried: {', '.join(others)} ({why})"
    if not record.folds.parts:
        first = record.candidates[0]
        which = with_pool_untried(schedule.final, pooled=schedule.pooled)
        several = pool and spares_structures(schedule, first, len(labels.names))
        used = pool_in_words(*which, able=first.can_use_pool, several=several) if pool else ""
        used += ", for half of these steps" if pool and schedule.halved else ""
        used += "".join(f", {finer_in_words(one)}" for one in record.finer)
        if reason:
            yield f"  {labels.why_untried}" + (f"; {used}" if used else "")
        if patients >= LEAST_PATIENTS and first.seconds:
            yield f"  {_more_time(record, labels, patients, pool=pool and first.can_use_pool)}"
        return
    rounds = ", then ".join(f"{100 * share:.0f} %" for share in schedule.shares)
    films = record.candidates[0].plan.spatial_dims == 2
    finer = ", on a finer grid if the time left allows" if films else ""
    yield f"  each fold takes {rounds} of these steps, as time allows; the choice is trained on all labels{finer}"
    if len(record.candidates) > 1:
        yield f"  {record.candidates[0].name} is chosen unless the folds show another to be better"
    if pool:
        yield f"  the leading one is also tried with the pool, which takes about {POOL_COST:g} times as long"


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
