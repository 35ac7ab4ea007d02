"""What is said before anything is tried."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from made_candidates import make_candidate
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.labels import Labels
from radiffuse.automatic.opening import described
from radiffuse.automatic.record import Record
from radiffuse.automatic.schedule import SCHEDULES
from radiffuse.config import Training
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.splits import Splits


def test_more_hours_are_asked_for_than_were_given() -> None:
    """At the speed of a coarse grid the time that was given may seem enough for folds, which it was not."""
    training = Training(steps=6000, batch_size=8)
    first: Any = SimpleNamespace(
        name="scratch", why="", seconds=1800.0, can_use_pool=True, steps_given=False, steps=lambda share=1.0: 6000,
        settings=SimpleNamespace(training=training), plan=SimpleNamespace(training=SimpleNamespace(slowed=1.0)),
    )  # fmt: skip
    cases = tuple(Case(name, (Path(name),), group=name) for name in "abcdef")
    names, dataset = tuple("abcdef"), Dataset(Path("x"), "pairs", cases)
    labels = Labels(dataset, Splits(names, (), ()), names)
    for hours, said in (
        (0.01, r"folds take --hours 0\.\d+ or more"),
        (1.0, "folds take more than --hours 1"),
    ):
        record = Record(
            Path("x"), Folds(()), hours, [first], {}, schedule=SCHEDULES[-1], began=time.monotonic()
        )
        assert re.search(said, [*described(record, labels, pool=False)][-1])
    short = next(schedule for schedule in SCHEDULES if schedule.halved)
    record = Record(Path("x"), Folds(()), 1.0, [first], {}, schedule=short, began=time.monotonic())
    text = "\n".join(described(record, labels, pool=True))
    assert "it is trained with the pool, which was not tried, for half of these steps" in text
    assert "busy" not in text
    first.plan.training.slowed = 3.0
    text = "\n".join(described(record, labels, pool=True))
    assert "as busy as when it was timed, training takes 3.0 times as long\n" in text


def test_a_finer_grid_of_the_final_training_is_announced_for_films() -> None:
    """Volumes keep the grid of the folds."""
    cases = tuple(Case(name, (Path(name),), group=name) for name in "abcde")
    names, dataset = tuple("abcde"), Dataset(Path("x"), "pairs", cases)
    labels, folds = Labels(dataset, Splits(names, (), ()), names), Folds(tuple((n,) for n in names))
    for dims in (2, 3):
        plan = SimpleNamespace(spatial_dims=dims, training=None)
        one = make_candidate(plan=plan, seconds=0.0, steps=60)
        record = Record(
            Path("x"), folds, 2.0, [one], {}, schedule=SCHEDULES[0], began=time.monotonic()
        )
        said = [*described(record, labels, pool=False)][-1]
        assert said.endswith("if the time left allows") == (dims == 2)
