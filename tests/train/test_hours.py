"""What ``--hours`` count: from the start of the command; a training that takes longer says so early, and once."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest
from test_loop import BASE

import radiffuse
from conftest import TINY, Begun
from radiffuse.config import Training
from radiffuse.data.fingerprint import Fingerprint
from radiffuse.errors import InputError
from radiffuse.system.files import read_json
from radiffuse.train import log
from radiffuse.train.planning import plan_training
from radiffuse.train.planning.configuration import Measured
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
    assert "the 100 steps alone take 2 h 00 min, more than --hours 1 for everything:" in line


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


class Slow:
    """A machine that reads the cases for so many seconds, and then times steps of 2 s for so many."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over, self.reading, self.timing = 0.0, 0.0, 0.0
        now, look = time.monotonic, plan_training.take_fingerprint
        monkeypatch.setattr(time, "monotonic", lambda: now() + self.over)

        def take(*args: Any, **names: Any) -> Fingerprint:
            self.over += self.reading
            return look(*args, **names)

        def measure(*_: object) -> Measured:
            self.over += self.timing
            return Measured(2.0)

        monkeypatch.setattr(plan_training, "take_fingerprint", take)
        monkeypatch.setattr(plan_training, "measure_steps", measure)


@pytest.mark.usefixtures("begins")
@pytest.mark.parametrize("command", ["fit", "pretrain"])
def test_what_was_read_and_timed_before_is_no_time_to_train(
    command: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 min 4 were read and 2 timed, which leaves 9 tenths of 6 min; a run that resumes keeps its plan."""
    slow = Slow(monkeypatch)
    slow.reading, slow.timing = 240.0, 120.0
    method = {"method": "scratch"} if command == "fit" else {}
    words: dict[str, Any] = {"data": films, "out": tmp_path / "run", "hours": 0.2, **method}
    words |= {"network": TINY, "plan": {"size": (32, 32)}, "machine": {"accelerator": "cpu"}}
    plans = []
    for _ in range(2):
        with pytest.raises(Begun):
            getattr(radiffuse, command)(**words)
        plans.append(read_json(tmp_path / "run" / "plan.json"))
        slow.reading = 480.0
    assert plans[0] == plans[1]
    assert plans[0]["training"]["steps"] == pytest.approx(0.9 * 360 / 2, rel=0.05)
    assert "as many as 0.2 h allow, of which 6 min 0" in plans[0]["reasons"]["steps"]


def test_hours_that_are_over_before_training_are_refused(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch).reading = 700.0
    words = {"data": films, "out": tmp_path / "run", "method": "scratch", "hours": 0.19}
    with pytest.raises(InputError, match=r"^hours=0.19: was over before training began: 11 min"):
        radiffuse.fit(**words)
    assert not (tmp_path / "run").exists()
