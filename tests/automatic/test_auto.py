"""The method auto on tiny films: what is tried and left, that it goes on where it stopped, who takes the result."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import radiffuse
from conftest import TINY, line_of
from radiffuse.automatic import choice, decision, schedule, scores, vote
from radiffuse.automatic.candidates import Candidate, find_candidates, proposals, settings_of
from radiffuse.automatic.labels import read_labels
from radiffuse.automatic.record import Record
from radiffuse.cli import main
from radiffuse.cli.settings import from_values
from radiffuse.config import FIT, Data, Machine
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError, NotFinite, OutOfMemory
from radiffuse.evaluation.statistics import PairedTest
from radiffuse.inference.predictor import Predictor
from radiffuse.objectives import starts
from radiffuse.train.members import members_of
from radiffuse.train.run import Run

CPU = Machine(accelerator="cpu", precision="32-true")


def settings(films: Path, out: Path, **changes: object) -> dict[str, Any]:
    return {
        "data": films,
        "out": out / "best",
        "method": "auto",
        "labels": 3,
        "network": TINY,  # which the encoders of others do not obey
        "plan": {"size": (32, 32)},
        "split": {"test": 4},
        "training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "reader": {"cache": str(out / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


def record_of(folder: Path) -> Record:
    found = Record.read(folder, 0.0)
    assert found is not None
    return found


def weights(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "members").rglob("model.safetensors"))
    return {path.parts[-3]: path.read_bytes() for path in files}


def in_rounds(*shares: float) -> tuple[schedule.Schedule, ...]:
    return (dataclasses.replace(schedule.SCHEDULES[0], shares=shares), *schedule.SCHEDULES[-2:])


@pytest.fixture(scope="module", autouse=True)
def two_rounds() -> Iterator[None]:
    """Of one step and of two, to be fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SCHEDULES", in_rounds(0.5, 1.0))
        yield


@pytest.fixture(scope="module")
def best(films: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished choice between fine-tuning, at two timesteps, scratch and probing."""
    out = tmp_path_factory.mktemp("auto")
    run = radiffuse.fit(**settings(films, out, from_=pretrained))
    return run.folder


def test_every_case_is_scored_by_networks_that_did_not_see_its_patient(best: Path) -> None:
    record, data = record_of(best), Run.open(best).data
    learned = data["split"]["train"]
    assert sorted(n for part in record.folds.parts for n in part) == sorted(learned)
    table = pd.read_csv(best / "validation" / "cases.csv")
    assert sorted(set(table["case"])) == sorted(learned)
    assert table["expected"].between(0, 1).all()  # what the Dice of new masks is expected by
    for path in (best / "folds").rglob("data.json"):
        fold = int(path.parent.name.removeprefix("fold-"))
        assert {*json.loads(path.read_text())["split"]["train"]} == {*record.folds.rest(fold)}
        scored = pd.read_csv(path.parent / "validation" / "cases.csv")
        assert {*scored["case"]} == {*record.folds.parts[fold]}


def test_the_choice_is_never_below_fine_tuning(best: Path) -> None:
    record = record_of(best)
    assert record.candidates[0].name == "finetune"
    tuned = max(e.quality for e in record.tried if e.candidate == "finetune")
    chosen = record.members[0]
    entry = record.entry(chosen["candidate"], chosen["tried"])
    assert entry is not None
    assert entry.quality >= tuned
    assert {e.candidate for e in record.tried} >= {"finetune", "finetune-t100", "scratch", "probe"}
    table = pd.read_csv(best / "candidates.csv")
    assert list(table["candidate"]) == [e.candidate for e in record.tried]


@pytest.mark.parametrize("sure", [False, True])
def test_the_first_candidate_stays_unless_the_cases_show_that_another_is_better(
    best: Path, monkeypatch: pytest.MonkeyPatch, sure: bool
) -> None:
    record = record_of(best)
    record.tried = [
        dataclasses.replace(entry, dice=0.9 if entry.candidate == "scratch" else 0.5)
        for entry in record.tried
    ]
    compared = []

    def gain(ours: Any, theirs: Any, *, group: Any) -> PairedTest:
        compared.append(len(ours))
        return PairedTest(0.4, 0.1 if sure else -0.1, 0.9, 0.01, 4)

    monkeypatch.setattr(scores, "clustered_difference", gain)
    assert scores.leaderboard_of(record)[0].candidate == ("scratch" if sure else "finetune")
    assert scores.leaderboard_of(record, 0.5)[0].steps == 1
    assert {*compared} == {3}  # cases, each as networks segment it that did not see it
    few = PairedTest(0.4, 0.1, 0.9, 0.01, 3)
    assert not scores.is_sure(few)


@pytest.mark.parametrize(
    ("full", "error", "scored"),
    [
        ("finetune", OutOfMemory("out", "does not fit into memory", "Lower --size"), False),
        ("scratch", RuntimeError("CUDA out of memory"), True),
        ("scratch", NotFinite("scan", "is not finite, or does not fit into memory", ""), True),
    ],
)
def test_a_candidate_that_memory_does_not_hold_is_passed_over(
    full: str,
    error: Exception,
    scored: bool,
    films: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it trains or while it is scored; so is one whose logits are not finite."""
    train, score = choice.AutomaticFit._train_fold, choice.score_cases

    def limited(self: choice.AutomaticFit, candidate: Candidate, *given: Any) -> float:
        if candidate.name == full and not scored:
            raise error
        return train(self, candidate, *given)

    def segmented(predictor: Any, dataset: Any, names: Any, out: Path, **options: Any) -> Path:
        if full in out.parts and scored:
            raise error
        return score(predictor, dataset, names, out, **options)

    monkeypatch.setattr(choice.AutomaticFit, "_train_fold", limited)
    monkeypatch.setattr(choice, "score_cases", segmented)
    radiffuse.fit(**settings(films, tmp_path, from_run=pretrained))
    record = record_of(tmp_path / "best")
    assert {entry.candidate for entry in record.tried} >= {"finetune", "scratch"} - {full}
    assert "does not fit into memory" in record.passed_over[f"{full} 1"]
    assert record.failed == [full]
    assert full not in {entry.candidate for entry in record.tried}
    assert all(full != member["candidate"] for member in record.members)


def test_members_learn_from_all_labels_and_losers_leave_no_weights(best: Path) -> None:
    record, run = record_of(best), Run.open(best)
    for member, part in zip(record.members, members_of(run), strict=True):
        again = f"-{member['seed'] + 1}" if member["seed"] else ""
        assert part.folder.name == member["candidate"] + again
        assert part.config["settings"]["training"]["seed"] == member["seed"]
        assert part.ended
        assert sorted(part.data["split"]["train"]) == sorted(run.data["split"]["train"])
        assert part.config["settings"]["training"]["steps"] == member["steps"]
    kept = {path.parts[-5] for path in (best / "folds").rglob("model.safetensors")}
    assert kept == {member["candidate"] for member in record.members}
    assert not list((best / "folds").rglob("state"))


def test_its_folder_is_taken_as_one_run(
    best: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    assert main(["predict", str(best), str(films), "--out", str(masks), "--cases", "test"]) == 0
    names = json.loads((best / "splits.json").read_text())["test"]
    assert sorted(path.stem for path in masks.glob("*.png")) == sorted(names)
    assert len(names) == 4
    lines = [json.loads(line) for line in (masks / "masks.jsonl").read_text().splitlines()]
    assert {line["case"]: "all" in line["expected"] for line in lines} == dict.fromkeys(names, True)
    scored = tmp_path / "scores"
    assert main(["evaluate", str(masks), str(films), "--out", str(scored)]) == 0
    capsys.readouterr()
    assert main(["info", str(best)]) == 0
    assert "finished    yes" in capsys.readouterr().out
    radiffuse.export(run=best, format="pretrained", out=tmp_path / "out")
    image = next((films / "images").glob("*.png"))
    both = [
        radiffuse.Segmenter.load(folder, device="cpu", precision="32-true").predict(image)
        for folder in (best, tmp_path / "out")
    ]
    assert np.array_equal(*both)
    text = (best / "report.html").read_text()
    assert "Choice" in text
    assert "finetune" in text
    assert "Dice to expect of new scans</dt><dd>0." in text
    card = (best / "README.md").read_text()
    assert "not known" not in card
    votes = len(record_of(best).members)
    assert ("that vote, chosen automatically" in card) == (votes > 1)
    assert card.count(" steps of 2 images") == votes
    tags = yaml.safe_load(card.split("---")[1])["tags"]
    started = {member["candidate"].partition("-")[0] for member in record_of(best).members}
    assert ("diffusion" in tags) == bool(started & {"finetune", "probe"})  # of a denoiser


def test_a_finished_choice_that_is_repeated_stays_as_it_is(
    best: Path, films: Path, pretrained: Path
) -> None:
    before = weights(best), record_of(best).tried
    times = [path.stat().st_mtime_ns for path in sorted(best.rglob("*.safetensors"))]
    radiffuse.fit(**settings(films, best.parent, from_=pretrained))
    assert (weights(best), record_of(best).tried) == before
    assert [path.stat().st_mtime_ns for path in sorted(best.rglob("*.safetensors"))] == times


# ---------------------------------------------------------------------------------------- with scratch alone


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ends the command after so many trainings, as a kill would."""
    import radiffuse.commands.fit as command

    by_method = command._by_method

    def limit(most: int) -> None:
        done: list[object] = []

        def train(*given: Any) -> Run:
            if len(done) == most:
                raise KeyboardInterrupt
            done.append(given)
            return by_method(*given)

        monkeypatch.setattr(command, "_by_method", train)

    return limit


@pytest.fixture(scope="module")
def alone(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished choice with a single candidate and two labels, for the steps alone."""
    run = radiffuse.fit(**settings(films, tmp_path_factory.mktemp("alone"), labels=3))
    return run.folder


def test_steps_are_chosen_where_there_is_one_candidate(alone: Path) -> None:
    record = record_of(alone)
    assert {e.candidate for e in record.tried} == {"scratch"}
    assert [e.steps for e in record.tried] == [1, 2]
    assert set(record.left_out) >= {"imagenet", "finetune", "probe"}
    assert "takes no effect" in record.left_out["imagenet"]
    front = yaml.safe_load((alone / "README.md").read_text().split("---")[1])
    assert front["tags"] == ["medical-imaging", "fit"]  # trained from scratch


@pytest.mark.parametrize("trainings", [3, 4])
def test_a_killed_choice_goes_on_to_the_same_result(
    alone: Path, films: Path, tmp_path: Path, killed_after: Any, trainings: int
) -> None:
    given = settings(films, tmp_path, labels=3)
    killed_after(trainings)
    with pytest.raises(KeyboardInterrupt):
        radiffuse.fit(**given)
    killed_after(100)
    run = radiffuse.fit(**given)
    one, two = record_of(alone), record_of(run.folder)
    assert [(e.candidate, e.steps, *e.quality) for e in one.tried] == [
        (e.candidate, e.steps, *e.quality) for e in two.tried
    ]
    assert weights(run.folder) == weights(alone)


def test_a_choice_that_was_stopped_before_it_was_decided_still_has_its_networks(
    alone: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round, which is gone through again, removes no weights of the second."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    given = settings(films, tmp_path, labels=3)
    with monkeypatch.context() as patch:
        patch.setattr(decision.Decision, "decide", stopped)
        with pytest.raises(KeyboardInterrupt):
            radiffuse.fit(**given)
    assert weights(radiffuse.fit(**given).folder) == weights(alone)


def test_what_is_passed_over_leaves_no_weights(alone: Path, tmp_path: Path) -> None:
    """Folds of it may have been trained before the time was known to be short."""
    record = record_of(shutil.copytree(alone, tmp_path / "best"))
    entry, record.hours = record.tried.pop(), 0.0
    folders = record.folders(entry.candidate, entry.steps)
    (folders[-1] / scores.SCORED).unlink()
    assert list(folders[0].rglob("model.safetensors"))
    automatic = object.__new__(choice.AutomaticFit)
    automatic.record = record
    one = record.candidate(entry.candidate)
    automatic._attempt(one, entry.steps / one.steps(), "")
    assert "no time" in record.passed_over[f"{entry.candidate} {entry.steps}"]
    assert not record.failed
    assert not [path for folder in folders for path in folder.rglob("model.safetensors")]
    assert (folders[0] / scores.SCORED).is_file()


def test_a_candidate_whose_folds_are_all_scored_needs_no_more_time(
    alone: Path, tmp_path: Path
) -> None:
    """A command that was stopped between the last fold and the record, and has no time left."""
    record = record_of(shutil.copytree(alone, tmp_path / "best"))
    entry, record.hours = record.tried.pop(), 0.0
    automatic = object.__new__(choice.AutomaticFit)
    automatic.record = record
    one = record.candidate(entry.candidate)
    automatic._attempt(one, entry.steps / one.settings.training.length, "")
    assert record.passed_over.keys() == record_of(alone).passed_over.keys()
    again = record.entry(entry.candidate, entry.steps)
    assert again is not None
    assert again.quality == entry.quality


def test_the_time_of_a_stopped_training_counts(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import radiffuse.commands.fit as command

    taken: list[float] = []

    def stopped(*_: object) -> Run:
        taken.append(record_of(tmp_path / "best").before)
        time.sleep(1.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_by_method", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            radiffuse.fit(**settings(films, tmp_path, labels=3))
    assert taken[1] >= taken[0] + 1.4
    assert record_of(tmp_path / "best").before >= taken[1] + 1.4


def test_the_time_of_a_killed_training_counts(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill writes nothing more, but the log is there."""
    import radiffuse.commands.fit as command

    taken: list[float] = []

    def killed(given: Any, *_: object) -> Run:
        taken.append(record_of(tmp_path / "best").before)
        time.sleep(1.5)
        Path(given.out).mkdir(parents=True, exist_ok=True)
        (Path(given.out) / "log.jsonl").write_text("{}\n")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_by_method", killed)
    monkeypatch.setattr(Record, "counted", lambda _: nullcontext())
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            radiffuse.fit(**settings(films, tmp_path, labels=3))
    assert taken[0] + 1.4 <= taken[1] <= taken[0] + 60


def test_more_labels_than_there_are_cases_are_refused_before_scans_are_read(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(*_: object, **__: object) -> None:
        raise AssertionError("splits the cases, for which it reads every scan")

    monkeypatch.setattr("radiffuse.train.labelled.load_splits", reads)
    monkeypatch.setattr("radiffuse.automatic.labels.load_splits", reads)
    for method in ("auto", "scratch"):
        with pytest.raises(InputError, match=r"labels=99: .* has 12 labelled cases\. Choose fewer"):
            radiffuse.fit(**settings(films, tmp_path, labels=99, method=method))


def test_other_data_are_refused_once_something_was_tried(
    films: Path, tmp_path: Path, killed_after: Any
) -> None:
    data = tmp_path / "data"
    shutil.copytree(films, data)
    given = settings(data, tmp_path, labels=3)
    killed_after(1)
    with pytest.raises(KeyboardInterrupt):
        radiffuse.fit(**given)
    learned = record_of(tmp_path / "best").folds.parts[0][0]
    path = next((data / "labels").glob(f"{learned}*"))
    other = next(p for p in sorted((data / "labels").iterdir()) if p != path)
    path.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=f"begun with other images, labels.*{learned}"):
        radiffuse.fit(**given)
    path.unlink()
    with pytest.raises(InputError):
        radiffuse.fit(**given)


def test_nothing_is_left_where_nothing_can_be_tried(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(unlabelled), "--method", "auto", "--out", str(tmp_path / "run")]
    assert "no labelled image" in line_of(words, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("reason", ["one patient", "no time"])
def test_without_folds_the_first_candidate_is_trained(
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reason: str,
) -> None:
    if reason == "no time":  # however fast the machine is
        monkeypatch.setattr(Record, "left", property(lambda record: 0.0))
    changes = {"labels": 1} if reason == "one patient" else {"labels": 3, "hours": 0.001}
    run = radiffuse.fit(**settings(films, tmp_path, **changes))
    record = record_of(run.folder)
    assert not record.tried or reason == "no time"
    assert {member["candidate"] for member in record.members} == {"scratch"}
    assert len({member["seed"] for member in record.members}) == len(record.members)
    said = " ".join(record.decisions)
    assert ("one patient" if reason == "one patient" else "time") in said or record.tried
    fewer = "1 steps of the 2 planned, as time allows" in capsys.readouterr().err
    assert fewer == (record.members[0]["steps"] < 2)
    assert Predictor.open([run], CPU).plan.classes == run.plan.classes


def test_the_test_part_is_that_of_the_other_methods(
    alone: Path, films: Path, tmp_path: Path
) -> None:
    given = settings(
        films, tmp_path, method="scratch", labels=3, split={"test": 4, "validation": 2}
    )
    other = radiffuse.fit(**given)
    parts = [json.loads((f / "splits.json").read_text())["test"] for f in (alone, other.folder)]
    assert parts[0] == parts[1]
    whole = from_values("fit", {"data": films, "out": tmp_path, "method": "auto"})
    assert read_labels(whole, write=False).splits.test == ()


def test_several_vote_where_that_gains(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gains(*_: object, **__: object) -> PairedTest:
        return PairedTest(0.01, 0.005, 0.02, 0.01, 9)

    monkeypatch.setattr(vote, "clustered_difference", gains)
    same = scores.by_case  # of no borders is anything lost
    for room in (decision, vote):
        monkeypatch.setattr(room, "by_case", lambda table: same(table).assign(nsd=0.5))
    monkeypatch.setattr(schedule, "SCHEDULES", in_rounds(0.5))
    monkeypatch.setattr(decision, "MIRRORED", ())
    run = radiffuse.fit(**settings(films, tmp_path, from_=pretrained, labels=3))
    record = record_of(run.folder)
    assert len(record.members) == len(members_of(run)) == 2
    image = next(iter((films / "images").glob("*.png")))
    each = [
        radiffuse.Segmenter.load(part.folder, device="cpu", precision="32-true").predict_proba(
            image
        )
        for part in members_of(run)
    ]
    found = radiffuse.Segmenter.load(run.folder, device="cpu", precision="32-true")
    np.testing.assert_allclose(found.predict_proba(image), np.mean(each, 0), atol=1e-5)


def test_what_leads_is_tried_with_the_pool_as_well(
    films: Path, unlabelled: Path, tmp_path: Path
) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(unlabelled, pool)
    given = settings(films, tmp_path, labels=3, unlabelled=(str(pool),))
    run = radiffuse.fit(**given)
    record = record_of(run.folder)
    assert [e.candidate for e in record.tried] == ["scratch", "scratch", "scratch+pool"]
    for path in (run.folder / "folds").glob("scratch*/*/fold-*/data.json"):
        seen = json.loads(path.read_text()).get("unlabelled_cases")
        assert bool(seen) == ("+pool" in str(path))
    # Two patients decide nothing, so both vote.
    assert {member["candidate"] for member in record.members} == {"scratch", "scratch+pool"}
    assert "both vote" in " ".join(record.decisions)
    gone = sorted(pool.rglob("*.png"))[-1]
    gone.unlink()
    with pytest.raises(InputError, match=f"begun with other cases: .*{gone.stem} went"):
        radiffuse.fit(**given)


@pytest.mark.parametrize(("low", "sure"), [(0.001, True), (-0.001, False)])
def test_one_alone_where_the_folds_decide_about_the_pool(
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    low: float,
    sure: bool,
) -> None:
    """The first comparison is that of the two, the second of both together with the better one."""
    found = iter([PairedTest(0.01, low, 0.02, 0.01, 9), PairedTest(0.0, -0.01, 0.01, 1.0, 9)])
    for room in (vote, scores):
        monkeypatch.setattr(room, "clustered_difference", lambda *_, **__: next(found))
    monkeypatch.setattr(schedule, "SCHEDULES", in_rounds(0.5))
    monkeypatch.setattr(decision, "MIRRORED", ())
    run = radiffuse.fit(**settings(films, tmp_path, labels=3, unlabelled=(str(unlabelled),)))
    record = record_of(run.folder)
    assert len({member["candidate"] for member in record.members}) == 2 - sure
    assert ("both vote" in " ".join(record.decisions)) != sure


def test_a_pool_that_cannot_be_tried_has_a_training_beside_one_without_it(
    films: Path, unlabelled: Path, tmp_path: Path
) -> None:
    run = radiffuse.fit(**settings(films, tmp_path, labels=1, unlabelled=(str(unlabelled),)))
    record = record_of(run.folder)
    assert [m["candidate"] for m in record.members] == ["scratch", "scratch+pool"]
    assert "was not tried" in " ".join(record.decisions)
    seen = [bool(part.data.get("unlabelled_cases")) for part in members_of(run)]
    assert seen == [False, True]


# ------------------------------------------------------------------------------------------------ settings


def given(**values: object) -> Any:
    return from_values("fit", {"data": "d", "out": "o", "method": "auto"} | values)


def test_films_and_volumes_have_candidates_of_their_own(
    films: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(films, Data())
    without, started = given(), given(from_=str(pretrained))
    names = [name for name, *_ in proposals(without, data)]
    assert names == ["imagenet", "finetune", "scratch", "finetune-t100", "probe"]
    names = [name for name, *_ in proposals(started, data)]
    assert names == ["finetune", "imagenet", "scratch", "finetune-t100", "probe"]
    names = [name for name, *_ in proposals(given(encoder="runs/synth"), data)]
    assert names == ["dino", "imagenet", "finetune", "scratch", "finetune-t100", "probe"]
    color = dataclasses.replace(data, channels=("r", "g"))
    assert [name for name, *_ in proposals(without, color)] == ["imagenet", "scratch"]
    monkeypatch.setattr("radiffuse.automatic.candidates.find_dims", lambda _: 3)
    assert [name for name, *_ in proposals(without, data)] == ["scratch"]


def test_a_candidate_has_the_defaults_of_its_method_and_what_is_given() -> None:
    plain = settings_of(given(), "probe", {})
    assert plain.training == FIT["probe"].training
    assert plain.loss == FIT["probe"].loss
    own = settings_of(given(learning_rate=0.5), "probe", {})
    assert own.training.learning_rate == 0.5
    assert own.training.decay == FIT["probe"].training.decay
    with pytest.raises(InputError, match=r"--network.*has its own"):
        settings_of(given(width=8), "imagenet", {})
    assert settings_of(given(width=8), "scratch", {}).network.width == 8
    with_encoder = given(encoder="runs/synth")
    assert settings_of(with_encoder, "scratch", {}).encoder is None
    assert settings_of(with_encoder, "dino", {"encoder": "runs/synth"}).encoder == "runs/synth"


def test_an_encoder_that_is_asked_for_and_cannot_be_used_is_an_error(
    films: Path, tmp_path: Path
) -> None:
    asked = {"plan": {"size": (32, 32)}, "training": {"steps": 1, "batch_size": 2}}
    settings = given(data=str(films), encoder=str(tmp_path), **asked)
    with pytest.raises(InputError, match="model.safetensors"):
        find_candidates(settings, open_dataset(films, Data()), 1.0)


def test_the_network_to_start_from_is_loaded_once_for_all_candidates(
    films: Path, pretrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], starts.load_start

    def counted(*words: Any) -> Any:
        loaded.append(words)
        return load(*words)

    monkeypatch.setattr(starts, "load_start", counted)
    asked = {"plan": {"size": (32, 32)}, "training": {"steps": 1, "batch_size": 2}}
    settings = given(data=str(films), from_=str(pretrained), **asked)
    found, _ = find_candidates(settings, open_dataset(films, Data()), 1.0)
    assert {"finetune", "probe"} < {one.name for one in found}
    assert len(loaded) == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--timestep", "9"], "--finetune.timestep"),
        (["--training.keep", "last"], "--training.keep"),
        (["--machine.devices", "2"], "--machine.devices"),
        (["--method", "auto", "--from", "nothing"], "nothing"),
    ],
)
def test_what_takes_no_effect_is_refused(
    films: Path, tmp_path: Path, words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", str(films), "--method", "auto", "--out", str(tmp_path / "run"), *words]
    assert named in line_of(line, capsys)


def test_a_dry_run_shows_folds_and_candidates(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--method", "auto", "--labels", "3", "--network.width", "8", "--size", "32"]
    words += ["--steps", "40"]  # of which the first round takes fewer than the warm-up has
    assert main(["fit", str(films), "--out", str(tmp_path / "run"), *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "3 labelled cases of 3 patients, 3 folds of patients" in text
    assert "scratch:" in text
    assert re.search(
        r"  scratch: --training.steps \d+ is no more than --training.warmup-steps 25", text
    )
    assert not (tmp_path / "run").exists()


def test_check_shows_what_would_be_tried(
    films: Path, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are those of a dry run of ``fit``; nothing is written."""
    words = ["--hours", "1", "--unlabelled", str(unlabelled), "--machine.memory", "8GiB"]
    words += ["--machine.rate", "1", "--reader.cache", str(tmp_path / "cache")]
    assert main(["check", str(films), "--plan", *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert main(["fit", str(films), "--out", str(tmp_path / "run"), *words, "--dry-run"]) == 0
    out = capsys.readouterr().out.partition("settings that differ")[0]
    for line in out.split("12 labelled cases")[1].splitlines():
        assert " ".join(line.split()) in shown
    assert "imagenet: a U-Net on an encoder trained on ImageNet, at 32 x 32; " in shown
    assert "the plan of imagenet plan why grid 32 x 32 px" in shown
    assert not list(tmp_path.iterdir())


def test_a_pool_beside_no_labels_is_refused(
    unlabelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["check", str(unlabelled), "--plan", "--unlabelled", str(unlabelled)]
    assert "--unlabelled: takes no effect" in line_of(words, capsys)


def test_a_plan_with_other_steps_does_not_say_why_it_had_its_own() -> None:
    why = {"postprocess": "every label map that was read has as many pieces of lung"}
    plan = Plan(2, ("image",), ("background", "lung"), (16, 16), postprocess=("1=keep:2",))
    plan, own = dataclasses.replace(plan, reasons=why), object.__new__(choice.AutomaticFit)
    own.settings = FIT["auto"]
    for steps, left in ((("1=keep:2",), why), ((), {}), (("1=drop:5",), {})):
        _, found = own._with_steps(own.settings, plan, steps)
        assert (found.postprocess, found.reasons) == (steps, left)
