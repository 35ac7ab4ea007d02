"""Batches that are made while a GPU is busy: the same ones, each once, and errors where they belong."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from radiffuse.train.ahead import Ahead

CARD, PROCESSOR = torch.device("cuda"), torch.device("cpu")


class Numbered:
    """A batch that knows its step."""

    def __init__(self, *place: int) -> None:
        self.place = place

    def to(self, device: torch.device) -> Numbered:
        return self


def made(asked: list[tuple[int, str]], failing: int | None = None) -> Any:
    def batches(step: int, rank: int, world: int) -> Numbered:
        asked.append((step, threading.current_thread().name))
        if step == failing:
            raise OSError(f"step {step}")
        return Numbered(step, rank, world)

    return batches


@pytest.mark.parametrize("device", [CARD, PROCESSOR])
def test_each_batch_is_made_once_in_order_and_none_beyond_the_end(device: torch.device) -> None:
    asked: list[tuple[int, str]] = []
    with Ahead(made(asked), device, rank=1, world=2, end=6) as ahead:
        places = [ahead(step).place for step in range(3, 6)]  # type: ignore[attr-defined]
    assert places == [(3, 1, 2), (4, 1, 2), (5, 1, 2)]
    assert [step for step, _ in asked] == [3, 4, 5]
    here = threading.current_thread().name
    assert [name == here for _, name in asked] == [True, *[device == PROCESSOR] * 2]


def test_the_next_batch_is_made_during_the_step() -> None:
    begun, step_runs = threading.Event(), threading.Event()

    def batches(step: int, rank: int, world: int) -> Any:
        if step == 1:
            begun.set()
            assert step_runs.wait(20)
        return Numbered(step)

    with Ahead(batches, CARD, end=2) as ahead:
        ahead(0)
        assert begun.wait(20)  # the second is under way before it is asked for
        step_runs.set()
        assert ahead(1).place == (1,)  # type: ignore[attr-defined]


def test_an_error_comes_at_its_own_step_and_a_batch_that_is_not_asked_for_is_dropped() -> None:
    with Ahead(made([], failing=1), CARD) as ahead:
        ahead(0)
        with pytest.raises(OSError, match="step 1"):
            ahead(1)
    with Ahead(made([], failing=1), CARD) as ahead:
        ahead(0)
