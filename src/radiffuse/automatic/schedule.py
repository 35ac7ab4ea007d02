"""How the time of a choice is shared between trying candidates and training on all labels: pure functions.

A training that is good enough comes first; trying is what the rest of the time is for. So the richest schedule is taken
whose trainings see enough images on a grid that is fine enough, and where none does, the first candidate is trained on
all labels for the whole time. A choice gains less than trainings of a minute lose: where 20 of them shared 20 minutes,
all saw lungs at 64 px, .02 to .03 Dice below a single one of 5 minutes at 128 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..data.plan import Plan
from ..train.planning.configuration import AT_WORK
from .candidates import Candidate, usual_steps

POOL_COST = 2.0
"""How much longer a training takes with the pool: 1.9 times by measurement, since the pool joins late and its teacher
learns nothing."""
MAY_LOSE = (0.01, 0.05)
"""2D: how far the best possible Dice and surface Dice of a grid may lie below those of a training for the whole time
[ours]; lungs at 128 px lose less and gained nothing at 256 px in equal time, at 64 px they lose .23 surface Dice."""
COARSER = 1.5
"""3D: how much coarser a spacing may be than that of a training for the whole time [ours]."""
ENOUGH = 0.75
"""Share of the usual steps that a training has at least [ours]."""
ENOUGH_WITH_POOL = 0.4
"""The same of a training with the pool in the time of one without it [ours]: after 125 of 300 steps, lungs were within
.006 Dice of 300 steps without the pool, and far better on films of another hospital."""

ROUNDED = 1.05
"""How far seconds may lie above their share, since steps are whole and plans say hundredths of a minute."""


@dataclass(frozen=True)
class Schedule:
    """What is tried, and what is trained on all labels.

    Attributes:
        candidates: Most that are tried.
        folds: Most folds; 0: nothing is tried.
        shares: Steps of each round, as shares of those in full length.
        kept: Candidates that go on to the second round, at least.
        final: Trainings on all labels that time is kept for, as long as those of the folds, which may become fewer on
            a finer grid; without folds, in those without the pool.
        pooled: Only where there is a pool.
    """

    candidates: int
    folds: int
    shares: tuple[float, ...]
    kept: int
    final: int
    pooled: bool = False

    @property
    def halved(self) -> bool:
        """Whether the training with the pool has only the time of one without it, so half of its steps."""
        return self.pooled and self.final < POOL_COST

    @property
    def enough(self) -> float:
        """Share of the usual steps that a training without the pool has at least in the time of one."""
        return POOL_COST * ENOUGH_WITH_POOL if self.halved else ENOUGH

    @property
    def pool_round(self) -> int:
        """Place of the round in which what leads is tried with the pool as well: the second, or the only one."""
        return min(1, len(self.shares) - 1)

    def tries(self, *, pool: bool) -> int:
        """Most candidates without the pool; in a single round the first one with the pool takes a place."""
        return self.candidates - (pool and self.pool_round == 0)

    def survivors(self, number: int, candidates: int) -> int:
        """How many of the candidates of a round go on to the next, the better half; ``number`` 0 is the first round."""
        return min(candidates, max(1 if number else self.kept, candidates // 2))

    def cost(self, candidates: int, folds: int, *, pool: bool) -> float:
        """Time of everything but a third round, in trainings of full length without the pool.

        Args:
            candidates: How many there are.
            folds: How many there are at most.
            pool: Whether there is one.
        """
        folds = min(folds, self.folds)
        if not folds:
            return self.final
        tried = min(candidates, self.tries(pool=pool))
        trained = zip((tried, self.survivors(0, tried)), self.shares, strict=False)
        total = folds * sum(number * share for number, share in trained)
        total += POOL_COST * pool * folds * self.shares[self.pool_round]
        return total + self.final * (POOL_COST if pool else 1)


SCHEDULES = (
    Schedule(candidates=9, folds=5, shares=(1 / 8, 1 / 2, 1.0), kept=2, final=4),
    Schedule(candidates=3, folds=3, shares=(1 / 4, 1 / 2), kept=1, final=3),
    Schedule(candidates=2, folds=2, shares=(1 / 2,), kept=1, final=1),
    Schedule(candidates=1, folds=0, shares=(), kept=0, final=3),
    Schedule(candidates=1, folds=0, shares=(), kept=0, final=2, pooled=True),
    Schedule(candidates=1, folds=0, shares=(), kept=0, final=1, pooled=True),
    Schedule(candidates=1, folds=0, shares=(), kept=0, final=1),
)
"""From the richest to the shortest [ours]. Without folds, the time of three trainings is for one without the pool and
one with it, that of two for the one with it, that of one for half its steps. The last is what a single method does."""


def choose_schedule(
    planned: Callable[[float], Candidate],
    hours: float,
    *,
    labels: int,
    candidates: int,
    folds: int,
    pool: bool,
) -> tuple[Schedule, float]:
    """The schedule, and the share of all time that one training of full length takes.

    Args:
        planned: The first candidate, planned for so many hours of one training.
        hours: For everything.
        labels: Cases to learn from.
        candidates: See ``Schedule.cost``.
        folds: Likewise.
        pool: Likewise.
    """
    whole = planned(AT_WORK * hours)
    alone = pool and whole.can_use_pool  # without folds only the first candidate is trained
    for schedule in SCHEDULES[:-1]:
        if (schedule.folds and not folds) or (schedule.pooled and not alone):
            continue
        cost = schedule.cost(candidates, folds, pool=pool)
        one = planned(AT_WORK * hours / cost)
        fits = cost * one.seconds <= ROUNDED * 3600 * AT_WORK * hours
        if fits and _is_enough(one, labels, schedule) and is_fine(one.plan, whole.plan):
            return schedule, 1 / cost
    return SCHEDULES[-1], 1.0


def least_hours(
    first: Candidate,
    labels: int,
    wanted: Callable[[Schedule], bool],
    *,
    candidates: int,
    folds: int,
    pool: bool,
) -> float:
    """The hours from which on a schedule may be taken, at the speed and on the grid of a plan: a lower bound.

    With more time a plan may have a finer grid, on which each step takes longer.

    Args:
        first: The first candidate; its plan has to know how long it takes.
        labels: Cases to learn from.
        wanted: Which schedules count.
        candidates: See ``Schedule.cost``.
        folds: Likewise.
        pool: Likewise.
    """
    training = first.settings.training
    usual = usual_steps(labels, training.batch)
    steps = (
        schedule.cost(candidates, folds, pool=pool)
        * (training.length if first.steps_given else schedule.enough * usual)
        for schedule in SCHEDULES
        if wanted(schedule) and _is_open_to(first, schedule)
    )
    return min(steps) * first.seconds / training.length / 3600 / AT_WORK


def spares_structures(schedule: Schedule, one: Candidate, labels: int) -> bool:
    """Whether a candidate leaves the pool out for its several structures: with one there were half of its steps."""
    halved = next(other for other in SCHEDULES if other.halved)
    return (
        schedule == SCHEDULES[-1]
        and not one.steps_given
        and not _is_open_to(one, halved)
        and _is_long_enough(one, labels, halved)
    )


def is_fine(plan: Plan, whole: Plan) -> bool:
    """Whether a grid loses nothing that counts against that of a training for the whole time."""
    if plan.spacing is not None and whole.spacing is not None:
        return math.prod(plan.spacing) <= COARSER**3 * math.prod(whole.spacing)
    if math.prod(plan.film) >= math.prod(whole.film):
        return True
    here, there = (_ceiling(film, whole.ceilings) for film in (plan.film, whole.film))
    return bool(here) and all(
        best - reached <= lost
        for name in here
        for reached, best, lost in zip(here[name], there[name], MAY_LOSE, strict=True)
    )


# ------------------------------------------------------------------------------------------------ internal


def _ceiling(
    film: tuple[int, ...], ceilings: Sequence[Mapping[str, Any]]
) -> Mapping[str, tuple[float, float]]:
    """Best possible Dice and surface Dice of each class on the finest of the grids that is no finer than the film."""
    coarser = [row for row in ceilings if math.prod(row["grid"]) <= math.prod(film)]
    return coarser[-1]["classes"] if coarser else {}


def _is_enough(one: Candidate, labels: int, schedule: Schedule) -> bool:
    long_enough = one.steps_given or _is_long_enough(one, labels, schedule)
    return _is_open_to(one, schedule) and long_enough


def _is_long_enough(one: Candidate, labels: int, schedule: Schedule) -> bool:
    training = one.settings.training
    return training.length >= schedule.enough * usual_steps(labels, training.batch)


def _is_open_to(one: Candidate, schedule: Schedule) -> bool:
    """Whether a schedule is for a candidate: steps are halved for the pool where none are given, for one structure.

    Of five on procedural bitewings the smallest was not learned in half of the steps [ours].
    """
    return not schedule.halved or (not one.steps_given and len(one.plan.classes) == 2)
