"""Classification with synthetic films, and the study of what they add, on procedural films."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from conftest import line_of
from radiffuse.commands.classify import open_classified
from radiffuse.config import Classify, Data, Machine, PlanSettings
from radiffuse.data.batches import ClassifiedFilm
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan
from radiffuse.errors import InputError
from radiffuse.nets.classifier import new_classifier
from radiffuse.nets.registry import load_network, save_network
from radiffuse.synthesis.likely import FilmJudge, open_film_judge
from radiffuse.system.files import write_atomic
from radiffuse.train.cases import prepare_dataset
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run

CPU = {"accelerator": "cpu", "precision": "32-true"}
QUICK = {"steps": 4, "batch_size": 8, "validate_every": 2, "checkpoint_every": 2, "log_every": 2}


def films(folder: Path, count: int, seed: int, patients: int | None = None) -> Path:
    """Two classes told by where the light is; patients in the file names."""
    rng = np.random.default_rng(seed)
    for k, name in enumerate(("left", "right")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 120, (16, 16))
            pixels[:, 8 * k : 8 * k + 8] += 90
            patient = f"{name}{i % (patients or count)}"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{patient}_{i}.png")
    return folder


def settings(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": str(data),
        "out": str(out),
        "plan": {"size": (16, 16)},
        "reader": {"group": r"((?:left|right)\d+)_"},
        "training": QUICK,
        "machine": CPU,
    } | changes


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return films(tmp_path / "real", 24, 0, patients=12)


def test_it_learns_and_is_tested_on_other_patients(real: Path, tmp_path: Path) -> None:
    training = QUICK | {"steps": 30, "learning_rate": 3e-3, "warmup_steps": 0}
    split = {"test": 0.3, "validation": 0.3}
    run = radiffuse.classify(**settings(real, tmp_path / "run", training=training, split=split))
    rows = rows_of(run.folder / "test.csv")
    assert {row["class"] for row in rows} == {"left", "right"}
    right = [float(row["right"]) > float(row["left"]) for row in rows]
    hits = [r == (row["class"] == "right") for r, row in zip(right, rows, strict=True)]
    assert np.mean(hits) > 0.8
    used = set(run.data["split"]["train"])
    patients = {name.rpartition("/")[2].split("__")[-1].partition("_")[0] for name in used}
    assert not patients & {row["group"] for row in rows}
    assert load_network(run.model).classes == ("left", "right")  # type: ignore[attr-defined]
    assert any("auroc" in row.get("validation", {}) for row in run.log())


def test_the_plan_is_made_of_the_films_to_train_on(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[str] = []

    def seen(dataset: Dataset, *rest: Any, **more: Any) -> Plan:
        planned.extend(case.name for case in dataset)
        return make_plan(dataset, *rest, **more)

    monkeypatch.setattr("radiffuse.train.cases.make_plan", seen)
    reader = Data(group=r"((?:left|right)\d+)_")
    given = Classify(data=str(real), labels=8, plan=PlanSettings(size=(16, 16)), reader=reader)
    read, _, budget, *_ = open_classified(given)
    assert len(budget) == 8 < len(read.dataset)
    assert sorted(planned) == sorted(budget)


def test_classes_that_are_called_as_other_columns(tmp_path: Path) -> None:
    """Cases, arms and heads: the column of a class never stands for the name, the class or the arm."""
    data, fake = films(tmp_path / "data", 12, 0), films(tmp_path / "fake", 12, 1)
    for folder in (data, fake):
        (folder / "left").rename(folder / "case")
        (folder / "right").rename(folder / "arm")
        shutil.copytree(folder / "arm", folder / "head")
    classify = settings(data, tmp_path, training=QUICK | {"steps": 1})
    del classify["data"], classify["out"]
    base = {"data": str(data), "out": str(tmp_path / "out"), "with_run": (str(fake),)}
    out = radiffuse.augment(**base, ratios=(0.5,), pools=(12,), draws=1, classify=classify)
    rows = rows_of(out / "results.csv")
    assert {row["class"] for row in rows} == {"case", "arm", "head"}
    assert {row["arm"] for row in rows} == {"real", "real+0.5", "synthetic-0.5"}
    for row in rows:
        assert row["case"].partition("__")[0] == row["class"]
        shares = [float(row[name]) for name in ("p(case)", "p(arm)", "head")]
        assert sum(shares) == pytest.approx(1)
    assert {row["class"] for row in rows_of(out / "summary.csv")} == {"case", "arm", "head", "mean"}


def test_changes_that_are_left_open_are_decided_and_recorded(real: Path, tmp_path: Path) -> None:
    short = QUICK | {"steps": 1}
    given = settings(
        real, tmp_path / "run", training=short, augmentation={"flip": None, "shading": None}
    )
    for _ in range(2):
        recorded = radiffuse.classify(**given).config["settings"]["augmentation"]
        assert (recorded["flip"], recorded["shading"]) == ([1], 0.8)


def test_a_stopped_training_goes_on_bit_for_bit(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = QUICK | {"decay": "constant"}
    whole = radiffuse.classify(**settings(real, tmp_path / "whole", training=training))
    half = radiffuse.classify(**settings(real, tmp_path / "part", training=training | {"steps": 2}))
    (half.model / "config.json").unlink()
    radiffuse.classify(**settings(real, tmp_path / "part", training=training))
    said = capsys.readouterr().err
    for steps in (4, 2):
        assert f"steps {steps} is no more than --training.warmup-steps 25" in said
    one, other = ((run.model / "model.safetensors").read_bytes() for run in (whole, half))
    assert one == other


def test_synthetic_films_come_by_class_and_never_from_test_patients(
    real: Path, tmp_path: Path
) -> None:
    fake = films(tmp_path / "fake", 40, 1)
    with (fake / "provenance.csv").open("w") as file:
        file.write("image,class,patient\n")
        for path in sorted(fake.rglob("*.png")):
            name, number = path.parent.name, int(path.stem.split("_")[1]) % 12
            file.write(f"{path.relative_to(fake)},{name},{name}{number}+other\n")
    reader = {"group": None}
    plain = films(tmp_path / "named", 24, 0)
    # Here every film is a patient of its own, called after its path.
    base = settings(plain, tmp_path / "run", labels=10, reader=reader, with_run=(str(fake),))
    run = radiffuse.classify(**base, ratio=1.0, real=False)
    assert run.data["synthetic"] == 10
    with pytest.raises(InputError, match="films of the class"):
        radiffuse.classify(**base | {"out": str(tmp_path / "many")}, ratio=50.0)


def test_parents_of_the_test_are_left_out(real: Path, tmp_path: Path) -> None:
    """Folders whose films all descend from one patient serve only where that patient trains."""
    first = radiffuse.classify(**settings(real, tmp_path / "first"))
    tested = rows_of(first.folder / "test.csv")[0]["group"]
    fake = films(tmp_path / "fake", 12, 1)
    with (fake / "provenance.csv").open("w") as file:
        file.write("image,class,patient\n")
        for path in sorted(fake.rglob("*.png")):
            file.write(f"{path.relative_to(fake)},{path.parent.name},{tested}\n")
    base = settings(real, tmp_path / "run", labels=6, with_run=(str(fake),), ratio=1.0)
    base["reader"] = {}
    with (real / "patients.csv").open("w") as file:
        file.write("image,patient\n")
        for path in sorted(real.rglob("*.png")):
            file.write(f"{path.relative_to(real)},{path.stem.partition('_')[0]}\n")
    with pytest.raises(InputError, match="has 0 films of the class"):
        radiffuse.classify(**base)
    (fake / "generation.json").write_text('{"run": "synth", "model": "0", "seed": 0}')
    base["reader"] = {"group": r"((?:left|right)\d+)_"}  # of the real films, and not of these
    with pytest.raises(InputError, match="has 0 films of the class"):
        radiffuse.classify(**base)


@pytest.mark.usefixtures("drawn")
def test_the_study_scores_every_arm_and_goes_on_where_it_stopped(
    real: Path, tmp_path: Path
) -> None:
    fake = films(tmp_path / "fake", 30, 1)
    classify = settings(real, tmp_path)
    del classify["data"], classify["out"]
    base = {"data": str(real), "out": str(tmp_path / "aug"), "with_run": (str(fake),)}
    base |= {"classify": classify, "draws": 2, "ratios": (1.0,)}
    out = radiffuse.augment(**base, pools=(6,))
    summary = rows_of(out / "summary.csv")
    assert {row["arm"] for row in summary} == {"real", "real+1", "synthetic-1"}
    assert {row["class"] for row in summary} == {"left", "right", "mean"}
    for row in summary:
        assert 0 <= float(row["low"]) <= float(row["auroc"]) <= float(row["high"]) <= 1
        assert bool(row["gain"]) == (row["arm"] != "real")
    tested = {
        arm: {r["case"] for r in rows_of(out / "results.csv") if r["arm"] == arm}
        for arm in ("real", "real+1", "synthetic-1")
    }
    assert tested["real"] == tested["real+1"] == tested["synthetic-1"]
    before = (out / "runs" / "6-real-0" / "log.jsonl").stat().st_mtime_ns
    radiffuse.augment(**base, pools=(6, 8))
    assert (out / "runs" / "6-real-0" / "log.jsonl").stat().st_mtime_ns == before
    assert {row["pool"] for row in rows_of(out / "summary.csv")} == {"6", "8"}
    one, other = (Run.open(out / "runs" / f"8-{arm}-1") for arm in ("real", "real+1"))
    assert one.data["split"] == other.data["split"]
    assert (one.data["synthetic"], other.data["synthetic"]) == (0, 8)
    assert "What synthetic films add" in (out / "report.html").read_text()


def test_a_synthesizer_draws_from_the_films_of_each_pool(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    classify = settings(classes, tmp_path, reader={})
    del classify["data"], classify["out"]
    classify |= {"plan": {"size": (32, 32)}, "training": QUICK | {"steps": 2}}
    out = radiffuse.augment(
        data=str(classes),
        out=str(tmp_path / "aug"),
        with_run=(str(synthesizer),),
        ratios=(1.0,),
        pools=(6,),
        draws=1,
        drawing={"strategy": ("variation",)},
        classify=classify,
    )
    pool = set(Run.open(out / "runs" / "6-real-0").data["split"]["train"])
    drawn = rows_of(out / "drawn" / "6-0" / "provenance.csv")
    assert {row["parents"] for row in drawn} == pool
    warnings = json.loads((out / "warnings.json").read_text())
    assert "The generator has seen" in warnings[0]


def test_a_judge_chooses_the_likely_films_for_every_arm(real: Path, tmp_path: Path) -> None:
    """Half of the synthetic films show the other class than they say; a judge that has learned keeps the right ones."""
    fake = films(tmp_path / "fake", 40, 1)
    for name, other in (("left", "right"), ("right", "left")):
        for i in range(20):
            (fake / name / f"{name}{i}_{i}.png").rename(fake / f"{name}{i}.png")
        for i in range(20):
            (fake / f"{name}{i}.png").rename(fake / other / f"{name}{100 + i}_wrong.png")
    training = QUICK | {"steps": 60, "learning_rate": 3e-3, "warmup_steps": 0}
    base = settings(real, tmp_path / "judge", training=training, labels=16)
    judge = radiffuse.classify(**base)
    classes, plan, device = ("left", "right"), judge.plan, torch.device("cpu")
    dataset = open_dataset(str(fake))
    prepared = prepare_dataset(dataset, plan, Data(), Machine(**CPU), labelled=False)
    known = open_dataset(str(real), Data(group=base["reader"]["group"]))
    trained = known.filter(lambda case: case.name in set(judge.data["split"]["train"]))
    own = prepare_dataset(trained, plan, Data(), Machine(**CPU), labelled=False)
    pool = [ClassifiedFilm(own, i, classes.index(c.target or "")) for i, c in enumerate(own.cases)]
    chooser = FilmJudge(open_film_judge(str(judge.folder), plan, classes, ()), pool, device)
    for k, name in enumerate(classes):
        items = [
            ClassifiedFilm(prepared, i, k) for i, c in enumerate(prepared.cases) if c.target == name
        ]
        assert len(items) == 40
        kept = [prepared.cases[item.row].name for item in chooser.choose(items, 0.4)]
        assert len(kept) >= 14
        assert sum("wrong" in case for case in kept) <= 1
    copies = [ClassifiedFilm(own, item.row, item.target) for item in pool if item.target == 0]
    assert chooser.choose(copies, 1.0) == []
    assert chooser.choose([], 0.5) == []

    other = {"out": str(tmp_path / "chosen"), "with_run": (str(fake),), "ratio": 1.0}
    run = radiffuse.classify(**base | other, judge=str(judge.folder), likely=0.5)
    assert run.data["synthetic"] == 16
    other["out"] = str(tmp_path / "few")
    with pytest.raises(InputError, match=r"after the choice of judge \(likely=0.1\)"):
        radiffuse.classify(**base | other, judge=str(judge.folder), likely=0.1)
    split = {"split": {"test": 0.5, "seed": 7}}
    with pytest.raises(InputError, match="was trained on .* of the films held out here"):
        radiffuse.classify(**base | other | split, judge=str(judge.folder), likely=0.5)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(judge.folder, unfinished)
    (unfinished / "model" / "config.json").unlink()
    with pytest.raises(InputError, match="is no finished classifier"):
        radiffuse.classify(**base | other, judge=str(unfinished), likely=0.5)


def test_the_study_lets_the_classifier_of_each_pool_judge(
    classes: Path, synthesizer: Path, tmp_path: Path
) -> None:
    classify = settings(classes, tmp_path, reader={})
    del classify["data"], classify["out"]
    classify |= {"plan": {"size": (32, 32)}, "training": QUICK | {"steps": 2}}
    base = {"data": str(classes), "with_run": (str(synthesizer),), "ratios": (1.0,), "pools": (6,)}
    base |= {"draws": 1, "drawing": {"strategy": ("perturb",), "steps": 2}, "classify": classify}
    out = radiffuse.augment(**base, out=str(tmp_path / "aug"), likely=0.5)
    drawn = rows_of(out / "drawn" / "6-0" / "provenance.csv")
    assert len(drawn) == 15  # 1.25 * 6 / .5
    chosen = Run.open(out / "runs" / "6-real+1-0").config["settings"]
    assert (chosen["judge"], chosen["likely"]) == (str(out / "runs" / "6-real-0"), 0.5)
    assert "judge" not in Run.open(out / "runs" / "6-real-0").config["settings"]


def test_bad_input(
    real: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "o"), "--accelerator", "cpu"]
    assert "needs synthetic films" in line_of(["classify", str(real), *out, "--ratio", "1"], capsys)
    assert "leaves no film" in line_of(["classify", str(real), *out, "--real", "false"], capsys)
    assert "--with: is missing" in line_of(["augment", str(real), *out], capsys)
    assert "class of no film" in line_of(["classify", str(films), *out], capsys)
    alone = tmp_path / "alone"
    shutil.copytree(real, alone)
    shutil.rmtree(alone / "right")
    line = line_of(["classify", str(alone), *out, "--layout", "classes"], capsys)
    assert "fits" in line


def test_films_of_other_classes_and_judges_of_other_films_are_named(
    real: Path, tmp_path: Path
) -> None:
    fake = films(tmp_path / "fake", 12, 1)
    (fake / "left").rename(fake / "Left")
    base = settings(real, tmp_path / "run", with_run=(str(fake),), ratio=0.5)
    with pytest.raises(InputError, match="has no film of the class left, but of Left, right"):
        radiffuse.classify(**base)
    folder = tmp_path / "judge"
    plan = Plan(2, ("image",), (), (16, 16))
    with start_run(folder, "classify", {}) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        run.write_data({"split": {"train": ["left1"]}})
        save_network(new_classifier("resnet-small", 1, ("left", "right"), 0), run.model)
    for classes, size, held, word in (
        (("down", "left"), 16, (), "tells left, right apart, and these films are of down, left"),
        (("left", "right"), 32, (), r"has size \(16, 16\) in its plan, and these films \(32, 32\)"),
        (("left", "right"), 16, ("left1",), "1 of the films held out here, such as left1"),
    ):
        with pytest.raises(InputError, match=word):
            open_film_judge(str(folder), replace(plan, size=(size, size)), classes, held)
    open_film_judge(str(folder), replace(plan, reasons={"size": "so"}), ("left", "right"), ())
