"""How the time of a choice is shared, on a machine of a stated speed: costs by hand, and a table of cases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from radiffuse.automatic.schedule import (
    SCHEDULES,
    choose_schedule,
    is_fine,
    least_hours,
    spares_structures,
)
from radiffuse.data.plan import Plan

RATES = {256: 1.9, 128: 15.0, 64: 60.0}
"""Images a second of one core by the U-Net on ImageNet, as measured."""
BATCH = 8
LEAST = 2400
"""Images that the planner wants a grid to be seen in."""


def planned(hours: float, cores: float = 1.0) -> Any:
    """What the planner does: the finest grid on which the time is enough for ``LEAST`` images."""
    seconds = 3600 * 0.9 * hours
    fine = [side for side, rate in RATES.items() if LEAST / (rate * cores) <= seconds]
    side = max(fine, default=64)
    training = SimpleNamespace(length=int(seconds * RATES[side] * cores / BATCH), batch=BATCH)
    plan = Plan(2, ("image",), ("background", "a"), (side, side), ceilings=ceilings(LUNGS))
    settings = SimpleNamespace(training=training)
    return SimpleNamespace(
        settings=settings, plan=plan, seconds=3600 * hours, steps_given=False, can_use_pool=True
    )


def test_the_better_half_goes_on() -> None:
    rich, short, *_ = SCHEDULES
    assert [rich.survivors(0, count) for count in (0, 1, 2, 3, 5, 6)] == [0, 1, 2, 2, 2, 3]
    assert [rich.survivors(1, count) for count in (0, 1, 2, 3, 4)] == [0, 1, 1, 1, 2]
    assert [short.survivors(0, count) for count in (1, 2, 3)] == [1, 1, 1]


def test_costs_are_those_worked_out_by_hand() -> None:
    """In trainings: trials of the first round, then of the second, then those on all labels."""
    rich, short, brief, thrice, twice, halved, once = SCHEDULES
    assert rich.cost(5, 5, pool=False) == pytest.approx(25 / 8 + 10 / 2 + 4)
    assert rich.cost(5, 5, pool=True) == pytest.approx(25 / 8 + 10 / 2 + 5 / 2 * 2 + 8)
    assert rich.cost(6, 5, pool=False) == pytest.approx(30 / 8 + 15 / 2 + 4)  # three go on
    assert rich.cost(1, 2, pool=False) == pytest.approx(2 / 8 + 2 / 2 + 4)
    assert short.cost(5, 5, pool=False) == pytest.approx(9 / 4 + 3 / 2 + 3)
    assert short.cost(5, 5, pool=True) == pytest.approx(9 / 4 + 3 / 2 * 3 + 6)
    assert brief.cost(5, 5, pool=False) == pytest.approx(2 * 2 / 2 + 1)
    assert brief.cost(5, 5, pool=True) == pytest.approx(2 / 2 * 3 + 2)  # one, without and with it
    costs = [one.cost(5, 5, pool=True) for one in (thrice, twice, halved, once)]
    assert costs == [3, 2, 1, 1]


CASES = [
    # hours, cores, labels, pool: candidates and folds, side of the grid
    (0.05, 1, 5, False, 2, 2, 64),  # nor would the whole time be enough for 128 px
    (0.1, 1, 5, False, 1, 0, 128),
    (0.1, 1, 5, True, 1, 0, 128),
    (0.17, 1, 5, False, 2, 2, 128),
    (0.3, 1, 5, False, 2, 2, 128),
    (0.3, 1, 5, True, 2, 2, 128),
    (0.35, 1, 5, False, 2, 2, 128),
    (0.4, 1, 5, False, 3, 3, 128),
    (0.35, 1, 5, True, 2, 2, 128),
    (0.3, 2, 5, False, 3, 3, 128),
    (0.3, 2, 5, True, 2, 2, 128),
    (1.0, 1, 5, False, 9, 5, 128),
    (0.8, 1, 5, True, 3, 3, 128),
    (1.0, 1, 5, True, 3, 3, 128),
    (1.2, 1, 5, True, 9, 5, 128),
    (8.0, 1, 5, False, 9, 5, 256),
    (0.3, 1, 1, False, 1, 0, 128),  # one patient: nothing can be left out
    (1.0, 1, 200, False, 3, 3, 128),  # 40 passes over 200 films are 1,000 steps
    (1.0, 1, 800, False, 1, 0, 256),
    (8.0, 2, 800, False, 2, 2, 256),
]


@pytest.mark.parametrize(("hours", "cores", "labels", "pool", "candidates", "folds", "side"), CASES)
def test_the_time_that_is_given_decides_what_is_tried(
    hours: float, cores: int, labels: int, pool: bool, candidates: int, folds: int, side: int
) -> None:
    units = min(labels, 5) if labels > 1 else 0
    chosen, share = choose_schedule(
        lambda one: planned(one, cores),
        hours,
        labels=labels,
        candidates=5,
        folds=units,
        pool=pool,
    )
    one = planned(0.9 * hours * share, cores)
    assert (chosen.candidates, chosen.folds, one.plan.size[0]) == (candidates, folds, side)
    # No training is shorter than what the default needs, unless the whole time is; nor is its grid coarser.
    whole = planned(0.9 * hours, cores)
    assert one.settings.training.length >= min(225, whole.settings.training.length)
    assert is_fine(one.plan, whole.plan)
    # A third of the time is for the trainings on all labels.
    final = chosen.final * share * (2 if pool and folds else 1)
    assert final >= (1 if not folds and chosen.final < 3 else 0.32)


@pytest.mark.parametrize(("pool", "cost"), [(False, 3), (True, 5)])
def test_the_least_hours_for_folds_are_those_from_which_on_there_are_some(
    pool: bool, cost: int
) -> None:
    """Where more time plans no finer grid: so many trainings of 225 steps of 8 images, 9/10 of the time at work."""

    def always_64(hours: float) -> Any:
        found = planned(hours, 1.0)
        seconds = 3600 * hours
        training = SimpleNamespace(length=int(seconds * RATES[64] / BATCH), batch=BATCH)
        plan = replace(found.plan, size=(64, 64))
        return SimpleNamespace(
            **vars(found) | {"settings": SimpleNamespace(training=training), "plan": plan}
        )

    counts: dict[str, Any] = {"candidates": 5, "folds": 5, "pool": pool}
    least = least_hours(always_64(1.0), 5, lambda one: bool(one.folds), **counts)
    assert least == pytest.approx(cost * 225 * BATCH / RATES[64] / 3600 / 0.9, rel=1e-3)
    for hours, folds in ((0.97 * least, False), (1.03 * least, True)):
        chosen, _ = choose_schedule(always_64, hours, labels=5, **counts)
        assert bool(chosen.folds) == folds
    alone = least_hours(always_64(1.0), 5, lambda one: one.pooled, **counts | {"pool": True})
    assert alone == pytest.approx(
        2 * 120 / 225 / cost * least
    )  # 120 steps with the pool take as long as 240


@pytest.mark.parametrize(
    ("hours", "given", "final", "pooled"),
    [
        (0.11, False, 1, True),
        (0.09, False, 1, False),
        (0.11, True, 1, False),
        (0.3, False, 3, False),
    ],
)
def test_a_short_time_is_for_the_pool_from_120_of_its_steps_on(
    hours: float, given: bool, final: int, pooled: bool
) -> None:
    """128 px and 15 images a second: 8 images a step, 9/10 of the time at work, twice. No given steps are halved."""

    def always_128(hours: float) -> Any:
        one = planned(hours)
        training = SimpleNamespace(length=int(3600 * hours * 15 / BATCH), batch=BATCH)
        plan, settings = replace(one.plan, size=(128, 128)), SimpleNamespace(training=training)
        changed = {"plan": plan, "settings": settings, "steps_given": given}
        changed |= {"seconds": 240 * BATCH / 15} if given else {}
        return SimpleNamespace(**vars(one) | changed)

    counts: dict[str, Any] = {"labels": 5, "candidates": 1, "folds": 0, "pool": True}
    scale = 240 * BATCH / 15 / 3600 / 0.9 / 0.1  # 240 steps take a tenth of an hour
    schedule, share = choose_schedule(always_128, hours * scale, **counts)
    assert (schedule.final, schedule.pooled, share) == (final, pooled, 1 / final)


def test_no_steps_are_given_up_for_the_pool_where_there_are_several_structures() -> None:
    def several(hours: float) -> Any:
        one = planned(hours)
        return SimpleNamespace(
            **vars(one) | {"plan": replace(one.plan, classes=("background", "a", "b"))}
        )

    counts: dict[str, Any] = {"labels": 5, "candidates": 1, "folds": 0, "pool": True}
    times = [h / 100 for h in range(2, 30)]
    one, two = (
        [choose_schedule(plan, h, **counts)[0] for h in times] for plan in (planned, several)
    )
    assert any(schedule.halved for schedule in one)
    assert not any(schedule.halved for schedule in two)
    for before, after in zip(one, two, strict=True):
        assert (after.final, after.pooled) == (
            (1, False) if before.halved else (before.final, before.pooled)
        )
    for hours, before, after in zip(times, one, two, strict=True):
        # That there are several is the reason exactly where a single one would have had the pool for half of the steps.
        assert spares_structures(after, several(0.9 * hours), 5) == before.halved
        assert not spares_structures(before, planned(0.9 * hours), 5)


LUNGS = {64: (0.985, 0.772), 96: (0.990, 0.975), 128: (0.992, 0.999), 256: (0.997, 1.0)}
CARIES = {64: (0.20, 0.30), 128: (0.55, 0.71), 256: (0.83, 0.96), 512: (0.95, 1.0)}
"""Best possible Dice and surface Dice by side of the grid."""


def ceilings(sides: dict[int, tuple[float, float]]) -> tuple[dict[str, Any], ...]:
    return tuple({"grid": (side, side), "classes": {"a": s}} for side, s in sides.items())


@pytest.mark.parametrize(
    ("side", "whole", "of", "fine"),
    [
        (64, 128, LUNGS, False),  # Dice would do, the surface would not
        (96, 128, LUNGS, True),
        (100, 128, LUNGS, True),  # a grid of 96 is the next coarser one
        (128, 256, LUNGS, True),
        (64, 64, LUNGS, True),
        (128, 256, CARIES, False),
        (256, 512, CARIES, False),
        (512, 512, CARIES, True),
        (48, 128, LUNGS, False),  # nothing is known of it
    ],
)
def test_a_coarser_grid_is_fine_where_structures_lose_little(side, whole, of, fine) -> None:
    one, other = (Plan(2, ("image",), ("background", "a"), (n, n)) for n in (side, whole))
    assert is_fine(one, replace(other, ceilings=ceilings(of))) == fine


def test_a_grid_of_volumes_is_fine_by_its_spacing() -> None:

    def volumes(mm: float) -> Plan:
        return Plan(3, ("CT",), (), (16, 16, 16), (mm, mm, mm))

    assert is_fine(volumes(1.5), volumes(1.0))
    assert not is_fine(volumes(2.0), volumes(1.0))
