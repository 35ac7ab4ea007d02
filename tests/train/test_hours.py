"""A training that will not be done in the hours that were given says so early, once, and trains the same."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_loop import BASE

from radiffuse.config import Training
from radiffuse.train import log
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run

STEPS = dataclasses.replace(BASE, steps=100)
WORDS = "more than --hours"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    return now


def heard(
    folder: Path,
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
    *,
    seconds: float,
    hours: float | None = 1.0,
    training: Training = STEPS,
    start: int = 0,
    slow: float = 0.0,
) -> list[tuple[int, str]]:
    """The step and the line of all that is said of the hours; a step takes ``seconds``, the first ``slow`` more."""
    lines = []
    with start_run(folder, "toy", {"hours": hours}) as run:
        written = log.Log(run, start, training, main=True)
        for step in range(start + 1, training.length + 1):
            clock[0] += seconds / (4 if step <= training.coarse_steps else 1) + slow
            slow = 0.0
            written.add(1.0, {}, 4, step, 4)
            said = capsys.readouterr().err.splitlines()
            lines += [(step, line) for line in said if WORDS in line]
        written.close()
    return lines


def test_it_is_said_once_after_a_twentieth_of_the_hours(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """100 steps of 72 s are two hours; a twentieth of one has passed 2.5 steps after the first."""
    ((step, line),) = heard(tmp_path, clock, capsys, seconds=72)
    assert step == 4
    assert "100 steps take 2 h 00 min, more than --hours 1:" in line


@pytest.mark.parametrize(
    ("seconds", "hours", "slow"),
    [(35.0, 1.0, 0.0), (72.0, 2.1, 0.0), (72.0, None, 0.0), (34.0, 1.0, 180.0)],
)
def test_nothing_is_said_where_the_steps_fit(
    seconds: float,
    hours: float | None,
    slow: float,
    tmp_path: Path,
    clock: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nor of a first step that takes minutes, in which kernels are made."""
    assert not heard(tmp_path, clock, capsys, seconds=seconds, hours=hours, slow=slow)


def test_steps_at_half_the_resolution_are_not_taken_for_all(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """75 of 15 s and 25 of 60 s are 44 min; 75 of 24 s and 25 of 96 s are 70."""
    coarse = dataclasses.replace(STEPS, coarse=0.75)
    assert not heard(tmp_path / "fits", clock, capsys, seconds=60, training=coarse)
    ((step, line),) = heard(tmp_path / "longer", clock, capsys, seconds=96, training=coarse)
    assert step < 10
    assert "take 1 h 10 min" in line


def test_the_time_of_the_processes_before_counts(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """50 steps took 50 min; 50 more of 30 s would fit alone."""
    folder = tmp_path / "run"
    with start_run(folder, "toy", {"hours": 1.0}):
        row = {"step": 50, "loss": 1.0, "seconds": 3000.0}
        (folder / "log.jsonl").write_text(json.dumps(row) + "\n")
    ((step, line),) = heard(folder, clock, capsys, seconds=30, start=50)
    assert step == 57
    assert "take 1 h 15 min" in line


def test_a_part_of_a_run_has_no_hours_of_its_own(tmp_path: Path) -> None:
    with start_run(tmp_path, "toy", {"hours": 1.0}) as run:
        assert log.hours_of(run) == 1.0
        assert log.hours_of(Run(tmp_path / "encoder")) is None
