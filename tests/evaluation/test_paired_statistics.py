"""Intervals cover what they promise; variances agree with sums worked by hand; what cannot be decided is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from radiffuse.evaluation.statistics import (
    FEWEST,
    ONE_DRAW,
    clustered_difference,
    clustered_mean,
    clustered_share,
    holm,
    verdict,
)


def crossed(table: np.ndarray) -> dict[str, list[int]]:
    """Draw and patient of each value of a full table ``(draws, patients)``, row by row."""
    draw, patient = np.indices(table.shape)
    return {"draw": draw.ravel().tolist(), "group": patient.ravel().tolist()}


def test_a_full_table_is_the_analysis_of_variance_worked_by_hand() -> None:
    """Means of rows 2, 4, 6, of columns 3, 5, of all 4; mean squares of draws 2 * 8 / 2 = 8, of patients 3 * 2 / 1 = 6.

    The rest of each cell is -1, 1; 0, 0; 1, -1, with the mean square 4 / 2 = 2. So the variance of the mean is
    (8 + 6 - 2) / 6 = 2, and its df (8 + 6 - 2)^2 / (8^2 / 2 + 6^2 / 1 + 2^2 / 2) = 144 / 70.
    """
    table = np.array([[0.0, 4.0], [3.0, 5.0], [6.0, 6.0]])
    found = clustered_mean(table, **crossed(table))
    reach = stats.t.ppf(0.975, 144 / 70) * math.sqrt(2)
    assert (found.mean, found.n) == (4, 6)
    assert found.low == pytest.approx(4 - reach)
    assert found.high == pytest.approx(4 + reach)


def test_a_component_below_zero_counts_as_zero() -> None:
    """Draw means are all 2, so that the draws' mean square is 0, below that of the rest: patients alone count.

    Patient means are 1 and 3, with the mean square 2 * 2 / 1 = 4; rests are 1, -1; -1, 1, with 4 / 1. So A is 0, not
    (0 - 4) / 4, and B is (4 - 4) / 4: the variance is E = 4 / 4, its df 1 / (1 / 1 + 1 / 1 + 1 / 1), which counts as 1.
    """
    table = np.array([[2.0, 2.0], [0.0, 4.0]])
    found = clustered_mean(table, **crossed(table))
    assert found.high == pytest.approx(2 + stats.t.ppf(0.975, 1))


def test_one_draw_is_students_test_over_patients() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 12)
    for draw in (None, ["only"] * 12):
        found = clustered_difference(values, np.zeros(12), draw=draw)
        theirs = stats.ttest_1samp(values, 0)
        assert found.p_value == pytest.approx(theirs.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    assert (found.draws, found.note) == (1, ONE_DRAW)
    assert clustered_difference(values, np.zeros(12)).note == ""


def test_several_images_of_a_patient_are_one_patient() -> None:
    """With as many images each, the interval is Student's over the patients' means."""
    values = np.random.default_rng(2).normal(size=(9, 4)) + np.arange(9)[:, None]
    found = clustered_mean(values, group=np.repeat(np.arange(9), 4).tolist())
    theirs = stats.ttest_1samp(values.mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(theirs))


def test_patients_of_their_own_in_every_draw_leave_the_draws_to_count() -> None:
    values = np.random.default_rng(3).normal(size=(5, 8))
    draw = np.repeat(np.arange(5), 8).tolist()
    found = clustered_mean(values, draw=draw)
    theirs = stats.ttest_1samp(values.mean(1), 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(theirs))
    # One value per draw: the draws are the sample, whatever the values are called.
    one = clustered_mean(values[:, 0], draw=[*range(5)], group=[*range(5)])
    theirs = stats.ttest_1samp(values[:, 0], 0).confidence_interval()
    assert (one.low, one.high) == pytest.approx(tuple(theirs))


def test_missing_cells_leave_components_without_bias() -> None:
    """Over many tables with holes, the mean of the variances is the variance of the means."""
    generator = np.random.default_rng(4)
    draw, patient = (axis.ravel() for axis in np.indices((6, 15)))
    kept = generator.random(90) < 0.6
    draw, patient = draw[kept], patient[kept]
    means, variances = [], []
    for _ in range(400):
        parts = generator.normal(0, 0.5, 6)[draw] + generator.normal(0, 1, 15)[patient]
        values = parts + generator.normal(0, 0.7, kept.sum())
        found = clustered_mean(values, draw=draw.tolist(), group=patient.tolist())
        means.append(found.mean)
        variances.append(((found.high - found.low) / 2 / 2.3) ** 2)
    # Student's quantile is about 2.3 here: the df are between those of 6 draws and 15 patients.
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.25)


def test_nan_are_dropped_and_too_few_values_have_no_interval() -> None:
    assert clustered_mean([0.5, math.nan, 0.7, 0.9]) == clustered_mean([0.5, 0.7, 0.9])
    assert clustered_mean([0.5, math.nan, 0.7, 0.9]).n == 3
    assert clustered_mean([]).n == 0
    assert math.isnan(clustered_mean([math.nan]).mean)
    for single in (clustered_mean([0.4]), clustered_mean([0.4, 0.6], draw=[0, 1], group=[0, 0])):
        assert math.isfinite(single.mean)
        assert math.isnan(single.low)
        assert math.isnan(single.high)


def test_a_score_stays_within_its_bounds() -> None:
    """Mean .8 and reach r: the log-odds are ln 4, and their reach r (1 / .8 + 1 / .2)."""
    values = [1.0, 1.0, 0.4, 0.8]
    reach = clustered_mean(values).high - 0.8
    found = clustered_mean(values, bounds=(0, 1))
    for end, sign in ((found.low, -1), (found.high, 1)):
        assert math.log(end / (1 - end)) == pytest.approx(math.log(4) + sign * reach * 6.25)
    distances = clustered_mean([9.0, 0.0, 1.0], bounds=(0, math.inf))
    assert (distances.low, distances.high) == (0, clustered_mean([9.0, 0.0, 1.0]).high)
    perfect = clustered_mean([1.0, 1.0, 1.0], bounds=(0, 1))
    assert (perfect.low, perfect.mean, perfect.high) == (1, 1, 1)


def test_p_is_below_5_percent_where_zero_lies_outside_the_interval() -> None:
    generator = np.random.default_rng(5)
    seen = set()
    for _ in range(60):
        table = generator.normal(0.3, 0.5, (3, 1)) + generator.normal(0, 1, (3, 20))
        found = clustered_difference(table, 0 * table, **crossed(table))
        outside = found.low > 0 or found.high < 0
        assert outside == (found.p_value < 0.05)
        seen.add(outside)
        back = clustered_difference(0 * table, table, **crossed(table))
        assert (back.p_value, back.low, back.difference) == (
            found.p_value,
            -found.high,
            -found.difference,
        )
    assert seen == {True, False}


def test_what_cannot_be_tested_says_why() -> None:
    few = clustered_difference([1, 2, 3, 4, 5], [0] * 5)
    assert math.isnan(few.p_value)
    assert few.note == f"5 patients; the test needs {FEWEST}"
    assert few.low > 0
    same = clustered_difference([0.5] * 8, [0.5] * 8)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert same.note == "all differences are zero"
    constant = clustered_difference([0.3 + 0.1] * 8, [0.1] * 8)
    assert math.isnan(constant.p_value)
    assert constant.note == "all differences are equal"
    assert clustered_difference([1.0, math.nan, 3.0], [0.0, 1.0, math.nan]).n == 1
    assert clustered_difference([math.nan], [1.0]).note == "no pairs"


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        clustered_difference([1, 2], [1])
    with pytest.raises(ValueError, match="labels"):
        clustered_difference([1, 2], [1, 2], group=["a"])


def test_holm_on_hand_computed_values() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    adjusted = holm([0.01, math.nan, 0.02])
    np.testing.assert_allclose(adjusted[[0, 2]], [0.02, 0.02])
    assert math.isnan(adjusted[1])
    assert holm([]).size == 0


SAME = "no difference larger than 0.01"


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.01, 0.05, 0.001, "better"),
        (-0.05, -0.01, 0.001, "worse"),
        (0.001, 0.003, 0.001, "better"),
        (-0.001, 0.009, 0.3, SAME),
        (0.001, 0.009, 0.07, SAME),  # 0 lies outside, but not after Holm
        (-0.001, 0.011, 0.3, "not decided"),
        (-0.011, 0.001, 0.3, "not decided"),
        (0.01, 0.05, 0.2, "not decided"),
        (0.01, 0.05, math.nan, "not decided"),
        (-0.001, 0.001, math.nan, "not decided"),
        (math.nan, math.nan, 0.001, "not decided"),
    ],
)
def test_verdict(low: float, high: float, p: float, expected: str) -> None:
    assert verdict(low, high, p, draws=3) == expected
    decided = expected != "not decided"
    assert verdict(low, high, p, draws=1) == expected + " on this draw" * decided
    if expected == SAME:
        assert verdict(low, high, p, margin=0) == "not decided"


def coverage(
    draws: int, patients: int, spread: tuple[float, float, float], tables: int, seed: int
) -> tuple[float, float]:
    """Shares of tables whose interval holds the true mean, and that get a verdict although there is no effect."""
    generator = np.random.default_rng(seed)
    held = decided = 0
    for _ in range(tables):
        table = generator.normal(0, spread[0], (draws, 1)) + generator.normal(
            0, spread[1], patients
        )
        table = table + generator.normal(0, spread[2], table.shape)
        found = clustered_difference(table, 0 * table, **crossed(table))
        held += found.low <= 0 <= found.high
        decided += verdict(found.low, found.high, found.p_value, margin=0) != "not decided"
    return held / tables, decided / tables


def test_where_draws_matter_as_much_as_patients_three_draws_cover_still() -> None:
    """The bootstrap over draws and patients covered .81 to .88 here, and Wilcoxon's test decided 13 to 19 %."""
    held, decided = coverage(3, 24, (1 / math.sqrt(8), 1.0, 0.5), 300, 6)
    assert held >= 0.92
    assert decided <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("draws", [3, 5, 10])
@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("rest", [0.2, 1.0, 3.0])
def test_intervals_cover_at_any_ratio_of_the_variances(
    draws: int, draw: float, rest: float
) -> None:
    """``draw`` is what draws add to the standard deviation of the mean, in units of what 20 patients add."""
    spread = (draw * math.sqrt(draws / 20), 1.0, rest)
    held, decided = coverage(draws, 20, spread, 1000, 7)
    assert held >= 0.93 - 0.014  # two standard errors
    assert decided <= 0.07 + 0.016


@pytest.mark.parametrize("n", [1, 5, 59, 400])
def test_a_share_of_none_or_all_has_the_exact_interval(n: int) -> None:
    from scipy.stats import binomtest

    for count in (0, n):
        found = clustered_share(np.full(n, count / n), range(n))
        exact = binomtest(count, n).proportion_ci(method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
        assert found.n == n
    # Three images of each patient say no more than one.
    thrice = clustered_share(np.zeros(3 * n), [i // 3 for i in range(3 * n)])
    assert thrice.high == pytest.approx(binomtest(0, n).proportion_ci(method="exact").high)


def test_a_share_of_some_is_a_mean_between_0_and_1() -> None:
    values, patients = np.array([0, 1, 0, 0, 1, 0.0]), list("aabbcc")
    assert clustered_share(values, patients) == clustered_mean(
        values, group=patients, bounds=(0, 1)
    )
