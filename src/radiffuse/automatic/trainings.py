"""What is trained on all labels, as the time allows: of what was tried, or of the first candidate where nothing was.

Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

from ..config.types import NonNegativeInt, PositiveInt
from ..data.scan import times
from .candidates import Candidate, usual_steps
from .halving import Entry
from .schedule import ENOUGH_WITH_POOL, POOL_COST

SHORTEST = 1 / 8
"""Of its full length that a training on all labels has even where no time is left [ours]."""
FINE_SHARE = 2 / 3
"""Of the time, for the training without the pool where it has a finer grid than that with it, and nothing was tried
[ours]."""
LONGER = 1.5
"""How many times as many steps as in the folds make a training longer in so many words [ours]."""


class Member(TypedDict):
    """A training on all labels; ``seed`` is added to the given one, ``tried`` are its steps in the folds, or 0."""

    candidate: str
    steps: PositiveInt
    seed: NonNegativeInt
    tried: NonNegativeInt


def trainings_of_tried(
    members: Sequence[Entry],
    full: Sequence[int],
    each: Sequence[float],
    left: float,
    most: int,
    spared: float = 0.0,
) -> list[Member]:
    """What is trained on all labels: ``candidate``, ``steps``, ``seed``, and ``tried``, the steps in the folds.

    All members are trained in full length where the time allows it, else in the same part of it, but never shorter than
    in the folds; and then, beside what is spared, all of them again with further seeds: for a convex loss the mean of
    several trainings is no worse than they are in the mean.

    Args:
        members: Entries of the candidates that were chosen, the best first.
        full: Steps in full length, of each.
        each: Seconds of a step, of each.
        left: Seconds that are left.
        most: Trainings at most.
        spared: Seconds for what comes after; a first training of full length goes before it.
    """
    needed = sum(steps * cost for steps, cost in zip(full, each, strict=True))
    part = min(max(left, 0.0) / needed, 1.0)
    found: list[Member] = [
        {
            "candidate": entry.candidate,
            "steps": max(entry.steps, int(part * steps)),
            "seed": 0,
            "tried": entry.steps,
        }
        for entry, steps in zip(members, full, strict=True)
    ]
    turn, cost = list(found), sum(r["steps"] * c for r, c in zip(found, each, strict=True))
    left -= cost + spared
    while len(found) + len(turn) <= most and cost <= left:
        left -= cost
        found += [{**row, "seed": len(found) // len(turn)} for row in turn]
    return found


def longer_in_words(members: Sequence[Member]) -> list[str]:
    """A sentence on trainings that are much longer than those of the folds, whose masks were scored."""
    much = [one for one in members if one["steps"] >= LONGER * one["tried"] > 0]
    if not much:
        return []
    one = max(much, key=lambda one: one["steps"] / one["tried"])
    return [
        f"trained on all labels for {one['steps']:,} steps, in the folds for {one['tried']:,}: masks of new scans may "
        "be better than every Dice above"
    ]


def planned_seconds(one: Candidate) -> float:
    """Of a step, as its plan predicts; 0 where that is not known."""
    return one.seconds / one.steps() * (POOL_COST if one.uses_pool else 1.0)


def paced(
    members: Sequence[Member], number: int, each: Sequence[float], took: float, left: float
) -> int:
    """Steps of a training for its share of the time that is left, if it goes on at the pace of those before it.

    At least half of what was decided, and what was tried: a shorter one might harm the vote, and so comes late.

    Args:
        members: All trainings, with the steps that were decided.
        number: Which it is, 1 or above.
        each: Seconds of a step that were planned, of all.
        took: Seconds of those before it.
        left: Seconds that are left.
    """
    planned = [member["steps"] * cost for member, cost in zip(members, each, strict=True)]
    pace = took / sum(planned[:number])
    steps = members[number]["steps"]
    share = max(left, 0.0) / (pace * sum(planned[number:]))
    return max(int(steps * share), math.ceil(steps / 2), members[number]["tried"])


def with_pool_untried(times: float, *, pooled: bool = False) -> tuple[bool, bool]:
    """Whether to train without and with a pool that was not tried: both vote, as far as the time allows.

    On lungs of the labelled films' own hospital it changes little; on those of another it held the outlines
    (``results/lungs-children.csv``). That is no proof for other images; so both, or in less time the one with it.

    Args:
        times: For how many trainings of full length without the pool there is time.
        pooled: Whether the schedule is for a training with the pool, however short.
    """
    with_pool = pooled or round(times) >= POOL_COST
    return not with_pool or round(times) >= 1 + POOL_COST, with_pool


def pool_in_words(without: bool, with_pool: bool, *, able: bool, several: bool = False) -> str:
    """How a pool that was not tried is used.

    Args:
        without: Whether there are trainings without it, see ``with_pool_untried``.
        with_pool: Whether there are trainings with it.
        able: Whether they could use it.
        several: Whether there is time for half of their steps with it, which several structures do not give up.
    """
    if not able:
        return "the pool is not used, since this method learns from labels alone"
    if not with_pool and several:
        return (
            "the pool is not used, since there is time for half of the steps with it, in which the smallest of several "
            "structures may not be learned"
        )
    if not with_pool:
        return "the pool is not used, since a training with it takes longer than there is time"
    if without:
        return "one training without the pool and one with it vote, since whether it helps was not tried"
    return "it is trained with the pool, which was not tried"


def finer_in_words(fine: Candidate) -> str:
    """Who has a finer grid where nothing was tried."""
    return f"that without it at {times(fine.plan.film)}, as there is time for a finer grid"


def trainings_of_untried(
    first: Candidate,
    left: float,
    most: int,
    twin: Candidate | None = None,
    *,
    pooled: bool = False,
) -> list[Member]:
    """Trainings of a candidate that nothing was tried of: as often as time allows in full length, else one shorter.

    Args:
        first: The candidate, without the pool.
        left: Seconds that are left.
        most: Trainings at most.
        twin: The same with the pool, see ``with_pool_untried``; None: there is none.
        pooled: Likewise.
    """
    usual = 1 + POOL_COST if twin else 1.0  # where it is not known how long one takes
    times = max(left / first.seconds, 0.0) if first.seconds else usual
    without, with_pool = with_pool_untried(times, pooled=pooled) if twin else (True, False)
    count = 1 if with_pool else max(1, min(most, round(times)))
    names = [first.name] * count if without else []
    names += [twin.name] if twin and with_pool else []
    part = times / (names.count(first.name) + POOL_COST * with_pool)
    steps = first.steps(min(max(part, SHORTEST), 1.0))
    seeds = [names[:place].count(one) for place, one in enumerate(names)]
    return [
        {"candidate": one, "steps": steps, "seed": seed, "tried": 0}
        for one, seed in zip(names, seeds, strict=True)
    ]


def trainings_on_two_grids(
    first: Candidate, fine: Candidate, twin: Candidate, left: float, labels: int
) -> list[Member] | None:
    """Trainings of a candidate that nothing was tried of, on a finer grid than that with the pool.

    Args:
        first: The candidate, without the pool.
        fine: The same on a finer grid.
        twin: The same as ``first`` with the pool.
        left: Seconds that are left.
        labels: Cases to learn from.

    Returns:
        None where the training with the pool would get too few steps.
    """
    part = min(FINE_SHARE * max(left, 0.0) / fine.seconds, 1.0)
    steps = min(round((left - part * fine.seconds) / planned_seconds(twin)), twin.steps())
    if steps < ENOUGH_WITH_POOL * usual_steps(labels, first.settings.training.batch):
        return None
    return [
        {"candidate": fine.name, "steps": fine.steps(part), "seed": 0, "tried": 0},
        {"candidate": twin.name, "steps": steps, "seed": 0, "tried": 0},
    ]
