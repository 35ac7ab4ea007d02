"""The Dice to expect of a run's masks, from the cases that its networks were scored on without having seen them.

``validation/cases.csv`` of an automatic run has the column ``expected`` beside the true Dice: what the probabilities of
the same networks expected. The interval is ``quality.expect``'s. It holds for scans like the labelled ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.class_names import ALL_CLASSES
from ..evaluation.quality import Expected, expect, strain
from ..evaluation.tables import read_scores
from ..train.run import Run

if TYPE_CHECKING:
    import pandas as pd

Expectation = Mapping[str, Mapping[str, float]]
"""By class, and ``all`` for their mean: ``dice``, ``low``, ``high``, ``level``, see ``quality.Expected``."""
COLUMN = "expected"
LISTED = 10
"""Masks of the lowest expected Dice that are listed on screen."""


@dataclass(frozen=True)
class Calibration:
    """By how much the masks of unseen cases were worse than their probabilities expected.

    Attributes:
        strains: By class, and ``all`` for the mean over classes: of one case of each patient, see ``quality.strain``.
        missed: Classes that a mask without them has missed, in most of the cases whose mask had none of them; where
            each had, in most cases. They count as 0 in the mean over classes.
    """

    strains: Mapping[str, Sequence[float]]
    missed: frozenset[str]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Calibration:
        """From scores with the columns case, group, class, dice and expected, a row per case and class."""
        known = table[table["dice"].notna() & table[COLUMN].notna()]
        missed = set()
        for name, part in table.groupby("class"):
            lacking = part[part[COLUMN].isna()]
            if (lacking if len(lacking) else part)["dice"].notna().mean() > 0.5:
                missed.add(str(name))
        filled = table[COLUMN].mask(table[COLUMN].isna() & table["class"].isin(missed), 0.0)
        whole = table.assign(**{COLUMN: filled}).groupby(["group", "case"], as_index=False)
        rows = [*known.groupby("class"), (ALL_CLASSES, whole[["dice", COLUMN]].mean().dropna())]
        one = {name: part.sort_values("case").groupby("group").first() for name, part in rows}
        strains = {str(k): strain(v[COLUMN], v["dice"]).tolist() for k, v in one.items()}
        return cls(strains, frozenset(missed))

    def __call__(self, own: Sequence[float], classes: Sequence[str]) -> Expectation:
        """What to expect of a mask.

        Args:
            own: What its probabilities expect, see ``quality.expected_dice``.
            classes: Names by label value, background first.

        Returns:
            Empty where nothing can be said.
        """
        named = dict(zip(classes[1:], own, strict=True))
        counted = {k: 0.0 if math.isnan(v) and k in self.missed else v for k, v in named.items()}
        known = [value for value in counted.values() if math.isfinite(value)]
        named = {ALL_CLASSES: sum(known) / len(known) if known else math.nan} | named
        found = {k: expect(value, self.strains.get(k, ())) for k, value in named.items()}
        return {
            name: {key: round(value, 4) for key, value in asdict(one).items()}
            for name, one in found.items()
            if one is not None
        }


def calibration_of(run: Run) -> Calibration | None:
    """Of an automatic run; None of others, and where nothing was left out of training.

    Raises:
        InputError: The table is damaged.
    """
    path = run.folder / "validation" / "cases.csv"
    if not path.is_file():
        return None
    table = read_scores(path)
    return Calibration.of(table) if {COLUMN, "group"} <= set(table) else None


def in_words(expectation: Expectation) -> str:
    """``expected Dice 0.93 (0.85 to 0.96, in 83 % of such masks)``; '' where nothing is expected."""
    one = expectation.get(ALL_CLASSES)
    if one is None:
        return ""
    spread = f"{one['low']:.3f} to {one['high']:.3f}, in {one['level']:.0%} of such masks"
    return f"expected Dice {one['dice']:.3f} ({spread})"


def of_new_scans(scores: pd.DataFrame) -> tuple[Expected | None, int]:
    """What to expect of a scan that is not there yet, None where cases are too few; and the number of patients.

    Args:
        scores: Of cases that the networks did not see, with columns case, group and dice.
    """
    cases = scores.groupby(["group", "case"], as_index=False)[["dice"]].mean().dropna()
    one = cases.sort_values("case").groupby("group")["dice"].first()
    return expect(0.0, strain(np.zeros(len(one)), one).tolist()), len(one)


def new_scans_in_words(scores: pd.DataFrame) -> str:
    """``of_new_scans`` as a sentence; '' where cases are too few."""
    found, patients = of_new_scans(scores)
    if found is None:
        return ""
    return (
        f"the Dice to expect of a new scan like those of these {patients} patients: {found.dice:.3f}, "
        f"and {found.low:.3f} to {found.high:.3f} in {found.level:.0%} of scans"
    )


def kept(entries: Mapping[str, Mapping[str, Any]], scores: pd.DataFrame) -> str:
    """How many true Dice lie in their intervals, beside what was promised; '' where nothing was expected.

    Args:
        entries: Lines of ``masks.jsonl`` by case.
        scores: True Dice, a row per case and class.
    """
    true = scores.groupby("case")["dice"].mean().dropna()
    named = {name: entries.get(name, {}).get(COLUMN, {}).get(ALL_CLASSES) for name in true.index}
    pairs = [(one, true[name]) for name, one in named.items() if one]
    if not pairs:
        return ""
    held = sum(one["low"] - 5e-5 <= dice <= one["high"] + 5e-5 for one, dice in pairs)
    level = min(one["level"] for one, _ in pairs)
    means = [
        sum(values) / len(pairs) for values in zip(*((o["dice"], d) for o, d in pairs), strict=True)
    ]
    return (
        f"the expected interval held the Dice of {held} of {len(pairs)} masks ({held / len(pairs):.0%}, {level:.0%} "
        f"were promised); expected {means[0]:.3f} in the mean, found {means[1]:.3f}"
    )


def table_of(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines for the screen: the masks of the lowest expected Dice first; [] where nothing is expected.

    Args:
        entries: Lines of ``masks.jsonl``.
    """
    found = [
        (e["case"], e[COLUMN][ALL_CLASSES]) for e in entries if e.get(COLUMN, {}).get(ALL_CLASSES)
    ]
    found.sort(key=lambda pair: (pair[1]["dice"], pair[0]))
    if not found:
        return []
    mean = sum(one["dice"] for _, one in found) / len(found)
    level = min(one["level"] for _, one in found)
    first = f"expected Dice of {len(found)} masks: {mean:.3f} in the mean; each interval holds {level:.0%} of them"
    rows = [
        f"  {one['dice']:.3f}  ({one['low']:.3f} to {one['high']:.3f})  {case}"
        for case, one in found[:LISTED]
    ]
    more = [f"  and {len(found) - LISTED} more with higher ones"] if len(found) > LISTED else []
    return [f"{first}, of scans like the labelled ones", *rows, *more]
