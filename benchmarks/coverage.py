"""Whether intervals cover, and how often a verdict is given without an effect: ``python benchmarks/coverage.py``.

Tables of draws by patients are simulated, with a draw, a patient and a rest of known spread. Three kinds: ``normal``
differences; ``dice``, scores near .9 that end at 1 (normal in log-odds), whose mean is estimated; and ``dice pairs``,
differences of two methods of equal merit with such scores. Beside the intervals of ``radiffuse`` stand those by the
bootstrap over draws and patients with the verdicts of Wilcoxon's test on the patients' means, which were used before.
Writes ``results/coverage.csv``, and its worst cases by kind and number of draws to ``results/coverage-worst.csv``.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from results import origin, write_table
from scipy import special, stats

from radiffuse.evaluation.statistics import clustered_difference, clustered_mean, verdict

Floats = NDArray[np.float64]
LOG_ODDS = 2.5
"""Of a usual Dice, .92."""
SPREAD = 0.8
"""Standard deviation of patients in log-odds."""
SAMPLES = 1000
"""Of the bootstrap."""


def table(rng: np.random.Generator, draws: int, patients: int, draw: float, rest: float) -> Floats:
    """``(draws, patients)``; see ``main``."""
    parts = rng.normal(0, draw * np.sqrt(draws / patients), (draws, 1)) + rng.normal(size=patients)
    return parts + rng.normal(0, rest, (draws, patients))


def made(kind: str, rng: np.random.Generator, *size: float) -> tuple[Floats, float]:
    """A table of a kind, and the true mean."""
    draws, patients, draw, rest = int(size[0]), int(size[1]), size[2], size[3]
    one = table(rng, draws, patients, draw, rest)
    if kind == "normal":
        return one, 0.0
    first = special.expit(LOG_ODDS + SPREAD * one)
    if kind == "dice pairs":
        both = table(rng, draws, patients, draw, rest)
        return first - special.expit(LOG_ODDS + SPREAD * both), 0.0
    spread = SPREAD * np.sqrt(draw**2 * draws / patients + 1 + rest**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    return first, float((special.expit(LOG_ODDS + spread * nodes) * weights).sum() / weights.sum())


def before(values: Floats, truth: float, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether the bootstrap's interval covers, and whether it and Wilcoxon's test decide."""
    picks = [
        rng.multinomial(n, np.full(n, 1 / n), SAMPLES).astype(np.float64) for n in values.shape
    ]
    means = np.einsum("br,rc,bc->b", picks[0], values, picks[1], optimize=True) / values.size
    low, high = np.quantile(means, (0.025, 0.975))
    p = stats.wilcoxon(values.mean(0)).pvalue
    return bool(low <= truth <= high), bool(p < 0.05 and (low > 0 or high < 0))


def row(
    kind: str, draws: int, patients: int, draw: float, rest: float, given: argparse.Namespace
) -> dict[str, object]:
    """Shares over the repetitions."""
    rng = np.random.default_rng([given.seed, draws, patients, round(100 * draw), round(100 * rest)])
    row_, column = (axis.ravel().tolist() for axis in np.indices((draws, patients)))
    counts, half = np.zeros(4), []
    for number in range(given.repetitions):
        values, truth = made(kind, rng, draws, patients, draw, rest)
        keys = {"draw": row_, "group": column}
        found = clustered_mean(values, **keys, bounds=(0, 1) if kind == "dice" else (-9e9, 9e9))
        test = clustered_difference(values, 0 * values, **keys)
        counts[0] += found.low <= truth <= found.high
        counts[1] += verdict(test.low, test.high, test.p_value, margin=0) != "not decided"
        half.append((test.high - test.low) / 2)
        if number < given.bootstraps:
            counts[2:] += before(values, truth, rng)
    share = counts / np.repeat([given.repetitions, max(given.bootstraps, 1)], 2)
    names = ("coverage", "decided", "coverage_before", "decided_before")
    found_ = dict(zip(names, share.tolist(), strict=True))
    if kind == "dice":  # its mean is far from 0
        del found_["decided"], found_["decided_before"]
    size = {"kind": kind, "draws": draws, "patients": patients, "draw": draw, "rest": rest}
    return size | found_ | {"half_width": float(np.median(half))}


def worst(found: pd.DataFrame) -> pd.DataFrame:
    """The lowest coverage and the largest share of verdicts over the spreads."""
    shares = [name for name in found if name.startswith(("coverage", "decided"))]
    ends = {name: "min" if name.startswith("coverage") else "max" for name in shares}
    return found.groupby(["kind", "draws"], sort=False).agg(ends).reset_index()


def main() -> None:
    """Simulate every combination, write the table.

    ``draw`` is the standard deviation that draws add to the mean, in units of what patients add; ``rest`` that of a
    single value, in units of that of patients.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--bootstraps", type=int, default=250, help="repetitions of the old way")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cells = itertools.product(
        ("normal", "dice", "dice pairs"), (2, 3, 5, 10), (24,), (0.0, 0.5, 1.0, 2.0), (0.3, 1.0)
    )
    found = pd.DataFrame([row(*cell, given) for cell in cells])
    command = f"python benchmarks/coverage.py --repetitions {given.repetitions} "
    command += f"--bootstraps {given.bootstraps} --seed {given.seed}"
    write_table(found, origin(command), "coverage.csv")
    write_table(worst(found), origin(command), "coverage-worst.csv")


if __name__ == "__main__":
    main()
