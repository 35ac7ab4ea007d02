"""How the time of a choice is shared, on a machine of a stated speed: costs by hand, and a table of cases."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from radiffuse.automatic.schedule import SCHEDULES, choose_schedule, is_fine
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
    plan = Plan(2, ("image",), ("background", "a"), (side, side))
    settings = SimpleNamespace(training=training)
    return SimpleNamespace(settings=settings, plan=plan, seconds=3600 * hours, steps_given=False)


def test_costs_are_those_worked_out_by_hand() -> None:
    """In trainings: trials of the first round, then of the second, then those on all labels."""
    rich, short, brief, thrice, once = SCHEDULES
    assert rich.cost(5, 5, pool=False) == pytest.approx(25 / 8 + 10 / 2 + 2)
    assert rich.cost(5, 5, pool=True) == pytest.approx(25 / 8 + 10 / 2 * 3 + 4)
    assert rich.cost(5, 5, pool=False, reference=True) == pytest.approx(25 / 8 + 15 / 2 + 2)
    assert rich.cost(1, 2, pool=False) == pytest.approx(2 / 8 + 2 / 2 + 2)
    assert short.cost(5, 5, pool=False) == pytest.approx(9 / 4 + 3 / 2 + 2)
    assert short.cost(5, 5, pool=True) == pytest.approx(9 / 4 + 3 / 2 * 3 + 4)
    assert brief.cost(5, 5, pool=False) == pytest.approx(2 * 2 / 2 + 1)
    assert brief.cost(5, 5, pool=True) == pytest.approx(2 / 2 * 3 + 2)  # one, without and with it
    assert (thrice.cost(5, 5, pool=True), once.cost(5, 5, pool=True)) == (3, 1)


CASES = [
    # hours, cores, labels, pool: candidates and folds, side of the grid
    (0.05, 1, 5, False, 2, 2, 64),  # nor would the whole time be enough for 128 px
    (0.1, 1, 5, False, 1, 0, 128),
    (0.1, 1, 5, True, 1, 0, 128),
    (0.17, 1, 5, False, 2, 2, 128),
    (0.3, 1, 5, False, 2, 2, 128),
    (0.3, 1, 5, True, 2, 2, 128),
    (0.35, 1, 5, False, 3, 3, 128),
    (0.35, 1, 5, True, 2, 2, 128),
    (0.3, 2, 5, False, 9, 5, 128),
    (0.3, 2, 5, True, 3, 3, 128),
    (1.0, 1, 5, False, 9, 5, 128),
    (1.0, 1, 5, True, 3, 3, 128),
    (2.0, 1, 5, True, 9, 5, 128),
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
    # A third of a short time is for the trainings on all labels, a fifth of a long one.
    final = chosen.final * share * (2 if pool and folds else 1)
    assert final >= (1 if not folds and chosen.final < 3 else 0.18 if folds == 5 else 0.33)


def test_a_grid_is_fine_by_its_pixels_or_its_spacing() -> None:
    def films(side: int) -> Plan:
        return Plan(2, ("image",), (), (side, side))

    def volumes(mm: float) -> Plan:
        return Plan(3, ("CT",), (), (16, 16, 16), (mm, mm, mm))

    assert is_fine(films(128), films(512))
    assert not is_fine(films(64), films(128))
    assert is_fine(films(64), films(64))
    assert is_fine(volumes(1.5), volumes(1.0))
    assert not is_fine(volumes(2.0), volumes(1.0))
