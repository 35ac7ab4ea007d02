"""Intervals of means, paired comparisons, and the correction for multiple comparisons.

Test cases and draws of labeled images are *crossed*: every draw is tested on the same patients. Resampling cases in
each draw would treat a hard patient, met in every draw, as independent bad luck, and give too narrow intervals. So
draws and patients are resampled independently of each other, the pigeonhole bootstrap of Owen 2007 (The Annals of
Applied Statistics 1(2), 386-411), which errs on the wide side. Intervals are percentiles of the bootstrap distribution
(Efron and Tibshirani 1993, chapter 13).

Throughout, ``draw`` and ``group`` are ``(n,)``: the draw of labeled images and the patient that each value comes from.
Without them, all values come from one draw and each from a patient of its own. ``samples`` is the number of bootstrap
samples, ``seed`` that of the resampling.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVELS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Quantiles of the bootstrap distribution that bound a 95% interval."""
ALPHA = 0.05
"""Level of the tests."""
SMALLEST_SAMPLE = 6
"""Fewest nonzero differences that a signed-rank test decides at 5%: five reach .0625 at best."""


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval.

    Attributes:
        mean: Of the values that are not NaN; NaN if there is none.
        low: Lower end; NaN with fewer than two independent values.
        high: Upper end; likewise.
        n: Number of values that are not NaN.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison.

    Attributes:
        difference: Mean of a - b over the pairs.
        low: Lower end of its bootstrap interval; NaN with fewer than two independent pairs.
        high: Upper end; likewise.
        p_value: Two-sided p of Wilcoxon's signed-rank test; NaN if the test cannot decide, see ``note``.
        n: Number of independent pairs: pairs, or patients where pairs are clustered.
        note: Why ``p_value`` is NaN or exactly 1; else empty.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    note: str = ""


def clustered_mean(
    values: ArrayLike,
    *,
    draw: Sequence[Hashable] | None = None,
    group: Sequence[Hashable] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean of values ``(n,)`` that share draws and patients, with its pigeonhole bootstrap interval; NaN are dropped.

    Raises:
        ValueError: Lengths differ.
    """
    numbers = np.asarray(values, dtype=np.float64).ravel()
    rows = _codes(draw, numbers.size, one=True)
    columns = _codes(group, numbers.size, one=False)
    known = ~np.isnan(numbers)
    numbers, rows, columns = numbers[known], _compact(rows[known]), _compact(columns[known])
    if numbers.size == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(numbers.mean())
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    if shape[1] < 2:
        return Interval(mean, math.nan, math.nan, numbers.size)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (rows, columns), numbers)
    np.add.at(counts, (rows, columns), 1)
    means = _pigeonhole(sums, counts, samples, np.random.default_rng(seed))
    low, high = np.nanquantile(means, LEVELS)
    return Interval(mean, float(low), float(high), numbers.size)


def clustered_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    draw: Sequence[Hashable] | None = None,
    group: Sequence[Hashable] | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Mean of a - b over pairs ``(n,)`` that share draws and patients; a pair with a NaN is dropped.

    The interval resamples draws and patients. The p-value is that of Wilcoxon's signed-rank test on one number per
    patient, the mean difference over its pairs: it holds for new patients given these draws, the interval for new
    patients and new draws.

    Raises:
        ValueError: Lengths differ.
    """
    first = np.asarray(a, dtype=np.float64).ravel()
    second = np.asarray(b, dtype=np.float64).ravel()
    if first.size != second.size:
        raise ValueError(f"pairs need equal lengths, got {first.size} and {second.size}")
    difference = first - second
    interval = clustered_mean(difference, draw=draw, group=group, samples=samples, seed=seed)
    known = ~np.isnan(difference)
    columns = _compact(_codes(group, difference.size, one=False)[known])
    per_group = np.bincount(columns, difference[known]) / np.maximum(np.bincount(columns), 1)
    p_value, note = signed_rank(per_group)
    return PairedTest(interval.mean, interval.low, interval.high, p_value, per_group.size, note)


def signed_rank(differences: Floats) -> tuple[float, str]:
    """Two-sided p of Wilcoxon's signed-rank test on independent differences ``(n,)`` without NaN, and a note.

    The note says why p is NaN or exactly 1; else it is empty. Zeros are dropped first, as Wilcoxon did, so that the
    choice between the exact distribution and the normal approximation depends on the remaining differences.
    """
    from scipy import stats

    nonzero = differences[differences != 0]
    if differences.size >= SMALLEST_SAMPLE and nonzero.size == 0:
        return 1.0, "all differences are zero"
    if nonzero.size < SMALLEST_SAMPLE:
        return math.nan, f"{nonzero.size} nonzero pairs; the test needs {SMALLEST_SAMPLE}"
    return float(stats.wilcoxon(nonzero).pvalue), ""


def holm(p_values: Iterable[float]) -> Floats:
    """p-values adjusted for their number by the step-down method of Holm 1979; NaN stay NaN and do not count."""
    values = np.asarray(list(p_values), dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def verdict(low: float, high: float, p_value: float) -> str:
    """Whether "a is above b" holds, by the interval of a - b and the adjusted p of the paired test, which must agree.

    Returns:
        ``"holds"``, ``"does not hold"`` (the reverse is shown) or ``"not decided"``.
    """
    if p_value < ALPHA and low > 0:
        return "holds"
    if p_value < ALPHA and high < 0:
        return "does not hold"
    return "not decided"


def group_weights(
    groups: Sequence[Hashable] | None, size: int, samples: int, generator: np.random.Generator
) -> Floats:
    """How often each of ``size`` values is in each bootstrap sample of whole patients, ``(samples, size)``."""
    codes = _codes(groups, size, one=False)
    weights: Floats = _weights(int(codes.max(initial=-1)) + 1, samples, generator)[:, codes]
    return weights


def _pigeonhole(
    sums: Floats, counts: Floats, samples: int, generator: np.random.Generator
) -> Floats:
    """Bootstrap means of a table of cells ``(R, C)``, given by sums and counts of values; NaN for an empty resample."""
    n_rows, n_columns = sums.shape
    block = max(1, 2_000_000 // n_columns)  # keeps the weights below 16 MB
    means = []
    for start in range(0, samples, block):
        size = min(block, samples - start)
        by_row = _weights(n_rows, size, generator)
        by_column = _weights(n_columns, size, generator)
        total = np.einsum("br,rc,bc->b", by_row, sums, by_column, optimize=True)
        number = np.einsum("br,rc,bc->b", by_row, counts, by_column, optimize=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append(total / number)
    return np.concatenate(means)


def _weights(n: int, size: int, generator: np.random.Generator) -> Floats:
    """``(size, n)``: how often each of n units is drawn in n draws with replacement."""
    picks = generator.integers(n, size=(size, n)) + np.arange(size)[:, None] * n
    return np.bincount(picks.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def _codes(labels: Sequence[Hashable] | None, size: int, *, one: bool) -> NDArray[np.intp]:
    """Consecutive numbers for labels; without labels, all zero (``one``) or all different."""
    if labels is None:
        return np.zeros(size, dtype=np.intp) if one else np.arange(size, dtype=np.intp)
    names = list(labels)
    if len(names) != size:
        raise ValueError(f"{size} values need {size} labels, got {len(names)}")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.intp)


def _compact(codes: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.unique(codes, return_inverse=True)[1]
