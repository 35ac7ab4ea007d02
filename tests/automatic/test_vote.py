"""Who votes: what gains Dice for sure and loses no surface Dice, over what is chosen without a vote."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from radiffuse.automatic.decision import Decision
from radiffuse.automatic.halving import Entry
from radiffuse.config import Fit
from radiffuse.evaluation.statistics import PairedTest

NAMES = ("a", "b", "c")


def table(surface: float) -> pd.DataFrame:
    return pd.DataFrame({"nsd": [surface - 0.1, surface + 0.1]})


def vote(
    monkeypatch: pytest.MonkeyPatch,
    together: dict[str, tuple[float, float, float]],
    chosen: str = "a",
    left: float = 100.0,
) -> tuple[str, list[str], list[str]]:
    """Who votes, what is said, and who was tried together; ``together`` has gain, its lower end and surface Dice."""
    tried: list[str] = []

    def scored(
        self: Decision, members: list[Entry], than: pd.DataFrame, why: list[str]
    ) -> tuple[PairedTest, pd.DataFrame]:
        assert than["nsd"].mean() == pytest.approx(0.5)
        tried.append("".join(one.candidate for one in members))
        why.append("together")
        gain, low, surface = together[tried[-1]]
        return PairedTest(gain, low, 2 * gain - low, 0.01, 9), table(surface)

    monkeypatch.setattr(Decision, "_together", scored)
    every = {name: Entry(name, 10, 0.9, 0.5, 20.0) for name in NAMES}
    record: Any = SimpleNamespace(left=left, folds=SimpleNamespace(parts=((), ())))
    made = Decision(Fit(), SimpleNamespace(), record, Path(), Path())  # type: ignore[arg-type]
    found, why = made._vote([*every.values()], [every[n] for n in chosen], table(0.5))
    return "".join(one.candidate for one in found), why, tried


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
    assert ("one alone, since together they gain no more than noise" in why) == (expected == "a")


def test_two_that_vote_already_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found, why, tried = vote(monkeypatch, {"abc": (0.0, -0.01, 0.5)}, chosen="ab")
    assert (found, tried) == ("ab", ["abc"])
    assert why == ["together"]


def test_without_time_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vote(monkeypatch, {}, left=15.0) == ("a", [], [])
