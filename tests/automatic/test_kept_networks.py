"""The fold runs of what may still vote have their networks when it is decided, whatever the rounds found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from made_candidates import make_candidate
from radiffuse.automatic import scores
from radiffuse.automatic.choice import AutomaticFit
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.record import Record
from radiffuse.automatic.schedule import SCHEDULES
from radiffuse.automatic.scores import leaderboard_of
from radiffuse.automatic.vote import TOGETHER

NAMES = ("first", "a", "b", "c", "d", "e")
STEPS = (12, 50, 100)
Found = dict[tuple[str, int], float]
"""Dice by candidate and steps."""


def after_rounds(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    dice: Found,
    sure: Callable[[Entry, Entry], bool],
    names: Sequence[str],
) -> Record:
    """The record after three rounds, where ``sure`` says whether one is shown to be better than another."""
    folds = Folds((("x",), ("y",)), "patients")
    made = [make_candidate(name) for name in names]
    record = Record(folder / "choice.json", folds, 1.0, made, {}, schedule=SCHEDULES[0], began=0.0)

    def attempt(_: AutomaticFit, candidate: Any, share: float, stage: str) -> None:
        name, steps = candidate.name, candidate.steps(share)
        record.tried.append(Entry(name, steps, dice[name, steps], 0.5, 1.0))
        for run in record.folders(name, steps):
            (run / "model").mkdir(parents=True)

    def gain(_: Record, one: Entry, other: Entry) -> Any:
        return SimpleNamespace(low=0.01 if sure(one, other) else -0.01, n=9)

    monkeypatch.setattr(AutomaticFit, "_attempt", attempt)
    monkeypatch.setattr(scores, "gain_over", gain)
    automatic = object.__new__(AutomaticFit)
    automatic.record, automatic.folds = record, folds
    automatic.settings = replace(made[0].settings, unlabelled=())
    automatic.rounds()
    return record


def lost(record: Record) -> list[str]:
    """What may vote and has no networks any more."""
    best = leaderboard_of(record)[:TOGETHER]
    runs = [(one, record.folders(one.candidate, one.steps)) for one in best]
    return [str(one) for one, each in runs if not all((run / "model").is_dir() for run in each)]


def test_the_fourth_of_the_first_round_may_become_the_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first candidate led without being the best, and is beaten later."""
    found = {("first", 12): 0.75, ("a", 12): 0.8, ("b", 12): 0.79, ("c", 12): 0.78}
    found |= {("first", 50): 0.76, ("a", 50): 0.85, ("a", 100): 0.86}

    def sure(one: Entry, other: Entry) -> bool:
        return one.dice > other.dice + 0.06

    record = after_rounds(tmp_path, monkeypatch, found, sure, ("first", "a", "b", "c"))
    assert [one.candidate for one in leaderboard_of(record)] == ["a", "b", "c", "first"]
    assert not lost(record)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_rounds_find(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer trainings are a little better, and what is shown of two is chance."""
    rng = random.Random(seed)
    found = {(n, s): s / 1000 + rng.uniform(0.7, 0.9) for n in NAMES for s in STEPS}
    shown = {(one, other): rng.random() < 0.5 for one in found for other in found}

    def sure(one: Entry, other: Entry) -> bool:
        pair = (one.candidate, one.steps), (other.candidate, other.steps)
        return one.dice > other.dice and shown[pair]

    assert not lost(after_rounds(tmp_path, monkeypatch, found, sure, NAMES))
