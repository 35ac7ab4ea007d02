"""Learning rate and weight decay against the values of their closed forms."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from radiffuse.config import Training
from radiffuse.train.learning_rate import cut_short, learning_rate, weight_decay

COSINE = Training(
    steps=20_000,
    learning_rate=8e-4,
    warmup_steps=100,
    start_learning_rate=1e-5,
    decay="cosine",
    final_learning_rate=5e-5,
    decay_steps=10_000,
)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1e-5), (50, 4.05e-4), (100, 8e-4), (5050, 4.25e-4), (10_000, 5e-5), (19_999, 5e-5)],
)
def test_oracle(step: int, expected: float) -> None:
    assert learning_rate(step, COSINE) == pytest.approx(expected, rel=1e-12)


def test_it_rises_then_falls_without_a_jump() -> None:
    rates = [learning_rate(step, COSINE) for step in range(10_002)]
    assert all(a < b for a, b in pairwise(rates[:101]))
    assert all(a > b for a, b in pairwise(rates[100:10_001]))
    assert max(abs(a - b) for a, b in pairwise(rates)) < 8e-6


def test_constant_without_warm_up_is_constant_from_the_first_step() -> None:
    training = Training(steps=10, learning_rate=3e-4)
    assert {learning_rate(step, training) for step in range(20)} == {3e-4}


def test_cosine_ends_at_the_last_step_unless_told_otherwise() -> None:
    training = Training(steps=101, learning_rate=1e-3, decay="cosine", final_learning_rate=1e-5)
    assert learning_rate(0, training) == 1e-3
    assert learning_rate(50, training) == pytest.approx(5.05e-4)
    assert learning_rate(99, training) > 1e-5
    assert learning_rate(100, training) == 1e-5


def test_a_step_is_one_drop() -> None:
    training = Training(
        steps=90, learning_rate=1e-4, decay="step", decay_steps=60, final_learning_rate=1e-5
    )
    rates = [learning_rate(step, training) for step in range(90)]
    assert rates == [1e-4] * 60 + [1e-5] * 30
    warmed = dataclasses.replace(training, warmup_steps=10, start_learning_rate=0.0)
    assert learning_rate(5, warmed) == pytest.approx(5e-5)
    assert learning_rate(10, warmed) == 1e-4


def test_a_training_that_ends_in_its_warm_up_says_so() -> None:
    given = Training(steps=20, warmup_steps=20, start_learning_rate=0.0, learning_rate=1e-3)
    said = cut_short(given)
    assert "--training.steps 20" in said
    assert "--training.warmup-steps 20" in said
    assert f"gets to {learning_rate(19, given):.2g} and never to 0.001" in said
    assert cut_short(given, "vae.").startswith(
        "--vae.training.steps 20 is no more than --vae.training.warm"
    )
    assert cut_short(dataclasses.replace(given, steps=21)) == ""
    assert cut_short(dataclasses.replace(given, steps=None)) == ""
    assert cut_short(dataclasses.replace(given, start_learning_rate=1e-3)) == ""


def test_a_run_of_one_step_learns() -> None:
    assert learning_rate(0, Training(steps=1, learning_rate=1e-3, decay="cosine")) == 1e-3


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.04), (25, 0.09272077938642147), (50, 0.22), (75, 0.34727922061357857), (100, 0.4)],
)
def test_weight_decay_rises_along_half_a_cosine(step: int, expected: float) -> None:
    """A quarter of the way: .22 - .18 cos 45 degrees."""
    rising = Training(steps=101, weight_decay=0.04, final_weight_decay=0.4)
    assert weight_decay(step, rising) == pytest.approx(expected, rel=1e-12)
    assert weight_decay(step, Training(steps=101, weight_decay=0.04)) == 0.04
    single = Training(steps=1, weight_decay=0.04, final_weight_decay=0.4)
    assert weight_decay(0, single) == pytest.approx(0.04)
