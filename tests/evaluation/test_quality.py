"""The Dice to expect of a mask, and intervals that hold what they promise, against simulation and hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radiffuse.evaluation.quality import conformal, expect, expected_dice, strain, uncertainty_of


def test_probabilities_expect_the_dice_of_truths_that_are_drawn_from_them() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet((0.3, 0.2, 0.1), (40, 30, 10)).transpose(3, 0, 1, 2)
    mask = p.argmax(0)
    sums = p.cumsum(0)
    scores = []
    for _ in range(20):
        truth = (rng.random(mask.shape) > sums[:2]).sum(0)
        both = [((mask == c) & (truth == c)).sum() for c in (1, 2)]
        scores.append(
            [2 * b / ((mask == c).sum() + (truth == c).sum()) for c, b in enumerate(both, 1)]
        )
    assert expected_dice(p) == pytest.approx(np.mean(scores, 0), abs=0.005)


def test_a_class_that_the_mask_lacks_has_no_expected_dice() -> None:
    p = np.stack([np.full((4, 4), 0.6), np.full((4, 4), 0.3), np.full((4, 4), 0.1)])
    assert np.isnan(expected_dice(p)).all()
    p[:, 0, 0] = 0, 1, 0
    assert expected_dice(p)[0] == pytest.approx(2 * 1 / (1 + 1 + 15 * 0.3))


@pytest.mark.parametrize(
    ("values", "level", "low", "high", "reached"),
    [
        # n = 2: 0 is reflected to (2 * 1 - 3 * 0) / 1 = 2, and 1 to -1
        ((0, 1), 0.95, -1, 2, 2 / 3),
        # n = 3: 0 is reflected to 3, and 3 to -3; two of four may lie outside
        ((0, 0, 3), 0.5, 0, 3, 2 / 4),
        ((0, 0, 3), 0.95, -3, 3, 3 / 4),
        ((1, 1, 1, 1, 1), 0.95, 1, 1, 5 / 6),
    ],
)
def test_hand_worked_intervals(
    values: tuple[float, ...], level: float, low: float, high: float, reached: float
) -> None:
    assert conformal(values, level) == pytest.approx((low, high, reached))


@pytest.mark.parametrize("n", [2, 5, 9, 10, 30])
def test_the_interval_is_that_of_trying_every_candidate(n: int) -> None:
    values = np.random.default_rng(n).gamma(2, size=n)
    low, high, reached = conformal(values, 0.9)
    tried = np.linspace(low - 1, high + 1, 1501)
    everything = np.concatenate([np.tile(values, (len(tried), 1)), tried[:, None]], axis=1)
    distance = np.abs(everything - everything.mean(1, keepdims=True))
    rank = (distance < distance[:, -1:] - 1e-12).sum(1) + 1
    inside = tried[rank <= round(reached * (n + 1))]
    step = tried[1] - tried[0]
    assert (inside.min(), inside.max()) == pytest.approx((low, high), abs=1.01 * step)


@pytest.mark.parametrize(
    ("n", "reached"), [(2, 2 / 3), (5, 5 / 6), (9, 9 / 10), (10, 10 / 11), (20, 19 / 21)]
)
def test_coverage_is_what_is_promised_no_more_and_no_less(n: int, reached: float) -> None:
    """Of skewed values, whatever their scale; with few cases less is promised than was asked for."""
    rng = np.random.default_rng(n)
    held, times = 0, 4000
    for values in rng.exponential(size=(times, n + 1)):
        low, high, promised = conformal(values[:-1], 0.9)
        assert promised == pytest.approx(reached)
        held += low <= values[-1] <= high
    assert held / times == pytest.approx(reached, abs=4 * math.sqrt(0.25 / times) * 0.8)


def test_masks_of_an_overconfident_network_are_expected_as_they_are() -> None:
    """True loss twice what probabilities expect, with scatter: the expectation is right, the interval covers."""
    rng = np.random.default_rng(1)
    held, errors = [], []
    for _ in range(300):
        own = rng.uniform(0.85, 0.97, 13)
        dice = 1 - 2 * (1 - own) * np.exp(0.2 * rng.normal(size=13))
        found = expect(own[-1], strain(own[:-1], dice[:-1]))
        assert found is not None
        assert found.level == pytest.approx(12 / 13)
        held.append(found.low <= dice[-1] <= found.high)
        errors.append(found.dice - dice[-1])
    assert np.mean(held) > 0.87
    assert np.mean(errors) == pytest.approx(0, abs=0.01)


def test_nothing_is_said_of_too_few_cases_or_of_a_class_that_is_not_there() -> None:
    assert expect(0.9, [0.1]) is None
    assert expect(0.9, [0.1, math.nan]) is None
    assert expect(math.nan, [0.1, 0.2]) is None
    found = expect(0.5, [3.0, 3.1])
    assert found is not None
    assert 0 <= found.low <= found.dice <= found.high <= 1


def test_the_uncertainty_of_a_class_is_weighed_by_its_probability() -> None:
    sure = np.array([[1.0, 0.0], [0.0, 1.0]])[:, None]
    doubt = np.array([[1.0, 0.5], [0.0, 0.5]])[:, None]
    assert uncertainty_of(sure)[0] == pytest.approx([0.0], abs=1e-9)
    entropy, volume = uncertainty_of(doubt)
    assert entropy == pytest.approx([0.5])  # half the probability of a pixel of full entropy
    assert volume == pytest.approx([0.5])
