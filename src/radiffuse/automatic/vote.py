"""Who is trained on all labels: the best candidate, or several that vote where that gains more than noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..evaluation.statistics import PairedTest, clustered_difference, clustered_mean
from ..train.planning.configuration import AT_WORK
from .halving import Entry, ranked
from .record import Record
from .schedule import ENOUGH
from .scores import by_case, gain_over, is_sure, read_folds

TOGETHER = 3
"""Most candidates of an ensemble; the fold runs of as many are kept until it is decided."""
LEAST_GAIN = 0.002
"""Mean Dice that an ensemble has to gain, since every member costs its time at each prediction [ours]."""
Score = Callable[[Sequence[Entry]], pd.DataFrame]
"""Scores of the cases that were left out, as several segment them together: a row each, see ``by_case``."""


@dataclass(frozen=True)
class Ensemble:
    """Several candidates, and what their vote gains.

    Attributes:
        members: The candidates.
        table: Scores of the cases that they did not see, see ``by_case``.
        gain: Of Dice, over what would be chosen without this vote.
    """

    members: list[Entry]
    table: pd.DataFrame
    gain: PairedTest

    @property
    def row(self) -> dict[str, Any]:
        """For the record."""
        dice, surface = (float(self.table[name].mean()) for name in ("dice", "nsd"))
        scores = {"members": [e.candidate for e in self.members], "dice": dice, "nsd": surface}
        gain = self.gain
        return scores | {"gain": gain.difference, "low": gain.low, "high": gain.high}

    def __str__(self) -> str:
        row = self.row
        return (
            f"together: {' and '.join(row['members'])}, Dice {row['dice']:.3f}, surface Dice {row['nsd']:.3f}, "
            f"gain {row['gain']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        )


@dataclass(frozen=True)
class Vote:
    """Who votes.

    Attributes:
        members: The candidates; one alone needs no vote.
        table: Scores of the cases that they did not see, see ``by_case``.
        tried: The votes that were tried for it.
        why: Sentences for people.
    """

    members: list[Entry]
    table: pd.DataFrame
    tried: list[Ensemble]
    why: list[str]


def choose_members(record: Record, best: Sequence[Entry], score: Score) -> Vote:
    """The best candidate, that with the pool and without it where the folds do not decide, or more.

    Args:
        record: Of what was tried.
        best: What was tried, the best first.
        score: Of several together.
    """
    alone = by_case(read_folds(record.folders(best[0].candidate, best[0].steps)))
    mean = clustered_mean(alone["dice"], group=list(alone["group"]))
    why = [
        f"chosen: {best[0].candidate} with {best[0].steps} steps, Dice {mean.mean:.3f} "
        f"({mean.low:.3f} to {mean.high:.3f}), surface Dice {best[0].surface:.3f} "
        f"on {len(alone)} cases that it did not see"
    ]
    highest = ranked(best)[0]
    if highest != best[0]:
        more = gain_over(record, highest, best[0])
        why.append(
            f"{highest.candidate} scored {highest.dice:.3f}, which does not show that it is better: "
            f"{more.difference:+.3f} ({more.low:+.3f} to {more.high:+.3f})"
        )
    elif len(best) > 1:
        why.append(f"second best: {best[1]}")
    chosen = Vote([best[0]], alone, [], why)
    if twin := _twin(record, best):
        both = _together([best[0], twin], alone, score)
        why += ["both vote, since the folds do not decide whether the pool helps", str(both)]
        chosen = Vote(both.members, both.table, [both], why)
    return with_more(record, best, chosen, score)


def with_more(record: Record, best: Sequence[Entry], chosen: Vote, score: Score) -> Vote:
    """The first candidates where together they gain more than noise over what is chosen, else what is chosen.

    Borders may not suffer: on lungs with five labels a probe of frozen features gave Dice and took surface Dice.

    Args:
        record: Of what was tried.
        best: What was tried, the best first.
        chosen: One, or the same with the pool and without it.
        score: Of several together.
    """
    members, table, gained, lost = chosen.members, chosen.table, LEAST_GAIN, False
    tried, why = list[Ensemble](), list[str]()
    for size in range(2, min(TOGETHER, len(best)) + 1):
        first = list(best[:size])
        if record.left < sum(entry.seconds for entry in first) / len(record.folds.parts):
            break
        if first == chosen.members:
            continue
        tried.append(one := _together(first, chosen.table, score))
        why.append(str(one))
        if not is_sure(one.gain) or one.gain.difference <= gained:
            continue
        less = float(chosen.table["nsd"].mean() - one.table["nsd"].mean())
        if less > 0:
            lost = True
            why.append(f"they do not vote, since their surface Dice is lower by {less:.3f}")
        else:
            members, table, gained = first, one.table, one.gain.difference
    if members != chosen.members:
        why.append(f"{len(members)} of them vote together")
    elif tried and len(members) == 1:
        noise = "" if lost else ", since together they gain no more than noise"
        why.append(f"one alone{noise}")
    return Vote(members, table, chosen.tried + tried, chosen.why + why)


# ------------------------------------------------------------------------------------------------ internal


def _together(members: Sequence[Entry], than: pd.DataFrame, score: Score) -> Ensemble:
    """Several, and what they gain over what has these scores."""
    table = score(members)
    gain = clustered_difference(table["dice"], than["dice"], group=list(than["group"]))
    return Ensemble([*members], table, gain)


def _twin(record: Record, best: Sequence[Entry]) -> Entry | None:
    """The best candidate without the pool, or with it, where the folds do not decide and there is time for both."""
    first, *others = (record.candidate(entry.candidate) for entry in best[:TOGETHER])
    same = (e for e, one in zip(best[1:], others, strict=False) if one.proposal == first.proposal)
    if (twin := next(same, None)) is None:
        return None
    needed = sum(
        record.seconds_of_step(entry) * record.candidate(entry.candidate).steps()
        for entry in (best[0], twin)
    )
    decided = gain_over(record, best[0], twin).low > 0
    return None if decided or ENOUGH * needed > AT_WORK * record.left else twin
