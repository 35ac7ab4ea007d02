"""Folds of the labelled cases that never part a patient, nor, where sites are known, a site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..data.dataset import Dataset
from ..data.streams import Stream

MOST = 5
"""Folds at most; up to so many patients, each is left out once."""
LEAST_PATIENTS = 3
"""Patients from which on they are left out [ours]. What two show is chance: the interval of their mean is 12.7 standard
errors wide, that of three 4.3."""


@dataclass(frozen=True)
class Folds:
    """Parts of the labelled cases, each of which is left out once.

    Attributes:
        parts: Names of cases; () where nothing can be left out.
        by: What no fold parts: ``patient`` or ``site``.
    """

    parts: tuple[tuple[str, ...], ...]
    by: str = "patient"

    def rest(self, left_out: int) -> tuple[str, ...]:
        """The cases of all folds but one."""
        return tuple(n for i, part in enumerate(self.parts) if i != left_out for n in part)

    def __str__(self) -> str:
        if not self.parts:
            return "no folds"
        return f"{len(self.parts)} folds of {self.by}s"


def make_folds(dataset: Dataset, names: Sequence[str], seed: int, most: int = MOST) -> Folds:
    """Folds of the named cases.

    Sites, where there are two or more, else patients, are the units; more than ``most`` of them are dealt out from the
    largest to the smallest, each to the fold with the fewest cases. With a single site, or fewer than
    ``LEAST_PATIENTS``, there are no folds.

    Args:
        dataset: The labelled cases.
        names: Those that are learned from.
        seed: Of the order of units of one size.
        most: Folds at most; 0: none.
    """
    learned = {*names}
    chosen = [case for case in dataset if case.name in learned]
    site = {
        case.group: case.site for case in reversed(chosen)
    }  # a patient of two sites counts to the first
    by = "site" if len(set(site.values()) - {""}) > 1 else "patient"
    units: dict[str, list[str]] = defaultdict(list)
    for case in chosen:
        units[site[case.group] if by == "site" else case.group].append(case.name)
    if len(site) < LEAST_PATIENTS or len(units) < 2 or not most:
        return Folds((), by)
    keys = sorted(units)
    order = [keys[i] for i in Stream.FOLDS.rng(seed).permutation(len(keys))]
    parts: list[list[str]] = [[] for _ in range(min(most, len(keys)))]
    for key in sorted(order, key=lambda key: -len(units[key])):
        min(parts, key=len).extend(units[key])
    return Folds(tuple(tuple(sorted(part)) for part in parts), by)
