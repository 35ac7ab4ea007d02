"""What is trained on all labels, for how long and how often: pure functions, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from made_candidates import make_candidate
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.trainings import (
    Member,
    longer_in_words,
    paced,
    pool_in_words,
    trainings_of_tried,
    trainings_of_untried,
    trainings_on_two_grids,
)


def test_the_time_that_is_left_makes_trainings_longer_and_then_more() -> None:
    """A step of a takes 1 second, of b 2; in the folds they took 10 and 5 steps, in full length 20 and 10."""
    members = [Entry("a", 10, 0.9, 0.5, 50.0), Entry("b", 5, 0.8, 0.5, 50.0)]

    def found(left: float, most: int = 4, spared: float = 0.0) -> list[tuple[str, int, int, int]]:
        rows = trainings_of_tried(members, [20, 10], [1.0, 2.0], left, most, spared)
        return [(r["candidate"], r["steps"], r["seed"], r["tried"]) for r in rows]

    assert found(20) == [("a", 10, 0, 10), ("b", 5, 0, 5)]
    assert found(30) == [("a", 15, 0, 10), ("b", 7, 0, 5)]
    assert found(-1) == found(20)
    assert found(40) == [("a", 20, 0, 10), ("b", 10, 0, 5)]
    assert found(79) == [("a", 20, 0, 10), ("b", 10, 0, 5)]
    assert found(80)[2:] == [("a", 20, 1, 10), ("b", 10, 1, 5)]
    assert found(40, spared=100) == found(
        40
    )  # full length goes before what comes after, seeds do not
    assert len(found(80, spared=1)) == 2
    assert len(found(1000, most=3)) == 2
    assert [row["seed"] for row in trainings_of_tried(members[:1], [20], [1.0], 59, 3)] == [0, 1]


def test_a_training_much_longer_than_those_of_the_folds_is_said_to_be() -> None:
    """Its masks are not those that were scored."""
    rows: list[Member] = [
        {"candidate": name, "steps": steps, "seed": 0, "tried": tried}
        for name, steps, tried in (("a", 149, 100), ("b", 234, 58), ("c", 300, 200), ("d", 300, 0))
    ]
    assert longer_in_words([rows[0], rows[3]]) == []
    (said,) = longer_in_words(rows)
    assert said.startswith("trained on all labels for 234 steps, in the folds for 58: ")
    assert longer_in_words(rows[2:])


@pytest.mark.parametrize(
    ("left", "steps", "times"), [(100, 80, 1), (90, 72, 1), (1, 10, 1), (290, 77, 3), (900, 80, 3)]
)
def test_what_nothing_was_tried_of_is_trained_as_often_as_time_allows(
    left: float, steps: int, times: int
) -> None:
    """80 steps take 100 seconds, and there are three trainings at most."""
    one = make_candidate("a", steps=80, seconds=100.0)
    rows = trainings_of_untried(one, left, 3)
    assert [(r["candidate"], r["steps"], r["seed"], r["tried"]) for r in rows] == [
        ("a", steps, seed, 0) for seed in range(times)
    ]
    unknown = make_candidate("a", steps=80, seconds=0.0)
    assert trainings_of_untried(unknown, left, 3) == trainings_of_untried(one, 100.0, 3)


@pytest.mark.parametrize(
    ("left", "rows"),
    [
        (900, [("a", 80, 0), ("a+pool", 80, 0)]),
        (270, [("a", 72, 0), ("a+pool", 72, 0)]),  # nine tenths of three trainings
        (240, [("a+pool", 80, 0)]),
        (150, [("a+pool", 60, 0)]),  # three quarters of two
        (140, [("a", 80, 0)]),
        (50, [("a", 40, 0)]),
        (0, [("a", 10, 0)]),
        (-20, [("a", 10, 0)]),
    ],
)
def test_a_pool_that_was_not_tried_votes_with_a_training_without_it_or_has_the_time_of_two(
    left: float, rows: list[tuple[str, int, int]]
) -> None:
    """80 steps take 100 seconds without the pool, and twice as long with it."""
    one, twin = (make_candidate("a", steps=80, seconds=100.0, pool=pool) for pool in (False, True))
    found = trainings_of_untried(one, left, 3, twin)
    assert [(r["candidate"], r["steps"], r["seed"]) for r in found] == rows
    unknown = trainings_of_untried(make_candidate("a", steps=80, seconds=0.0), left, 3, twin)
    assert [(r["candidate"], r["steps"]) for r in unknown] == [("a", 80), ("a+pool", 80)]


def test_a_schedule_for_the_pool_halves_its_steps_where_there_is_the_time_of_one() -> None:
    one, twin = (make_candidate("a", steps=80, seconds=100.0, pool=pool) for pool in (False, True))
    found = trainings_of_untried(one, 100.0, 3, twin, pooled=True)
    assert [(r["candidate"], r["steps"], r["seed"]) for r in found] == [("a+pool", 40, 0)]
    alone = trainings_of_untried(one, 100.0, 3, pooled=True)  # a method that takes no pool
    assert [(r["candidate"], r["steps"]) for r in alone] == [("a", 80)]


@pytest.mark.parametrize(
    ("took", "rows"),
    [
        (600.0, [("imagenet", 400), ("imagenet+pool", 150)]),  # the 300 seconds left, of 2 each
        (800.0, [("imagenet", 300), ("imagenet+pool", 150)]),  # three quarters of its length
        (100.0, [("imagenet", 400), ("imagenet+pool", 200)]),  # as many as were planned with it
    ],
)
def test_two_thirds_of_the_time_are_for_the_finer_grid(
    took: float, rows: list[tuple[str, int]]
) -> None:
    """200 steps take 200 seconds without the pool, and there are 900 seconds."""
    first, twin = (make_candidate(steps=200, pool=pool) for pool in (False, True))
    fine = make_candidate(steps=400, seconds=took)
    found = trainings_on_two_grids(first, fine, twin, 900.0, 5)
    assert found is not None
    assert [(row["candidate"], row["steps"]) for row in found] == rows
    assert {(row["seed"], row["tried"]) for row in found} == {(0, 0)}


def test_a_finer_grid_may_not_take_the_steps_with_the_pool() -> None:
    """In 700 seconds 233 are left for it, of 2 each: fewer than 120 steps, which are 2/5 of the usual 300."""
    first, twin = (make_candidate(steps=200, pool=pool) for pool in (False, True))
    fine = make_candidate(steps=400, seconds=600.0)
    assert trainings_on_two_grids(first, fine, twin, 740.0, 5) is not None
    for left in (700.0, 0.0, -1.0):
        assert trainings_on_two_grids(first, fine, twin, left, 5) is None


def test_a_method_that_cannot_use_a_pool_is_not_said_to_lack_the_time() -> None:
    assert "learns from labels alone" in pool_in_words(True, False, able=False)
    assert "longer than there is time" in pool_in_words(True, False, able=True)
    assert "several structures" in pool_in_words(True, False, able=True, several=True)
    assert "one with it vote" in pool_in_words(True, True, able=True)
    assert "is trained with the pool" in pool_in_words(False, True, able=True)


@pytest.mark.parametrize(
    ("took", "left", "steps"),
    [
        (400.0, 200.0, 100),  # as planned
        (800.0, 200.0, 50),  # twice as slow, in the time that was kept for it
        (500.0, 200.0, 80),
        (200.0, 400.0, 400),  # twice as fast, and the time that was saved
        (800.0, -50.0, 50),  # no shorter than half, however late
    ],
)
def test_a_training_takes_the_time_that_those_before_it_left(
    took: float, left: float, steps: int
) -> None:
    """200 steps of 2 seconds each, then 100 of 2."""
    both = [
        Member(candidate=name, steps=n, seed=0, tried=0) for name, n in (("a", 200), ("b", 100))
    ]
    assert paced(both, 1, (2.0, 2.0), took, left) == steps
    both[1]["tried"] = 90
    assert paced(both, 1, (2.0, 2.0), took, left) == max(steps, 90)


def test_time_that_is_left_is_shared_by_all_that_follow() -> None:
    three = [Member(candidate="a", steps=100, seed=seed, tried=0) for seed in range(3)]
    assert paced(three, 1, (1.0, 1.0, 1.0), 100.0, 180.0) == 90
