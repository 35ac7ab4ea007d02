"""What is trained on all labels on a finer grid than in the folds: when, how long, and that it is a run as others."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_auto import in_rounds, record_of, settings

import radiffuse
from made_candidates import GIVEN, PLAN, make_candidate
from radiffuse.automatic import candidates, opening, schedule, trainings
from radiffuse.automatic.candidates import Candidate
from radiffuse.automatic.decision import Decision
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.record import Record
from radiffuse.automatic.trainings import Member
from radiffuse.config import Fit
from radiffuse.errors import InputError
from radiffuse.release.program import Mean, one_pass_network
from radiffuse.train.log import seconds_of
from radiffuse.train.members import members_of
from radiffuse.train.run import Run

FINE = dataclasses.replace(PLAN, size=(256, 256))


def finer(
    monkeypatch: pytest.MonkeyPatch, tried: list[Candidate], seconds: float, took: float, **new: Any
) -> tuple[tuple[list[Candidate], list[Member]] | None, list[float]]:
    """What is planned of candidates whose 50 steps took so long in each of two folds; and the hours that were given."""
    asked: list[float] = []

    def planned_for(
        name: str, given: Fit, dataset: object, hours: float, seen: object
    ) -> Candidate:
        asked.append(hours)
        assert given.split.file == "all.json"
        return make_candidate(name, **({"plan": FINE} | new))

    monkeypatch.setattr(candidates, "planned_for", planned_for)
    record = Record(Path("choice.json"), Folds(((), ())), 1.0, tried, {})
    labels: Any = SimpleNamespace(dataset=None)
    made = Decision(GIVEN, labels, record, Path(), Path("all.json"))
    entries = [
        Entry(one.name, 50, 0.9, 0.5, 2 * took * (2 if one.uses_pool else 1)) for one in tried
    ]
    return made._finer(entries, seconds), asked


def test_what_learns_from_the_pool_stays_on_the_grid_of_the_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 steps with the pool take 600 seconds; the rest, a step of which takes half as long again, has the 2,100."""
    both = [make_candidate(pool=True), make_candidate()]
    found, hours = finer(monkeypatch, both, 2700, took=150)
    assert found is not None
    (fine,), members = found
    assert (fine.name, fine.plan.size) == ("imagenet", (256, 256))
    assert [(one["candidate"], one["steps"], one["tried"]) for one in members] == [
        ("imagenet", fine.steps(), 50),  # the finest grid first, as plan.json has it
        ("imagenet+pool", both[0].steps(), 50),
    ]
    assert hours == pytest.approx([2100 / 1.5 / 3600 / 0.9])
    short, hours = finer(monkeypatch, both, 900, took=150)  # half of the time has 75 steps
    assert short is not None
    assert short[1][1]["steps"] == 75
    assert hours == pytest.approx([450 / 1.5 / 3600 / 0.9])
    quick = finer(monkeypatch, both[1:], 900, took=50)[1]
    assert quick == pytest.approx([900 / 3600 / 0.9])  # speed by chance is not counted on
    assert finer(monkeypatch, both[:1], 2700, took=150)[0] is None  # there is nothing else


def test_no_training_with_the_pool_is_shorter_than_in_the_folds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = [make_candidate(), make_candidate(pool=True)]
    found = finer(monkeypatch, both, 400, took=150)[0]
    assert found is not None
    assert found[1][1]["steps"] == 50
    assert finer(monkeypatch, both, 300, took=150)[0] is None


@pytest.mark.parametrize(
    ("one", "seconds", "new"),
    [
        ({}, -1.0, {}),
        ({"steps_given": True}, 900.0, {}),
        ({"seconds": 0.0}, 900.0, {}),
        ({"plan": dataclasses.replace(PLAN, spacing=(1.0, 1.0))}, 900.0, {}),
        ({}, 900.0, {"plan": PLAN}),
    ],
)
def test_else_it_stays_the_plan_of_the_folds(
    one: dict[str, Any], seconds: float, new: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finer(monkeypatch, [make_candidate(**one)], seconds, 100, **new)[0] is None


def test_what_does_not_fit_any_more_stays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Candidate:
        raise InputError("memory", "is full", "Free it")

    made = finer(monkeypatch, [make_candidate()], 900, 100)[0]
    assert made
    monkeypatch.setattr(candidates, "planned_for", refused)
    record = Record(Path("choice.json"), Folds(((),)), 1.0, [make_candidate()], {})
    labels: Any = SimpleNamespace(dataset=None)
    again = Decision(Fit(), labels, record, Path(), Path("all.json"))
    assert again._finer([Entry("imagenet", 50, 0.9, 0.5, 100.0)], 900) is None


def test_a_candidate_that_failed_is_not_trained_on_all_labels() -> None:
    """Where time was too short for the others: it would fail again, at the end of the hours."""
    both = [make_candidate(), make_candidate("scratch")]
    record = Record(
        Path("choice.json"), Folds((("a",), ("b",))), 1.0, both, {}, failed=["imagenet"]
    )
    labels: Any = SimpleNamespace(names=("a", "b"), splits=SimpleNamespace(test=()))
    Decision(Fit(), labels, record, Path(), Path("all.json"))._by_order()
    assert {member["candidate"] for member in record.members} == {"scratch"}
    assert record.decisions[0].startswith("chosen: scratch, the first of the candidates that did")
    record.failed.append("scratch")
    assert record.to_begin_with.name == "imagenet"  # whose fault is then told


def test_it_is_trained_so_and_predicts_as_one(
    films: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both vote: without the pool at twice the size, with it at that of the folds."""
    monkeypatch.setattr(schedule, "SCHEDULES", in_rounds(1.0))
    planned = Decision._finer

    def with_time(
        self: Decision, chosen: list[Entry], seconds: float
    ) -> tuple[list[Candidate], list[Member]] | None:
        record, before = self.record, self.record.candidates

        def planned_for(name: str, *_: object) -> Candidate:
            one = record.candidate(name)
            plan = dataclasses.replace(one.settings.plan, size=(64, 64))
            training = dataclasses.replace(one.settings.training, steps=3)
            given = dataclasses.replace(one.settings, plan=plan, training=training)
            fine = dataclasses.replace(one.plan, size=(64, 64))
            return dataclasses.replace(one, settings=given, plan=fine)

        monkeypatch.setattr(candidates, "planned_for", planned_for)
        record.candidates = [
            dataclasses.replace(one, steps_given=False, seconds=1.0) for one in before
        ]
        found = planned(self, chosen, seconds)
        record.candidates = before
        return found

    monkeypatch.setattr(Decision, "_finer", with_time)
    given = settings(films, tmp_path, unlabelled=(str(unlabelled),))
    run = radiffuse.fit(**given)
    record = record_of(run.folder)
    parts = {member.folder.name: member for member in members_of(run)}
    assert [*parts] == ["scratch", "scratch+pool"]
    assert [part.plan.size for part in parts.values()] == [(64, 64), (32, 32)]
    assert [row["steps"] for row in record.members] == [3, 2]
    assert "at 64 x 64, as there is time for a finer grid" in " ".join(record.decisions)
    assert "with the pool stays" in " ".join(record.decisions)
    assert run.plan.size == (64, 64)
    folds = [Run(path) for path in (run.folder / "folds").glob("scratch/*/fold-*")]
    assert {fold.plan.size for fold in folds} == {(32, 32)}
    again = Record.read(run.folder, 0.0)
    assert again is not None
    assert [one.plan.size for one in again.finer] == [(64, 64)]
    image = next(iter((films / "images").glob("*.png")))
    segmenter = radiffuse.Segmenter.load(run.folder, device="cpu", precision="32-true")
    each = [
        radiffuse.Segmenter.load(part, device="cpu", precision="32-true").predict_proba(image)
        for part in parts.values()
    ]
    if not record.tta:
        np.testing.assert_allclose(segmenter.predict_proba(image), np.mean(each, 0), atol=1e-5)
    assert radiffuse.fit(**given).folder == run.folder  # finished
    assert isinstance(one_pass_network(run), Mean)  # one program of both


def test_where_nothing_is_tried_the_network_without_the_pool_has_the_finer_grid(
    films: Path, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As planned before anything is trained; with too little time for that with the pool, both have the usual grid."""
    asked: list[float] = []

    def planned(ones: list[Candidate], *given: Any) -> list[Candidate]:
        asked.append(given[2])
        (one,) = ones
        plan = dataclasses.replace(one.settings.plan, size=(64, 64))
        training = dataclasses.replace(one.settings.training, steps=3)
        settings = dataclasses.replace(one.settings, plan=plan, training=training)
        fine = dataclasses.replace(one.plan, size=(64, 64))
        return [dataclasses.replace(one, settings=settings, plan=fine, seconds=1.0)]

    alone = dataclasses.replace(schedule.SCHEDULES[-1], final=3)
    monkeypatch.setattr(opening, "choose_schedule", lambda *_, **__: (alone, 0.05))
    monkeypatch.setattr(opening, "planned_finer", planned)
    monkeypatch.setattr(trainings, "ENOUGH_WITH_POOL", 0.0)
    training = {"batch_size": 2, "log_every": 1}
    given = settings(films, tmp_path, unlabelled=(str(unlabelled),), training=training, hours=0.01)
    run = radiffuse.fit(**given)
    assert asked == pytest.approx([2 / 3 * 0.01 / 0.75])
    record = record_of(run.folder)
    parts = {member.folder.name: member.plan.size for member in members_of(run)}
    assert parts == {"scratch": (64, 64), "scratch+pool": (32, 32)}
    assert "without it at 64 x 64" in " ".join(record.decisions)
    monkeypatch.setattr(trainings, "ENOUGH_WITH_POOL", 1e9)
    run = radiffuse.fit(**given | {"out": tmp_path / "short"})
    assert {member.plan.size for member in members_of(run)} == {(32, 32)}
    assert record_of(run.folder).finer == []


def test_where_the_first_training_was_slow_the_next_one_is_shorter(
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As when other work has the cores; it is decided once, for a command that is repeated too."""
    alone = dataclasses.replace(schedule.SCHEDULES[-1], final=3)
    monkeypatch.setattr(opening, "choose_schedule", lambda *_, **__: (alone, 0.05))
    monkeypatch.setattr(opening, "planned_finer", lambda *_: None)
    slow = "radiffuse.automatic.choice.seconds_of"
    monkeypatch.setattr(slow, lambda run: 1e6 * seconds_of(run))
    training = {"batch_size": 2, "log_every": 1}
    given = settings(films, tmp_path, unlabelled=(str(unlabelled),), training=training, hours=0.01)
    run = radiffuse.fit(**given)
    first, second = record_of(run.folder).members
    said = f"{second['steps']} steps instead of {first['steps']}"
    assert said in capsys.readouterr().err
    assert second["steps"] == math.ceil(first["steps"] / 2)
    assert members_of(run)[1].config["settings"]["training"]["steps"] == second["steps"]
    (run.model / "config.json").unlink()
    radiffuse.fit(**given)
    assert record_of(run.folder).members == [first, second]
