"""Which candidates go on, and what they are expected to take: pure functions, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from made_candidates import make_candidate
from radiffuse.automatic.halving import Entry, leaderboard, ranked, seconds_of_fold


def entry(
    name: str, dice: float, surface: float = 0.5, steps: int = 10, seconds: float = 50
) -> Entry:
    return Entry(name, steps, dice, surface, seconds)


def test_dice_decides_and_surface_dice_where_it_is_equal() -> None:
    tried = [entry("a", 0.9001, 0.4), entry("b", 0.9004, 0.6), entry("c", 0.91, 0.1)]
    assert [e.candidate for e in ranked(tried)] == ["c", "b", "a"]


def test_a_candidate_stands_for_its_best_steps_and_the_first_of_equal_ones() -> None:
    tried = [
        entry("a", 0.8, steps=3),
        entry("b", 0.9),
        entry("a", 0.9, steps=9),
        entry("b", 0.9, steps=30),
    ]
    assert [(e.candidate, e.steps) for e in ranked(tried)] == [("a", 9), ("b", 10)]


def test_the_first_candidate_leads_until_another_is_shown_to_be_better() -> None:
    tried = [entry("a", 0.7), entry("b", 0.9), entry("c", 0.8), entry("a+pool", 0.75)]
    asked = []

    def better(one: Entry, other: Entry) -> bool:
        asked.append((one.candidate, other.candidate))
        return decided

    decided = False
    first = {"a", "a+pool"}
    assert [e.candidate for e in leaderboard(tried, first, better)] == ["a+pool", "a", "b", "c"]
    decided = True
    assert [e.candidate for e in leaderboard(tried, first, better)] == ["b", "c", "a+pool", "a"]
    assert asked == [("b", "a+pool")] * 2
    assert leaderboard(tried, {"b"}, better) == leaderboard(tried, {"d"}, better) == ranked(tried)
    assert len(asked) == 2
    assert leaderboard([], first, better) == []


def test_time_is_that_measured_in_proportion_to_the_steps() -> None:
    tried = [entry("a", 0.9, seconds=50), entry("a", 0.9, steps=20, seconds=200)]
    one, pooled = make_candidate("a"), make_candidate("a", pool=True)
    assert seconds_of_fold(tried, one, 40, 5) == pytest.approx(200 / 5 * 2)
    assert seconds_of_fold(tried, pooled, 20, 5) == pytest.approx(2 * 200 / 5)
    assert seconds_of_fold(tried, make_candidate("b"), 20, 5) == 40.0  # as planned
    own = [*tried, entry("a+pool", 0.9, seconds=150)]
    assert seconds_of_fold(own, pooled, 20, 5) == pytest.approx(2 * 150 / 5)
