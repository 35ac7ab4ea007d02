"""The study: every method on the same cases, nothing twice, and what cannot be compared is refused at once."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import radiffuse
from conftest import TINY, pretrain_settings
from radiffuse.cli import main
from radiffuse.config import Augment, Fit, Generate, Machine, Study
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.studies.folder import study_folder
from radiffuse.studies.methods import (
    DRAWER,
    METHODS,
    STARTS,
    reference_of,
    trained_alike,
    variants,
)
from radiffuse.studies.runs import StudyRuns
from radiffuse.studies.study import foreseen, scored_besides, verify
from radiffuse.system.files import locked
from radiffuse.train.run import Run
from tiny_runs import finished_run

FINETUNE = {
    "network": TINY,
    "plan": {"size": (32, 32)},
    "split": {"test": 0.4, "validation": 0.2},
    "training": {"steps": 2, "batch_size": 2, "log_every": 1, "average_decay": 0.0},
    "machine": {"accelerator": "cpu", "precision": "32-true"},
}


def arguments(
    films: Path, pretrained: Path, tmp_path: Path, **changes: object
) -> dict[str, object]:
    return {
        "data": films,
        "from_": pretrained,
        "out": tmp_path / "study",
        "methods": ("scratch", "finetune"),
        "labels": (1,),
        "draws": 2,
        "finetune": FINETUNE | {"reader": {"cache": str(tmp_path / "cache")}},
    } | changes


def test_both_methods_share_cases_and_nothing_is_done_twice(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = arguments(films, pretrained, tmp_path)
    out = radiffuse.study(**chosen).parent
    table = pd.read_csv(out / "results.csv", dtype={"case": str})
    assert set(table["method"]) == {"scratch", "finetune"}
    parts = json.loads((out / "data.json").read_text())["split"]
    for _, rows in table.groupby(["method", "labels", "draw"]):
        assert set(rows["case"]) == set(parts["test"])
    assert table.groupby(["method", "labels", "draw"]).ngroups == 4
    runs = {p.name: Run.open(p) for p in (out / "runs").iterdir()}
    assert set(runs) == {f"{m}-1-{d}" for m in ("scratch", "finetune") for d in (0, 1)}
    for draw in (0, 1):
        pair = [runs[f"{method}-1-{draw}"] for method in ("scratch", "finetune")]
        assert pair[0].data["split"] == pair[1].data["split"]
        first, second = (replace(run.plan, reasons={}) for run in pair)
        assert first == second
        networks = [json.loads((run.model / "config.json").read_text()) for run in pair]
        assert networks[0] == networks[1]
        trainings = [run.config["settings"]["training"] for run in pair]
        assert trainings[0] == trainings[1]
        assert trainings[0]["seed"] == draw
    a, b = (load_file(runs[f"scratch-1-{d}"].model / "model.safetensors") for d in (0, 1))
    assert any(not torch.equal(a[name], b[name]) for name in a)
    assert yaml.safe_load((out / "study.yaml").read_text())["draws"] == 2

    import radiffuse.commands.study as command
    import radiffuse.studies.study as scoring

    before = (out / "results.csv").read_bytes()
    for module, name in ((command, "fit"), (command, "pretrain"), (scoring, "score_cases")):
        monkeypatch.setattr(module, name, lambda *a, **k: pytest.fail("was done again"))
    once: list[object] = []
    monkeypatch.setattr(scoring, "unused", lambda settings: once.append(settings) or [])
    radiffuse.study(**chosen)
    assert len(once) == 1
    assert (out / "results.csv").read_bytes() == before
    with locked(out), pytest.raises(InputError, match="in use by another process"):
        radiffuse.study(**chosen)


def test_a_killed_study_goes_on(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import radiffuse.commands.study as command

    class Killed(Exception):
        pass

    whole = command.fit
    done: list[str] = []

    def until(settings):  # type: ignore[no-untyped-def]
        if len(done) == 1:
            raise Killed
        done.append(Path(settings.out).name)
        return whole(settings)

    chosen = arguments(films, pretrained, tmp_path, labels=(1, 2), draws=1)
    with monkeypatch.context() as patch:
        patch.setattr(command, "fit", until)
        with pytest.raises(Killed):
            radiffuse.study(**chosen)
    assert done == ["scratch-1-0"]
    first = tmp_path / "study/runs/scratch-1-0/model/model.safetensors"
    before = first.stat().st_mtime_ns
    radiffuse.study(**chosen)
    assert first.stat().st_mtime_ns == before
    table = pd.read_csv(tmp_path / "study/results.csv")
    scored = table.groupby(["method", "labels"])["case"].nunique()
    assert scored.to_dict() == {(m, n): 5 for m in ("finetune", "scratch") for n in (1, 2)}
    learned = [
        Run.open(tmp_path / f"study/runs/scratch-{n}-0").data["split"]["train"] for n in (1, 2)
    ]
    assert [len(names) for names in learned] == [1, 2]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"methods": ("scratch", "magic")}, "magic.*not a method"),
        ({"from_": None}, "finetune.*needs a pre-trained network"),
        ({"methods": ("scratch", "ddep")}, "unlabelled"),
        ({"methods": ("finetune",), "reference": "scratch"}, 'reference="scratch"'),
        ({"draws": 0}, "draws=0 is out of range"),
        ({"labels": ()}, "budget"),
        ({"labels": (1, 500)}, "labelled cases to learn from, and"),
        ({"parts": ("tset",)}, "parts.*test.*validation"),
        ({"weights": ("ema",)}, "weights.*average.*raw"),
        ({"samplers": ("ode",)}, "samplers.*ddpm.*ddim"),
        ({"methods": ("scratch", "ensemble"), "ensemble": ("none",)}, 'ensemble="none".*two or'),
        ({"pools": (5,)}, "pools: takes no effect"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(
    films: Path, pretrained: Path, tmp_path: Path, changes: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        radiffuse.study(**arguments(films, pretrained, tmp_path, **changes))
    assert not (tmp_path / "study" / "runs").exists()


def test_without_a_reference_it_is_scratch_or_the_first_row() -> None:
    for chosen, name in (
        ({"methods": ("finetune", "scratch")}, "scratch"),
        ({"methods": ("pixel", "finetune")}, "pixel"),
        ({"methods": ("pixel", "scratch"), "reference": "pixel"}, "pixel"),
        ({"methods": ("guided", "masked"), "transfer": ("linear", "finetune")}, "guided@linear"),
    ):
        assert reference_of(Study(**chosen)) == name  # type: ignore[arg-type]


def test_names_of_variants_vary_one_thing_at_a_time() -> None:
    one = Study(methods=("scratch", "finetune"))
    assert [v.name for v in variants(one)] == ["scratch", "finetune"]
    many = Study(
        methods=("scratch", "finetune", "none", "recycle+pretrained", "ensemble"),
        timesteps=(0, 50),
        weights=("average", "raw"),
        pools=(10, 100),
        samplers=("ddpm", "ddim"),
    )
    found = {v.name: v for v in variants(many)}
    assert list(found) == [
        "scratch",
        "finetune",
        "finetune@t=50",
        "finetune@raw",
        "finetune@n=10",
        "finetune@n=100",
        "none",
        "recycle+pretrained",
        "recycle+pretrained@ddim",
        "ensemble",
    ]
    assert found["finetune@t=50"].timestep == 50
    assert found["finetune@raw"].weights == "raw"
    assert found["finetune@n=10"].pool == 10
    assert found["finetune"].pool is None
    assert found["recycle+pretrained@ddim"].trained == "recycle+pretrained"
    assert found["finetune@raw"].trained == "finetune@raw"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("finetune", "pixel")}, "pixel needs them"),
        ({"methods": ("finetune", "pseudo-labels")}, "pseudo-labels needs them"),
        ({"methods": ("finetune",), "timesteps": (0, 5)}, "fine-tuning at timestep 5 needs them"),
    ],
)
def test_what_needs_timesteps_is_refused_before_a_study_pretrains_without_them(
    films: Path, unlabelled: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    base = arguments(films, unlabelled, tmp_path)
    del base["from_"]
    same = {key: FINETUNE[key] for key in ("network", "plan") if key in FINETUNE}
    chosen = base | {"unlabelled": unlabelled, "pretrain": same | {"objective": "masked"}} | changes
    with pytest.raises(InputError, match=f'pretrain={{"objective": "masked"}}: .* {words}'):
        radiffuse.study(**chosen)
    assert not (tmp_path / "study" / "pretrain").exists()


@pytest.mark.usefixtures("drawn")
def test_mask_diffusion_stands_in_the_same_study(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    learning = {"steps": 2, "batch_size": 2, "log_every": 1, "average_decay": 0.0}
    chosen = arguments(
        films,
        pretrained,
        tmp_path,
        methods=("none", "recycle", "recycle+pretrained", "ensemble"),
        samplers=("ddpm", "ddim"),
        draws=1,
        diffusion={"training": learning, "diffusion": {"sampling": {"steps": 3}},
                 "reader": {"cache": str(tmp_path / "cache")}},
    )  # fmt: skip
    out = radiffuse.study(**chosen).parent
    assert yaml.safe_load((out / "study.yaml").read_text())["reference"] == "none"
    assert ">compared with<" in (out / "report.html").read_text()
    assert set(pd.read_csv(out / "comparisons.csv")["reference"]) == {"none"}
    table = pd.read_csv(out / "results.csv")
    counted = table.groupby("method")["case"].nunique()
    assert set(counted.index) == {
        "none", "recycle", "recycle@ddim", "recycle+pretrained", "recycle+pretrained@ddim",
        "ensemble",
    }  # fmt: skip
    assert counted.nunique() == 1
    trained = {p.name for p in (out / "runs").iterdir()}
    assert trained == {f"{name}-1-0" for name in ("none", "recycle", "recycle+pretrained")}
    steps = pd.read_csv(out / "steps.csv")
    assert set(steps["method"]) == {name for name in counted.index if name.startswith("recycle")}
    assert set(steps["step"]) == {1, 2, 3}
    assert set(steps["timestep"]) == {1000, 500, 0}
    # The last step is the result.
    last = steps[(steps["method"] == "recycle") & (steps["step"] == 3)].set_index("case")["dice"]
    result = table[table["method"] == "recycle"].groupby("case")["dice"].mean()
    pd.testing.assert_series_equal(
        last.sort_index(), result.sort_index(), check_names=False, atol=1e-5
    )
    for name in ("none", "recycle"):
        calibration = pd.read_csv(out / "scores" / f"{name}-1-0" / "calibration.csv")
        assert (calibration["confidence"] <= calibration["high"] + 1e-9).all()
        assert calibration["accuracy"].between(0, 1).all()
    runs = [Run.open(out / "runs" / f"{name}-1-0") for name in ("none", "recycle")]
    assert runs[0].data["split"] == runs[1].data["split"]
    assert runs[0].plan == runs[1].plan
    assert "Along the sampling" in (out / "report.html").read_text()


@pytest.mark.usefixtures("drawn")
def test_image_and_mask_together_and_the_pairs_it_draws_stand_in_the_same_study(
    films: Path, unlabelled: Path, pretrained: Path, tmp_path: Path
) -> None:
    write_dataset(
        "bitewing",
        tmp_path / "others",
        count=6,
        labelled=False,
        seed=2,
        size=(32, 32),
        start_index=50,
    )
    others = radiffuse.pretrain(
        **pretrain_settings(tmp_path / "others", tmp_path / "pre", tmp_path / "cache")
    )
    learning = {"steps": 2, "batch_size": 2, "log_every": 1, "average_decay": 0.0}
    chosen = arguments(
        films,
        others.folder,
        tmp_path,
        methods=("drawn-pairs", "joint+pool"),
        reference="joint+pool",
        unlabelled=unlabelled,
        pseudo_labels=3,
        draws=1,
        diffusion={"training": learning, "reader": {"cache": str(tmp_path / "cache")}},
    )
    out = radiffuse.study(**chosen).parent
    table = pd.read_csv(out / "results.csv")
    assert table.groupby("method")["case"].nunique().nunique() == 1
    joint, tuned = (
        Run.open(out / "runs" / f"{name}-1-0") for name in ("joint+pool", "drawn-pairs")
    )
    assert joint.data["unlabelled_cases"] == 20 - 7  # named as patients that are held out
    assert joint.config["settings"]["loss"]["dice"] == 1.0
    assert tuned.data["split"] == joint.data["split"]
    assert tuned.data["with_cases"] == 3
    assert len(list((out / "drawn" / "pairs-1-0" / "labels").glob("*.png"))) == 3
    steps = pd.read_csv(out / "steps.csv")
    assert set(steps["method"]) == {"joint+pool"}
    later = chosen | {"from_": pretrained, "out": tmp_path / "leak"}
    with pytest.raises(InputError, match=r"^from_=.*has images of bitewing-.*, held out here"):
        radiffuse.study(**later)  # it was pre-trained on images of the same names
    shared = {key: FINETUNE[key] for key in ("network", "plan") if key in FINETUNE}
    later = chosen | {"from_": None, "out": tmp_path / "leak too", "pretrain": shared}
    with pytest.raises(InputError, match=r"^unlabelled=.*has images of bitewing-.*, held out her"):
        radiffuse.study(**later)
    (tmp_path / "copies").mkdir()
    tested = json.loads((out / "splits.json").read_text())["test"]
    for number, image in enumerate(sorted((films / "images").iterdir())):
        if image.stem not in tested[1:]:
            shutil.copy(image, tmp_path / "copies" / f"x{number}.png")
    with pytest.raises(InputError, match=rf"^unlabelled=.*has images of .*{tested[0]}.*, held out"):
        radiffuse.study(
            **later | {"unlabelled": tmp_path / "copies", "out": tmp_path / "leak by content"}
        )
    assert not (tmp_path / "leak" / "runs").exists()


def test_the_pool_of_unlabelled_images_is_an_axis(
    films: Path, unlabelled: Path, tmp_path: Path
) -> None:
    tiny = {"network": TINY, "plan": {"size": (32, 32)}, "diffusion": {"num_train_timesteps": 20}}
    chosen = arguments(
        films,
        unlabelled,
        tmp_path,
        unlabelled=unlabelled,
        pools=(5,),
        draws=1,
        pretrain=tiny | {"training": {"steps": 2, "batch_size": 2},
                         "reader": {"cache": str(tmp_path / "cache")}},
    )  # fmt: skip
    with pytest.raises(InputError, match="pools: takes no effect"):
        radiffuse.study(**chosen)
    del chosen["from_"]
    out = radiffuse.study(**chosen).parent
    assert set(pd.read_csv(out / "results.csv")["method"]) == {
        "scratch",
        "finetune",
        "finetune@n=5",
    }
    assert Run.open(out / "pretrain-5").data["cases"] == 5
    assert Run.open(out / "pretrain").data["cases"] == 20
    tuned = Run.open(out / "runs" / "finetune@n=5-1-0")
    assert Path(tuned.config["settings"]["from_run"]).name == "pretrain-5"


def test_ways_of_pretraining_stand_side_by_side_in_every_regime(
    films: Path, unlabelled: Path, tmp_path: Path
) -> None:
    tiny = {"steps": 2, "batch_size": 2, "log_every": 1}
    machine = {"accelerator": "cpu", "precision": "32-true"}
    cache = {"cache": str(tmp_path / "cache")}
    common = {"network": TINY, "training": tiny, "machine": machine, "reader": cache}
    chosen: dict[str, object] = {
        "data": films,
        "unlabelled": str(unlabelled),
        "out": tmp_path / "study",
        "methods": ("scratch", "diffusion", "guided", "restorative", "contrastive", "masked"),
        "transfer": ("nonlinear", "linear", "finetune"),
        "labels": (2,),
        "draws": 1,
        "pretrain": common | {"plan": {"size": (32, 32)}},
        "regressor": {"network": TINY, "training": tiny},
        "probing": {
            "training": tiny,
            "probe": {"width": 8, "sweep": (1, 30), "sweep_coordinates": True},
        },
        "finetune": FINETUNE | {"reader": cache},
    }
    out = radiffuse.study(**chosen).parent
    table = pd.read_csv(out / "results.csv", dtype={"case": str})
    ways = ("diffusion", "guided", "restorative", "contrastive", "masked")
    names = {f"{way}@{regime}" for way in ways for regime in ("nonlinear", "linear", "finetune")}
    swept = {f"{way}@nonlinear@t={t}" for way in ways[:2] for t in (1, 30)}
    blind = {f"{way}@{kind}@no-coordinates" for way in ways for kind in ("nonlinear", "linear")}
    assert set(table["method"]) == {"scratch"} | names | swept | blind
    for way in ways:  # every rival's heads see what guides the guided one
        probe = Run.open(out / "runs" / f"{way}-probe-2-0").config["settings"]["probe"]
        assert probe["coordinates"] is True
        assert probe["regressor"] == (None if way == "guided" else str(out / "coordinates"))
    runs = {path.name for path in (out / "runs").iterdir()}
    assert {f"{way}-probe-2-0" for way in ways} < runs  # one frozen pass for all heads
    assert len(runs) == 11
    pretrained = [out / "pretrain", *(out / f"pretrain-{way}" for way in ways[1:])]
    seen = [[row["images"] for row in Run.open(p).log() if "loss" in row] for p in pretrained]
    assert (
        seen == [[2, 4]] * 5
    )  # patches, of whichever kind: half the batch where each is a pair of crops
    settings = {way: Run.open(out / f"pretrain-{way}").config["settings"] for way in ways[1:]}
    assert settings["guided"]["coordinates"] == str(out / "coordinates")
    assert settings["contrastive"]["objective"] == "contrastive"
    plans = {Run.open(path).plan.size for path in (out / "runs").iterdir()}
    assert plans == {(32, 32)}
    with pytest.raises(InputError, match="transfer.*nonlinear"):
        radiffuse.study(**chosen | {"transfer": ("deep",)})
    with pytest.raises(InputError, match="trains on unlabelled images"):
        radiffuse.study(
            data=films, out=tmp_path / "x", from_=out / "pretrain", methods=("scratch", "guided")
        )


def test_what_a_recipe_sets_without_effect_stops_no_training(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    """That heads of an unguided network see no coordinates was said, and then refused when they were to be trained."""
    few = {"training": FINETUNE["training"]}
    probing = few | {"probe": {"width": 8, "sweep_coordinates": True}}
    recipe = tmp_path / "recipe.yaml"
    content = {"probing": probing, "finetune": few | {"split": FINETUNE["split"]}}
    recipe.write_text(json.dumps(content))  # which YAML reads too
    words = ["study", str(films), "--config", str(recipe), "--from", str(pretrained)]
    words += ["--methods", "diffusion", "--transfer", "nonlinear", "--labels", "1", "--draws", "1"]
    assert main([*words, "--out", str(tmp_path / "study")]) == 0
    run = Run.open(tmp_path / "study" / "runs" / "diffusion-probe-1-0")
    assert not run.config["settings"]["probe"].get("sweep_coordinates")


def test_the_tables_of_methods_and_starts_name_each_other() -> None:
    for row in METHODS.values():
        assert row.start is None or row.start in STARTS
        assert (row.fit is None) == (row.segments != "run")
    for start in STARTS.values():
        assert {start.from_run, start.coordinates} <= {None, *STARTS}
    assert len({start.folder for start in STARTS.values()}) == len(STARTS)
    plain = Study(methods=tuple(METHODS))
    assert [variant.name for variant in variants(plain)] == list(METHODS)


def test_a_study_of_another_version_is_refused_in_one_line(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    chosen = arguments(films, pretrained, tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("diffseg: {strategy: recycle}\n")
    with pytest.raises(InputError, match="written by another version"):
        radiffuse.study(**chosen)


def test_chosen_labels_beside_random_ones(films: Path, pretrained: Path, tmp_path: Path) -> None:
    """Both learn from as many cases of the training pool, and the uncertain ones build on half of them."""
    settings = arguments(
        films, pretrained, tmp_path, methods=("scratch",), choices=("typical", "uncertain"),
        labels=(3,), draws=1,
    )  # fmt: skip
    out = radiffuse.study(**settings).parent
    table = pd.read_csv(out / "results.csv")
    assert set(table["method"]) == {"scratch", "scratch@typical", "scratch@uncertain"}
    learned = {p.name: set(Run.open(p).data["split"]["train"]) for p in (out / "runs").iterdir()}
    parts = json.loads((out / "data.json").read_text())["split"]
    assert set(learned) == {
        "scratch-3-0", "scratch-typical-3-0", "scratch-uncertain-3-0", "scratch-typical-2-0"
    }  # fmt: skip
    assert all(names <= set(parts["train"]) for names in learned.values())
    assert len(learned["scratch-typical-3-0"]) == len(learned["scratch-uncertain-3-0"]) == 3
    assert learned["scratch-typical-2-0"] < learned["scratch-uncertain-3-0"]
    tested = {name: set(rows["case"].astype(str)) for name, rows in table.groupby("method")}
    assert len({frozenset(cases) for cases in tested.values()}) == 1
    with pytest.raises(InputError, match=r"choices: takes no effect, since no method uses it"):
        radiffuse.study(**settings | {"methods": ("ensemble",), "reference": "ensemble"})


def test_a_study_begun_under_another_default_names_the_flag_that_goes_on(tmp_path: Path) -> None:
    """``augment`` drew in 50 steps before ``--drawing.steps`` was left open, and recorded it."""
    plain = Augment(out=str(tmp_path / "aug"), with_run=("runs/syn",))
    fifty = replace(plain, drawing=replace(plain.drawing, steps=50))
    fixed = ("with_run", "drawing")
    with study_folder(plain, "augment.yaml", fixed):
        pass
    record = tmp_path / "aug" / "augment.yaml"
    values = yaml.safe_load(record.read_text())
    assert values["drawing"]["steps"] is None
    values["drawing"]["steps"] = 50
    record.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=r"steps was 50 and is none. Give --drawing.steps 50"):
        study_folder(plain, "augment.yaml", fixed).__enter__()
    for _ in range(2):
        with study_folder(fifty, "augment.yaml", fixed):
            pass
    with pytest.raises(InputError, match=r"Give --drawing.steps 50 to go on"):
        study_folder(plain, "augment.yaml", fixed).__enter__()


def test_scores_that_the_tables_leave_out_are_named(tmp_path: Path) -> None:
    for name in ("scratch-1-0", "scratch-1-1", "finetune-1-0", "pixel-2-0"):
        (tmp_path / "scores" / name).mkdir(parents=True)
        if name != "pixel-2-0":  # which was not scored to its end
            (tmp_path / "scores" / name / "cases.csv").touch()
    settings = Study(out=str(tmp_path), methods=("scratch",), labels=(1,), draws=1)
    assert scored_besides(settings) == ["finetune-1-0", "scratch-1-1"]
    assert scored_besides(replace(settings, methods=("scratch", "finetune"), draws=2)) == []


def test_a_misspelled_method_names_the_one_that_was_meant() -> None:
    with pytest.raises(
        InputError, match=r"--methods finetnue: is not a method. Did you mean finetune\?"
    ):
        verify(Study(methods=("finetnue",)))


def test_a_dry_run_says_how_much_there_is_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 methods, 3 numbers of labels and 2 draws; data that are not there yet do not matter."""
    out = tmp_path / "study"
    words = ["study", str(tmp_path / "films"), "--unlabelled", str(tmp_path / "pool")]
    words += ["--labels", "1,2,5", "--draws", "2", "--out", str(out), "--dry-run"]
    assert main([*words, "--methods", "scratch,finetune"]) == 0
    said = capsys.readouterr().out
    axes = "2 methods (scratch, finetune) x 3 label budgets (1, 2, 5) x 2 draws"
    assert f"\n1 pre-training, then 12 trainings for 12 scores: {axes}; from its second" in said
    assert main([*words, "--methods", "scratch,finetune", "--finetune.hours", "0.1"]) == 0
    assert "about 1 h 12 min of training, at --finetune.hours 0.1 each" in capsys.readouterr().out
    (out / "scores" / "scratch-1-0").mkdir(parents=True)
    (out / "scores" / "scratch-1-0" / "cases.csv").touch()
    given = Study(
        methods=("scratch", "guided"), labels=(1,), draws=2, unlabelled="pool", out=str(out)
    )
    assert foreseen(given).startswith("2 pre-trainings, then 4 trainings for 4 scores: 2 methods")
    assert "; 1 of the scores are there already" in foreseen(given)


def test_a_dry_run_says_how_many_cases_are_for_what(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = len([*(films / "images").iterdir()])
    words = ["study", str(films), "--labels", "1", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--methods", "scratch", "--finetune.split.test", "0.5"]) == 0
    found = re.search(
        r"\n(\d+) labelled cases: (\d+) to draw .*, (\d+) for val.*, (\d+) for the test\n",
        capsys.readouterr().out,
    )
    assert found is not None
    total, *parts = map(int, found.groups())
    assert total == cases == sum(parts)
    assert parts[2] == cases // 2


def test_pairs_are_drawn_on_the_machine_of_finetuning(tmp_path: Path) -> None:
    """Also where the run that draws them is there already, and nothing was trained in this process."""
    machine = Machine(accelerator="cpu", threads=1)
    study = Study(out=str(tmp_path), unlabelled="films", finetune=Fit(machine=machine))
    drawn: list[Generate] = []

    def generate(settings: Generate) -> Path:
        drawn.append(settings)
        return Path(settings.out)

    nothing: Any = None
    runs = StudyRuns(study, nothing, nothing, nothing, nothing, generate)
    plan = Plan(2, ("image",), ("background", "a"), (16, 16))
    joint = tmp_path / "runs" / f"{trained_alike(DRAWER, study).trained}-1-0"
    (finished_run(joint, plan) / "report.html").touch()
    runs._pairs(1, 0)
    (settings,) = drawn
    assert (settings.machine.accelerator, settings.machine.threads) == ("cpu", 1)
