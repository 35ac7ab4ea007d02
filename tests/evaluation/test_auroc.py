"""AUROC and its intervals, against counting pairs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from radiffuse.evaluation.classification import CrossedAreas, auroc_by_class, weighted_auroc


def pairs(scores: np.ndarray, positive: np.ndarray) -> float:
    gaps = scores[positive][:, None] - scores[~positive][None]
    return float((gaps > 0).mean() + (gaps == 0).mean() / 2)


def test_it_is_the_share_of_pairs_in_order_and_weights_are_copies() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40) / 5, rng.random(40) < 0.4
    weights = rng.integers(0, 3, 40)
    found = weighted_auroc(scores, positive, np.stack([np.ones(40), weights]))
    assert found[0] == pytest.approx(pairs(scores, positive))
    copied = np.repeat(np.arange(40), weights)
    assert found[1] == pytest.approx(pairs(scores[copied], positive[copied]))


def test_memory_does_not_grow_with_the_square_of_the_images() -> None:
    """The test films of ChestX-ray14 are 25,596, whose pairs would take 5 GB."""
    n = 4000
    positive = np.arange(n) % 3 == 0
    scores = np.random.default_rng(0).permutation(n) + 1000.0 * positive
    tracemalloc.start()
    found = weighted_auroc(scores, positive, np.ones((2, n)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[0] == found[1] == pytest.approx(pairs(scores, positive))
    assert most < 100 * 8 * n


@pytest.mark.parametrize(("scores", "area"), [([0, 1, 2, 3], 1), ([3, 2, 1, 0], 0), ([1] * 4, 0.5)])
def test_extremes(scores: list[float], area: float) -> None:
    positive = np.array([False, False, True, True])
    assert weighted_auroc(np.array(scores, float), positive, np.ones((1, 4)))[0] == area


def test_without_a_positive_there_is_none() -> None:
    assert np.isnan(weighted_auroc(np.arange(3.0), np.zeros(3, bool), np.ones((1, 3)))[0])


def test_the_mean_stands_behind_the_classes() -> None:
    truth = np.array([0, 1, 2, 0, 1, 2])
    probabilities = np.eye(3)[truth]
    probabilities[0] = [0, 1, 0]
    found = auroc_by_class(probabilities, truth)[0]
    expected = [pairs(probabilities[:, k], truth == k) for k in range(3)]
    assert found == pytest.approx([*expected, np.mean(expected)])


def noisy(truth: np.ndarray, strength: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(truth), 2))
    return np.eye(2)[truth] * strength + noise


def test_differences_are_paired() -> None:
    """A method that differs by a hair from another is told apart although both intervals are wide."""
    truth = np.repeat([0, 1], 60)
    weak = [noisy(truth, 0.8, seed) for seed in range(3)]
    strong = [p + 0.6 * np.eye(2)[truth] for p in weak]
    crossed = CrossedAreas(truth, range(120))
    gain = crossed.differences(strong, weak)[-1]
    apart = crossed.intervals(strong)[-1], crossed.intervals(weak)[-1]
    assert gain.low > 0
    assert gain.mean == pytest.approx(apart[0].mean - apart[1].mean)
    assert gain.high - gain.low < apart[1].high - apart[1].low
    same = crossed.differences(weak, weak)[-1]
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_patients_and_draws_widen_the_interval() -> None:
    truth = np.tile([0, 1], 40)
    patients = np.repeat(np.arange(10), 8)
    effect = np.random.default_rng(3).normal(size=10)[patients]
    signed = noisy(truth, 1.0, 0)
    signed[:, 1] += 2 * effect * np.where(truth == 1, 1, -1)
    signed[:, 0] = -signed[:, 1]

    def width(groups: np.ndarray, draws: list[np.ndarray]) -> float:
        crossed = CrossedAreas(truth, groups.tolist())
        found = crossed.intervals(draws)[-1]
        return found.high - found.low

    assert width(patients, [signed]) > width(np.arange(80), [signed])
    draws = [noisy(truth, strength, 7) for strength in (0.1, 3.0)]
    assert width(np.arange(80), draws) > width(np.arange(80), [draws[1], draws[1]])
