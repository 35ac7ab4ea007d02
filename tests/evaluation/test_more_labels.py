"""What more labels would bring, from learning curves whose law is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radiffuse.evaluation.more_labels import curve, gain


def fold(scale: float, power: float, budgets: tuple[int, ...] = (2, 4)) -> dict[int, float]:
    return {n: 1 - scale * n**-power for n in budgets}


def test_a_power_law_is_followed_exactly() -> None:
    folds = [fold(0.3, 0.5) for _ in range(5)]
    found = gain(folds, 4, 12)
    truth = 0.3 * 4**-0.5 - 0.3 * 16**-0.5
    assert (found.dice, found.low, found.high) == pytest.approx((truth,) * 3)
    assert found.decided
    said = "12 labels beyond these 4 would bring about +0.075 Dice (+0.075 to +0.075)"
    assert str(found) == f"{said}, if the curve goes on."
    for n, dice, low, high in curve(folds, (1, 4, 9)):
        assert (dice, low, high) == pytest.approx((1 - 0.3 * n**-0.5,) * 3)


def test_the_interval_is_students_over_folds() -> None:
    folds = [fold(s, 1.0) for s in (0.1, 0.2, 0.6)]  # each gains s (1/4 - 1/8)
    found = gain(folds, 4, 4)
    gains = np.array([0.1, 0.2, 0.6]) / 8
    reach = 4.302653 * gains.std(ddof=1) / math.sqrt(3)  # t of 2 degrees of freedom
    assert found.dice == pytest.approx(gains.mean())
    assert (found.low, found.high) == pytest.approx((gains.mean() - reach, gains.mean() + reach))
    assert not found.decided
    assert "is not decided: -" in str(found)


def test_what_was_not_measured_is_not_decided() -> None:
    three = [fold(0.3, 0.5) for _ in range(3)]
    for folds, more in (([], 10), (three[:2], 4), ([{4: 0.9}] * 5, 4)):
        found = gain(folds, 4, more)
        assert math.isnan(found.dice)
        assert not found.decided
        assert "not measured, or is too far ahead" in str(found)
    assert curve([{4: 0.9}], (4, 8)) == curve(three[:2], (4, 8)) == []
    assert gain([*three, {4: 0.9}], 4, 4).decided


def test_the_interval_covers_where_folds_scatter() -> None:
    rng = np.random.default_rng(0)
    truth, held = 0.4 / 4 - 0.4 / 8, 0
    for _ in range(400):
        folds = [
            {n: 1 - 0.4 / n * math.exp(0.1 * rng.normal()) for n in (1, 2, 4)} for _ in range(5)
        ]
        found = gain(folds, 4, 4)
        held += found.low <= truth <= found.high
    assert 0.92 < held / 400 <= 1


def test_a_curve_that_falls_is_told_as_it_is() -> None:
    worse = gain([fold(0.05, -0.5), fold(0.05, -0.5), fold(0.05, -0.5)], 4, 4)
    assert worse.high < 0
    assert worse.decided


def test_where_so_many_are_too_far_ahead_it_is_said_of_fewer() -> None:
    """Four times the 4 labels of a fold are 16."""
    folds = [fold(0.3, 0.5) for _ in range(3)]
    assert [gain(folds, 4, more).more for more in (10, 12, 13)] == [10, 12, 12]
    assert gain(folds, 4, 13).dice == gain(folds, 4, 12).dice
    assert math.isnan(gain(folds, 16, 1).dice)


def test_no_dice_is_above_one() -> None:
    rows = curve([{2: 0.5, 4: 0.9}, {2: 0.5, 4: 0.9}, {2: 0.5, 4: 0.52}], (4, 14))
    assert all(0 <= low <= mean <= high <= 1 for _, mean, low, high in rows)
    assert rows[1][3] == 1
