"""Successive halving (Jamieson and Talwalkar 2016): every candidate is tried briefly, the better ones for longer.

Pure functions of what was scored and measured so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .candidates import Candidate
from .schedule import POOL_COST


@dataclass(frozen=True)
class Entry:
    """A candidate trained for some steps on each fold, and scored on the cases that were left out.

    Attributes:
        candidate: Its name.
        steps: Of a training.
        dice: Mean Dice over cases, of the mean over classes; one that truth and mask both lack counts as found.
        surface: Mean surface Dice, likewise.
        seconds: Of all folds, scoring included.
    """

    candidate: str
    steps: int
    dice: float
    surface: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.candidate:<20} {self.steps:>6} steps  Dice {self.dice:.3f}  "
            f"surface Dice {self.surface:.3f}  {self.seconds / 60:.1f} min"
        )

    @property
    def quality(self) -> tuple[float, float]:
        """By Dice to three decimals; of equal ones the surface Dice decides."""
        return round(self.dice, 3), self.surface


def ranked(entries: Sequence[Entry]) -> list[Entry]:
    """The best entry of each candidate, the best first; of equal ones, what was tried first and for fewer steps."""
    best: dict[str, Entry] = {}
    for entry in entries:
        known = best.get(entry.candidate)
        if known is None or entry.quality > known.quality:
            best[entry.candidate] = entry
    return sorted(best.values(), key=lambda e: e.quality, reverse=True)


def leaderboard(
    entries: Sequence[Entry], first: Collection[str], better: Callable[[Entry, Entry], bool]
) -> list[Entry]:
    """What was tried, the best of each candidate, by rank; but before all what is ``first``, unless it is beaten.

    What candidates score on a few patients is mostly chance, which of several picks the luckiest; the first candidate
    is what did best elsewhere. Lungs with five labels had .920 Dice where the highest score was taken after an hour,
    and .947 where 12 minutes were too short for a choice [ours].

    Args:
        entries: What was tried.
        first: Names of the candidate to beat, without the pool and with it.
        better: Whether the cases show that one is better than another.
    """
    order = ranked(entries)
    own = [entry for entry in order if entry.candidate in first]
    if not own or order[0] in own or better(order[0], own[0]):
        return order
    return [*own, *(entry for entry in order if entry not in own)]


def may_lead(entries: Sequence[Entry], first: Collection[str], most: int) -> list[Entry]:
    """What may be among the ``most`` first of the ``leaderboard``, now or after further rounds.

    What is ``first`` loses its place before the others when it is beaten, and has it again if the best one is another.

    Args:
        entries: See ``leaderboard``.
        first: Likewise.
        most: Entries that are looked at.
    """
    order = ranked(entries)
    return [e for place, e in enumerate(order) if place < most or e.candidate in first]


def seconds_of_fold(
    entries: Sequence[Entry], candidate: Candidate, steps: int, folds: int
) -> float:
    """How long a fold takes: by what it took before, else by the same candidate without the pool, else as predicted.

    Args:
        entries: What was tried.
        candidate: What is trained.
        steps: Of the training.
        folds: How many there are.
    """
    for known, factor in ((candidate.name, 1.0), (candidate.proposal, POOL_COST)):
        same = [e for e in entries if e.candidate == known]
        if same:
            last = max(same, key=lambda e: e.steps)
            return factor * last.seconds / folds * steps / last.steps
    return candidate.seconds * steps / candidate.steps()
