"""Who votes: what gains Dice for sure and loses no surface Dice, over what is chosen without a vote."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from radiffuse.automatic import vote as room
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.vote import Vote, with_more
from radiffuse.evaluation.statistics import PairedTest

NAMES = ("a", "b", "c")


def table(surface: float) -> pd.DataFrame:
    both = [surface - 0.1, surface + 0.1]
    return pd.DataFrame({"dice": [0.9, 0.9], "nsd": both, "group": ["x", "y"]})


def vote(
    monkeypatch: pytest.MonkeyPatch,
    together: dict[str, tuple[float, float, float]],
    chosen: str = "a",
    left: float = 100.0,
) -> tuple[str, list[str], list[str]]:
    """Who votes, what is said, and who was tried together; ``together`` has gain, its lower end and surface Dice."""
    asked: list[str] = []

    def score(members: Sequence[Entry]) -> pd.DataFrame:
        asked.append("".join(one.candidate for one in members))
        return table(together[asked[-1]][2])

    def gain(*_: object, group: list[str]) -> PairedTest:
        assert group == ["x", "y"]
        difference, low, _ = together[asked[-1]]
        return PairedTest(difference, low, 2 * difference - low, 0.01, 9)

    monkeypatch.setattr(room, "clustered_difference", gain)
    every = {name: Entry(name, 10, 0.9, 0.5, 20.0) for name in NAMES}
    record: Any = SimpleNamespace(left=left, folds=SimpleNamespace(parts=((), ())))
    before = Vote([every[n] for n in chosen], table(0.5), [], ["chosen"])
    found = with_more(record, [*every.values()], before, score)
    names = "".join(one.candidate for one in found.members)
    surface = 0.5 if names == chosen else together[names][2]
    assert found.table["nsd"].mean() == pytest.approx(surface)
    tried = ["".join(e.candidate for e in one.members) for one in found.tried]
    assert asked == tried
    assert found.why[0] == "chosen"
    return names, found.why[1:], tried


@pytest.mark.parametrize(
    ("two", "three", "expected"),
    [
        ((0.01, 0.005, 0.5), (0.008, 0.005, 0.6), "ab"),
        ((0.01, 0.005, 0.5), (0.012, 0.005, 0.6), "abc"),
        ((0.01, -0.001, 0.6), (0.02, -0.001, 0.6), "a"),  # not sure
        ((0.001, 0.0005, 0.6), (0.001, 0.0005, 0.6), "a"),  # too little
        ((0.01, 0.005, 0.49), (0.02, 0.005, 0.499), "a"),  # borders suffer
        ((0.01, 0.005, 0.49), (0.005, 0.001, 0.51), "abc"),
    ],
)
def test_what_gains_and_does_not_lose(
    two: tuple[float, float, float],
    three: tuple[float, float, float],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, why, tried = vote(monkeypatch, {"ab": two, "abc": three})
    assert (found, tried) == (expected, ["ab", "abc"])
    lost = [one for one in why if "surface Dice is lower by" in one]
    assert len(lost) == (two[2] < 0.5) + (three[2] < 0.5)
    assert ("2 of them vote together" in why) == (expected == "ab")
    assert (why[-1] == "one alone") == (expected == "a" and bool(lost))
    noise = "one alone, since together they gain no more than noise"
    assert (why[-1] == noise) == (expected == "a" and not lost)


def test_two_that_vote_already_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, why, tried = vote(monkeypatch, {"abc": (0.0, -0.01, 0.5)}, chosen="ab")
    assert (found, tried) == ("ab", ["abc"])
    said = "together: a and b and c, Dice 0.900, surface Dice 0.500, gain +0.000 (-0.010 to +0.010)"
    assert why == [said]


def test_without_time_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vote(monkeypatch, {}, left=15.0) == ("a", [], [])
