"""Intervals of means, paired comparisons, their verdicts, and the correction for multiple comparisons.

Test cases and draws of labelled images are *crossed*: every draw is tested on the same patients. A value is modelled as
``mean + draw + patient + rest``, all random, where the rest holds the interaction. The variance components come from
pairs of values that share a draw, a patient, both or neither, which takes unequal numbers and missing cells as they are
(Gao and Owen 2017, Electronic Journal of Statistics 11(1), 1235-1296) and is the analysis of variance where nothing is
missing. With ``A``, ``B``, ``E`` for what draw, patient and rest add to the variance of the mean, that variance is
``A + B + E``, its degrees of freedom are those of Satterthwaite 1946 (Biometrics Bulletin 2(6), 110-114),
``(A + B + E)^2 / ((A + E)^2 / (R - 1) + (B + E)^2 / (C - 1) + E^2 / ((R - 1) (C - 1)))``, at least 1, and the interval
is Student's. ``R`` and ``C`` are the numbers of draws and patients, or fewer where these have unequal shares of the
values (1 / sum of squared shares).

The rules where the table is not full:

- a component that comes out negative counts as 0;
- one draw, or no two patients in any draw: patients alone are counted, by the variance between them. One draw says
  nothing about other draws, and the result says so;
- no patient in two draws: draws alone are counted, by the variance between them;
- one patient: there is no interval.

Throughout, ``draw`` and ``group`` are ``(n,)``: the draw of labelled images and the patient that each value comes from.
Without them, the values come from no draws, and each from a patient of its own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

LEVELS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Quantiles that bound a 95% interval."""
ALPHA = 0.05
"""Level of the tests."""
FEWEST = 6
"""Patients below which nothing is tested: too few to see whether a mean of bounded scores is near normal [ours]."""
MARGIN = 0.01
"""Mean difference of a score between 0 and 1 up to which two methods are as good as each other in use [ours]."""
BETTER, WORSE, UNDECIDED = "better", "worse", "not decided"
ONE_DRAW = "one draw says nothing about other draws"


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval.

    Attributes:
        mean: Of the values that are not NaN; NaN if there is none.
        low: Lower end; NaN with fewer than two patients.
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
        low: Lower end of its 95% interval; NaN with fewer than two patients.
        high: Upper end; likewise.
        p_value: Two-sided p of the t test that goes with the interval: below 0.05 where 0 lies outside; NaN if
            nothing is tested, see ``note``.
        n: Number of patients.
        note: Why ``p_value`` is NaN or exactly 1, or what the test does not reach; else empty.
        draws: Number of draws; 0 where the values come from none.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    note: str = ""
    draws: int = 0


def clustered_mean(
    values: ArrayLike,
    *,
    draw: Sequence[Hashable] | None = None,
    group: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean of values ``(n,)`` that share draws and patients, with its interval; NaN are dropped.

    Args:
        values: Numbers.
        draw: See the module.
        group: See the module.
        bounds: Least and greatest possible value. Scores near one of two finite bounds are skewed, so the interval is
            one of log-odds between them, which covers better; with one bound it ends there.

    Raises:
        ValueError: Lengths differ.
    """
    numbers, rows, columns = _known(values, draw, group)
    if not numbers.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean, (variance, freedom) = float(numbers.mean()), _of_mean(numbers, rows, columns)
    return Interval(mean, *_ends(mean, variance, freedom, bounds), numbers.size)


def clustered_share(values: ArrayLike, group: Sequence[Hashable]) -> Interval:
    """Share of values ``(n,)`` of 0 and 1, as ``clustered_mean``; if all are equal, by Clopper and Pearson 1934.

    Equal values show no variance. The exact interval of 0 (or all) of m ends at 1 - .025^(1/m), for m
    groups, since values of one group may agree.
    """
    found = clustered_mean(values, group=group, bounds=(0, 1))
    if found.mean not in (0.0, 1.0):
        return found
    width = 1 - LEVELS[0] ** (1 / len(set(group)))
    low, high = (0.0, width) if found.mean == 0 else (1 - width, 1.0)
    return Interval(found.mean, low, high, found.n)


def clustered_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    draw: Sequence[Hashable] | None = None,
    group: Sequence[Hashable] | None = None,
) -> PairedTest:
    """Mean of a - b over pairs ``(n,)`` that share draws and patients; a pair with a NaN is dropped.

    Interval and test are for new patients and new draws; with one draw, for new patients only.

    Raises:
        ValueError: Lengths differ.
    """
    from scipy import special

    first = np.asarray(a, dtype=np.float64).ravel()
    second = np.asarray(b, dtype=np.float64).ravel()
    if first.size != second.size:
        raise ValueError(f"pairs need equal lengths, got {first.size} and {second.size}")
    difference, rows, columns = _known(first - second, draw, group)
    patients, draws = (int(codes.max(initial=-1)) + 1 for codes in (columns, rows))
    draws = 0 if draw is None else draws
    if not difference.size:
        return PairedTest(math.nan, math.nan, math.nan, math.nan, 0, "no pairs", draws)
    mean, (variance, freedom) = float(difference.mean()), _of_mean(difference, rows, columns)
    low, high = _ends(mean, variance, freedom)
    note, p_value = ONE_DRAW if draws == 1 else "", math.nan
    if patients < FEWEST:
        note = f"{patients} patients; the test needs {FEWEST}"
    elif not difference.any():
        note, p_value = "all differences are zero", 1.0
    elif variance == 0:
        note = "all differences are equal"
    else:
        p_value = 2 * float(special.stdtr(freedom, -abs(mean) / math.sqrt(variance)))
    return PairedTest(mean, low, high, p_value, patients, note, draws)


def holm(p_values: Iterable[float]) -> Floats:
    """p-values adjusted for their number by the step-down method of Holm 1979; NaN stay NaN and do not count."""
    values = np.asarray(list(p_values), dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def verdict(
    low: float, high: float, p_value: float, *, draws: int = 0, margin: float = MARGIN
) -> str:
    """What is shown of "a against b", by the 95% interval of a - b and the p that is adjusted for their number.

    Args:
        low: Lower end.
        high: Upper end.
        p_value: Adjusted; NaN: not tested.
        draws: Of the labels; a verdict on one of them names it.
        margin: Differences up to it make no difference in use; 0: every one does.

    Returns:
        ``"better"`` or ``"worse"`` where p is below 0.05, whatever the size; ``"no difference larger than 0.01"`` where
        the whole interval lies within the margin (two one-sided tests at 2.5%); else ``"not decided"``.
    """
    if p_value < ALPHA and (low > 0 or high < 0):
        found = BETTER if low > 0 else WORSE
    elif -margin < low and high < margin and not math.isnan(p_value):
        found = f"no difference larger than {margin:g}"
    else:
        return UNDECIDED
    return f"{found} on this draw" if draws == 1 else found


def group_weights(
    groups: Sequence[Hashable] | None, size: int, samples: int, generator: np.random.Generator
) -> Floats:
    """How often each of ``size`` values is in each bootstrap sample of whole patients, ``(samples, size)``."""
    codes = _codes(groups, size, one=False)
    n = int(codes.max(initial=-1)) + 1
    picks = generator.integers(n, size=(samples, n)) + np.arange(samples)[:, None] * n
    counts = np.bincount(picks.ravel(), minlength=samples * n).reshape(samples, n)
    weights: Floats = counts.astype(np.float64)[:, codes]
    return weights


# ------------------------------------------------------------------------------------------------ internal


def _of_mean(values: Floats, rows: Codes, columns: Codes) -> tuple[float, float]:
    """Variance of the mean of values ``(n,)``, and its degrees of freedom; both NaN with one patient."""
    if np.ptp(columns) == 0:
        return math.nan, math.nan
    if np.ptp(values) <= 1e-12 * float(np.abs(values).max()):
        return 0.0, 1.0
    values, n = values - values.mean(), values.size
    cells = rows * (int(columns.max()) + 1) + columns
    pairs, sums, shares = np.array(
        [_within(values, codes) for codes in (0 * rows, rows, columns, np.unique(cells, return_inverse=True)[1])]
    ).T  # fmt: skip
    pairs[1:3] -= pairs[3]
    sums[1:3] -= sums[3]
    if shares[1] == 1 or pairs[1] == 0:  # one draw, or draws within patients
        return _between(values, columns)
    if pairs[2] == 0:  # patients within draws
        return _between(values, rows)
    apart = (sums[0] - sums[1:].sum()) / (pairs[0] - pairs[1:].sum())
    covariance = apart - np.divide(sums[1:], pairs[1:], out=np.full(3, apart), where=pairs[1:] > 0)
    total = (n * apart + (pairs[1:] * covariance).sum()) / n**2
    parts = covariance[:2] * shares[1:3]
    rest = max(0.0, float(total - parts.sum()))
    by_draw, by_patient = np.maximum(parts, 0) + rest
    variance = float(by_draw + by_patient - rest) or float(apart) / n
    r, c = 1 / shares[1:3] - 1
    freedom = variance**2 / (by_draw**2 / r + by_patient**2 / c + rest**2 / (r * c))
    return variance, max(1.0, float(freedom))


def _between(values: Floats, codes: Codes) -> tuple[float, float]:
    """Variance of the mean by that between clusters, and its degrees of freedom; values have mean 0."""
    pairs, sums, share = _within(values, codes)
    n = values.size
    apart = (_within(values, 0 * codes)[1] - sums) / (n * (n - 1) - pairs)
    variance = ((n + pairs) * apart - sums) / n**2
    return (variance if variance > 0 else apart / n), max(1.0, 1 / share - 1)


def _within(values: Floats, codes: Codes) -> tuple[float, float, float]:
    """Ordered pairs within clusters, the sum of half their squared differences, and the clusters' squared shares."""
    counts = np.bincount(codes).astype(np.float64)
    squares, sums = np.bincount(codes, values**2), np.bincount(codes, values)
    pairs, halves = (counts * (counts - 1)).sum(), (counts * squares - sums**2).sum()
    return float(pairs), float(halves), float((counts**2).sum() / values.size**2)


def _ends(
    mean: float,
    variance: float,
    freedom: float,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Student's interval; of log-odds between two bounds, whose slope turns the standard error into their units."""
    from scipy import special

    reach = float(special.stdtrit(freedom, LEVELS[1])) * math.sqrt(variance) if variance else 0.0
    below, above = mean - bounds[0], bounds[1] - mean
    if not reach > 0 or math.isinf(below + above):
        return max(mean - reach, bounds[0]), min(mean + reach, bounds[1])
    at, reach = math.log(below / above), reach * (1 / below + 1 / above)
    low, high = (
        bounds[0] + (below + above) * float(special.expit(x)) for x in (at - reach, at + reach)
    )
    return low, high


def _known(
    values: ArrayLike, draw: Sequence[Hashable] | None, group: Sequence[Hashable] | None
) -> tuple[Floats, Codes, Codes]:
    """Values that are not NaN, and the codes of their draws and patients."""
    numbers = np.asarray(values, dtype=np.float64).ravel()
    rows, columns = _codes(draw, numbers.size, one=True), _codes(group, numbers.size, one=False)
    known = ~np.isnan(numbers)
    rows, columns = (np.unique(codes[known], return_inverse=True)[1] for codes in (rows, columns))
    return numbers[known], rows, columns


def _codes(labels: Sequence[Hashable] | None, size: int, *, one: bool) -> Codes:
    """Consecutive numbers for labels; without labels, all zero (``one``) or all different."""
    if labels is None:
        return np.zeros(size, dtype=np.intp) if one else np.arange(size, dtype=np.intp)
    names = list(labels)
    if len(names) != size:
        raise ValueError(f"{size} values need {size} labels, got {len(names)}")
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.intp)
