"""Intervals cover what they promise; tests agree with scipy; what cannot be decided is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from radiffuse.evaluation.statistics import (
    clustered_difference,
    clustered_mean,
    holm,
    verdict,
)


def test_bootstrap_interval_covers_the_mean_as_often_as_promised() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        interval = clustered_mean(generator.normal(2, 1, 40), samples=400, seed=trial)
        covered += interval.low <= 2 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_bootstrap_interval_has_the_width_of_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0, 3, 400)
    interval = clustered_mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.03)


def test_bootstrap_drops_nan_and_counts() -> None:
    with_nan = clustered_mean([0.5, math.nan, 0.7, 0.9])
    assert with_nan == clustered_mean([0.5, 0.7, 0.9])
    assert with_nan.n == 3


def test_bootstrap_repeats_from_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=20)
    assert clustered_mean(values, seed=1) == clustered_mean(values, seed=1)
    assert clustered_mean(values, seed=1) != clustered_mean(values, seed=2)


def test_too_few_values_have_no_interval() -> None:
    assert clustered_mean([]).n == 0
    assert math.isnan(clustered_mean([]).mean)
    single = clustered_mean([0.4])
    assert (single.mean, single.n) == (0.4, 1)
    assert math.isnan(single.low)
    assert math.isnan(single.high)


def test_clusters_widen_the_interval() -> None:
    patients = np.repeat(np.arange(20), 10)
    values = np.random.default_rng(2).normal(0, 1, 20)[patients]
    naive = clustered_mean(values)
    honest = clustered_mean(values, group=patients.tolist())
    # Ten copies of each value carry no more information than one: the width grows by sqrt(10).
    ratio = (honest.high - honest.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(math.sqrt(10), rel=0.1)


def test_crossed_draws_and_patients_both_enter_the_interval() -> None:
    generator = np.random.default_rng(3)
    draw, case = (x.ravel() for x in np.meshgrid(range(8), range(30), indexing="ij"))
    by_draw = generator.normal(0, 1, 8)[draw]
    by_case = generator.normal(0, 1, 30)[case]
    both = clustered_mean(by_draw + by_case, draw=draw.tolist(), group=case.tolist())
    only = clustered_mean(by_draw + by_case, group=case.tolist())
    expected = 2 * 1.96 * math.sqrt(by_draw.var() / 8 + by_case.var() / 30)
    assert both.high - both.low == pytest.approx(expected, rel=0.1)
    assert only.high - only.low < 0.7 * (both.high - both.low)


def test_missing_cells_are_allowed() -> None:
    values = [0.1, 0.2, 0.3, math.nan, 0.5]
    result = clustered_mean(values, draw=[0, 0, 1, 1, 1], group=["a", "b", "a", "b", "c"])
    assert result.n == 4
    assert result.mean == pytest.approx(0.275)
    assert result.low <= 0.275 <= result.high


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=6, max_size=40))
def test_p_value_is_scipys(differences: list[float]) -> None:
    b = np.zeros(len(differences))
    result = clustered_difference(differences, b, samples=50)
    nonzero = np.array(differences)[np.array(differences) != 0]
    if nonzero.size >= 6:
        assert result.p_value == pytest.approx(stats.wilcoxon(nonzero).pvalue)
        assert result.note == ""
    elif nonzero.size == 0:
        assert (result.p_value, result.note) == (1.0, "all differences are zero")
    else:
        assert math.isnan(result.p_value)


def test_clustered_difference_is_antisymmetric() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.normal(0.1, 1, 30), generator.normal(0, 1, 30)
    there, back = clustered_difference(a, b), clustered_difference(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.low == pytest.approx(-back.high, abs=1e-9)


def test_five_pairs_are_not_tested() -> None:
    result = clustered_difference([1, 2, 3, 4, 5], [0, 0, 0, 0, 0])
    assert math.isnan(result.p_value)
    assert "6" in result.note
    assert result.n == 5
    assert result.low > 0


def test_equal_values_have_p_one_and_no_width() -> None:
    result = clustered_difference([0.5] * 8, [0.5] * 8)
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)
    assert result.note


def test_pairs_with_nan_are_dropped() -> None:
    a, b = [1.0, math.nan, 3.0], [0.0, 1.0, math.nan]
    assert clustered_difference(a, b).n == 1
    assert clustered_difference(a, b).difference == 1.0
    assert clustered_difference([math.nan], [1.0]).n == 0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        clustered_difference([1, 2], [1])
    with pytest.raises(ValueError, match="labels"):
        clustered_difference([1, 2], [1, 2], group=["a"])


def test_clustered_p_value_sees_each_patient_once() -> None:
    generator = np.random.default_rng(5)
    effect = generator.normal(0.2, 1, 10)
    draw, case = (x.ravel() for x in np.meshgrid(range(3), range(10), indexing="ij"))
    values = effect[case] + generator.normal(0, 0.1, 30)
    result = clustered_difference(values, np.zeros(30), draw=draw.tolist(), group=case.tolist())
    assert result.n == 10
    means = [values[case == i].mean() for i in range(10)]
    assert result.p_value == pytest.approx(stats.wilcoxon(means).pvalue)


def test_holm_on_hand_computed_values() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    adjusted = holm([0.01, math.nan, 0.02])
    np.testing.assert_allclose(adjusted[[0, 2]], [0.02, 0.02])
    assert math.isnan(adjusted[1])
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.01, 0.05, 0.001, "holds"),
        (-0.05, -0.01, 0.001, "does not hold"),
        (-0.01, 0.05, 0.001, "not decided"),
        (0.01, 0.05, 0.2, "not decided"),
        (0.01, 0.05, math.nan, "not decided"),
        (math.nan, math.nan, 0.001, "not decided"),
    ],
)
def test_verdict(low: float, high: float, p: float, expected: str) -> None:
    assert verdict(low, high, p) == expected


def test_pairs_without_a_difference_do_not_bear_on_the_test() -> None:
    """Six differences of one sign: both signs of all are as extreme, so p = 2 / 2^6; zeros change nothing."""
    for zeros in (0, 1, 4, 60):
        differences = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] + [0.0] * zeros
        result = clustered_difference(differences, [0.0] * (6 + zeros))
        assert result.p_value == pytest.approx(2 / 2**6)
        assert result.n == 6 + zeros
