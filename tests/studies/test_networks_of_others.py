"""Networks of others stand in a study's tables with its cases and its scoring; what they may not see stays away."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import yaml

import radiffuse
import radiffuse.cli
from conftest import TINY, line_of
from radiffuse.config import Data, Decoding, Fit, PlanSettings, Split, Study
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.nets.dynunet import DynUNet, new_dynunet, topology
from radiffuse.nets.registry import load_network, save_network
from radiffuse.phantoms import write_dataset
from radiffuse.studies.methods import variants
from radiffuse.studies.runs import StudyRuns
from radiffuse.studies.study import open_study, run_study
from radiffuse.train.run import Run, flatten

FAKE = """#!{python}
# Behaves towards files as nnU-Net 2 does; what it "learns" is a threshold.
import json, os, sys
from pathlib import Path
import numpy as np, tifffile
code, words = sys.argv[2], sys.argv[3:]
here = Path(__file__).parent
if "importlib.metadata" in code:
    print("a greeting")
    print(json.dumps(["2.8.1", False]))
    sys.exit()
assert "PYTHONPATH" not in os.environ
name = "Dataset001_radiffuse"
raw, done, results = (Path(os.environ["nnUNet_" + part]) for part in ("raw", "preprocessed", "results"))
step = next(s for s in ("plan_and_preprocess_entry", "run_training_entry", "predict_entry_point") if s in code)
with (here / "calls").open("a") as file:
    file.write(json.dumps([step, words]) + "\\n")
about = json.loads((raw / name / "dataset.json").read_text())
ending = about["file_ending"]
if step == "plan_and_preprocess_entry":
    assert words[:2] == ["-d", "1"]
    images = sorted(p.name.removesuffix("_0000" + ending) for p in (raw / name / "imagesTr").iterdir())
    labels = sorted(p.name.removesuffix(ending) for p in (raw / name / "labelsTr").iterdir())
    assert images == labels and len(images) == about["numTraining"]
    (done / name).mkdir()
    (done / name / "nnUNetPlans.json").write_text("{{}}")
elif step == "run_training_entry":
    print("epoch 0")
    if (here / "broken").exists():
        sys.exit(3)
    assert words[:3] == ["1", "2d", "0"] and (words[-1] == "--c" or words[-2] == "-pretrained_weights")
    (here / "code").write_text(code)
    if (here / "misfit").exists():
        print("radiffuse: encoder.stem is missing")
        sys.exit(4)
    fold = json.loads((done / name / "splits_final.json").read_text())[0]
    labels = {{p.name.removesuffix(ending) for p in (raw / name / "labelsTr").iterdir()}}
    assert set(fold["train"]) == set(fold["val"]) == labels
    model = results / name / (words[words.index("-tr") + 1] + "__nnUNetPlans__2d") / "fold_0"
    model.mkdir(parents=True)
    (model / "checkpoint_final.pth").write_bytes(b"never opened here")
else:
    given = dict(zip(words[::2], words[1::2]))
    assert list(results.glob(f"*/{{given['-tr']}}__nnUNetPlans__{{given['-c']}}/fold_0/checkpoint_final.pth"))
    out = Path(given["-o"])
    out.mkdir(parents=True)
    for path in Path(given["-i"]).iterdir():
        image = tifffile.imread(path)
        tifffile.imwrite(out / (path.name.removesuffix("_0000" + ending) + ending), (image > 100).astype(np.uint8))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "nn" / "python"
    path.parent.mkdir()
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def words(films: Path, out: Path, *more: str, methods: str = "scratch") -> list[str]:
    """A study with two labels in one draw, as a command line."""
    return [
        "study", str(films), "--out", str(out), "--methods", methods, "--labels", "2", "--draws", "1",
        "--config", str(out.with_suffix(".yaml")), *more,
    ]  # fmt: skip


@pytest.fixture
def study(films: Path, tmp_path: Path) -> Path:
    """From scratch, two labels, one draw."""
    training = {"steps": 2, "batch_size": 2, "log_every": 1, "average_decay": 0.0}
    finetune = {
        "network": TINY | {"multipliers": [1, 2], "attention_factors": [2]},
        "plan": {"size": [32, 32]},
        "split": {"test": 0.4, "validation": 0.2},
        "training": training,
        "machine": {"accelerator": "cpu", "precision": "32-true"},
        "reader": {"cache": str(tmp_path / "cache")},
    }
    out = tmp_path / "study"
    out.with_suffix(".yaml").write_text(yaml.safe_dump({"finetune": finetune}))
    assert radiffuse.cli.main(words(films, out)) == 0
    return out


def calls(program: Path) -> list[str]:
    return [json.loads(line)[0] for line in (program.parent / "calls").read_text().splitlines()]


def test_levels_follow_the_rule_of_nnunet() -> None:
    kernels, strides = topology((64, 64), None)
    assert strides == [[1, 1], *[[2, 2]] * 4]  # down to 4 x 4
    assert kernels == [[3, 3]] * 5
    kernels, strides = topology((128, 128, 32), (1.0, 1.0, 3.0))
    assert strides == [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    assert kernels == [[3, 3, 1], *[[3, 3, 3]] * 5]
    assert new_dynunet(1, 2, (512, 512)).filters == [32, 64, 128, 256, 512, 512, 512, 512]
    with pytest.raises(ValueError, match="three levels"):
        new_dynunet(1, 2, (8, 8))


def test_a_dynunet_is_saved_and_its_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    network, same, other = (new_dynunet(2, 3, (16, 16), seed=s).eval() for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    images = torch.linspace(-1, 1, 2 * 2 * 16 * 16).reshape(2, 2, 16, 16)
    save_network(network, tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded, DynUNet)
    with torch.no_grad():
        logits = network(images)
        assert logits.shape == (2, 3, 16, 16)
        assert torch.equal(logits, loaded(images))
        assert torch.equal(logits, same(images))
        assert not torch.allclose(logits, other(images))


def test_both_stand_in_the_study_with_its_cases_and_nothing_else(
    films: Path, study: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = Run.open(study / "runs" / "scratch-2-0")
    trained = (scratch.model / "model.safetensors").stat().st_mtime_ns
    before = pd.read_csv(study / "results.csv", dtype={"case": str})
    (program.parent / "broken").touch()
    asked = words(
        films, study, "--nnunet.python", str(program), "--trainer", "nnUNetTrainer_5epochs",
        methods="scratch,dynunet,nnunet",
    )  # fmt: skip
    assert radiffuse.cli.main(asked) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(study / "nnunet" / "2-0" / "log.txt") in line
    assert "train ended with exit code 3" in line
    (program.parent / "broken").unlink()
    assert radiffuse.cli.main(asked) == 0
    assert calls(program) == [
        "plan_and_preprocess_entry", "run_training_entry", "run_training_entry", "predict_entry_point"
    ]  # fmt: skip

    table = pd.read_csv(study / "results.csv", dtype={"case": str})
    assert list(dict.fromkeys(table["method"])) == ["scratch", "dynunet", "nnunet"]
    parts = json.loads((study / "data.json").read_text())["split"]
    for _, rows in table.groupby("method"):
        assert set(rows["case"]) == set(parts["test"])
    kept = table[table["method"] == "scratch"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    assert (scratch.model / "model.safetensors").stat().st_mtime_ns == trained

    # DynUNet: all but the network is that of the run from scratch.
    rival = Run.open(study / "runs" / "dynunet-2-0")
    assert rival.plan == scratch.plan
    assert rival.data["split"] == scratch.data["split"]
    assert json.loads((rival.model / "config.json").read_text())["kind"] == "dynunet"
    ours, theirs = (flatten(run.config["settings"]) for run in (scratch, rival))
    both = ours.keys() & theirs.keys()
    assert {name for name in both if ours[name] != theirs[name]} == {"method", "out"}

    # nnU-Net: it had the labels of the budget alone, and what it says is scored as it is.
    raw = study / "nnunet" / "2-0" / "raw" / "Dataset001_radiffuse"
    budget = json.loads((scratch.folder / "splits.json").read_text())["draws"][0][:2]
    assert {p.name for p in (raw / "labelsTr").iterdir()} == {f"{name}.tif" for name in budget}
    assert {p.name for p in (raw / "imagesTs").iterdir()} == {
        f"{n}_0000.tif" for n in parts["test"]
    }
    cases = {case.name: case for case in open_dataset(films, Data())}
    for name in budget:
        written = tifffile.imread(raw / "labelsTr" / f"{name}.tif")
        assert np.array_equal(written, read_case_label(cases[name]).array[0])
    name = parts["test"][0]
    mask = read_case_image(cases[name]).array[0] > 100
    truth = read_case_label(cases[name]).array[0] == 1
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    row = table[(table["method"] == "nnunet") & (table["case"] == name)].iloc[0]
    assert row["dice"] == pytest.approx(dice, abs=1e-6)
    compared = pd.read_csv(study / "comparisons.csv")
    assert set(compared["method"]) == {"dynunet", "nnunet"}
    assert "nnunet" in (study / "report.html").read_text()

    assert radiffuse.cli.main([*asked[:-2], "--trainer", "nnUNetTrainer"]) == 2
    assert "another trainer" in capsys.readouterr().err.splitlines()[-1]
    assert radiffuse.cli.main(asked) == 0
    assert len(calls(program)) == 4  # nothing twice


def test_nnunet_has_the_hours_of_the_study_and_starts_from_a_file(
    films: Path, study: Path, program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "others.pth"
    asked = words(films, study, "--nnunet.python", str(program), methods="scratch,nnunet")
    asked += ["--nnunet.hours", "0.5", "--nnunet.pretrained-weights", str(weights)]
    assert "is no file" in line_of(asked, capsys)
    weights.write_bytes(b"weights")
    (program.parent / "misfit").touch()
    assert radiffuse.cli.main(asked) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(weights) in line
    assert "encoder.stem is missing" in line
    (program.parent / "misfit").unlink()
    assert radiffuse.cli.main(asked) == 0
    trained = [json.loads(line) for line in (program.parent / "calls").read_text().splitlines()]
    assert trained[1][1][-2:] == trained[2][1][-2:] == ["-pretrained_weights", str(weights)]
    code = (program.parent / "code").read_text()
    compile(code, "code", "exec")
    (left,) = re.findall(r"^train_for\(nnUNetTrainer, (.*?), ", code, re.MULTILINE)
    took = json.loads((study / "nnunet" / "2-0" / "seconds.json").read_text())
    assert took.keys() == {"prepare", "train", "predict"}
    # 0.9 of the time is for the work, of which preparation and the first try took some.
    assert 0.9 * 1800 - took["prepare"] - took["train"] - 0.2 <= float(left) < 0.9 * 1800
    assert "start_from(nnunetv2.run.run_training)" in code
    about = json.loads((study / "nnunet" / "nnunet.json").read_text())
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    assert about["hours"] == "0.5"
    assert about["pretrained_weights"] == f"others.pth, SHA-256 {digest}"
    spent = took | {"prepare": 1620.0}  # 0.9 of half an hour
    (study / "nnunet" / "2-0" / "seconds.json").write_text(json.dumps(spent))
    (study / "nnunet" / "2-0" / "train.done").unlink()
    (study / "scores" / "nnunet-2-0" / "cases.csv").unlink()
    assert radiffuse.cli.main(asked) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--nnunet.hours 0.5: gives no time beyond nnU-Net's preparation (162" in said
    asked[asked.index("0.5")] = "0.25"
    assert radiffuse.cli.main(asked) == 2
    assert "another hours" in capsys.readouterr().err.splitlines()[-1]


def test_hours_take_the_place_of_the_steps_that_nobody_gave(tmp_path: Path) -> None:
    seen = []

    class Stop(Exception):
        pass

    def fit(settings: Fit) -> Run:
        seen.append(settings)
        raise Stop

    write_dataset("bitewing", tmp_path / "films", count=8, labelled=True, seed=1, size=(32, 32))
    base = replace(Study().finetune, plan=PlanSettings(size=(32,)), split=Split(test=0.4))
    for changes in (
        {},
        {"hours": 0.1},
        {"hours": 0.1, "training": replace(base.training, steps=9)},
    ):
        given = Study(
            data=str(tmp_path / "films"), out=str(tmp_path / f"{len(seen)}"), labels=(2,), draws=1,
            methods=("scratch",), finetune=replace(base, **changes),
        )  # fmt: skip
        with pytest.raises(Stop):
            run_study(given, lambda settings: Run(tmp_path), fit, lambda settings: tmp_path)
    assert [one.training.steps for one in seen] == [300, None, 9]
    assert [one.hours for one in seen] == [None, 0.1, 0.1]
    for steps in (
        700,
        300,
    ):  # those that nobody gave to image and mask together; those of fine-tuning, given
        own = Study().diffusion
        own = replace(own, hours=0.1, training=replace(own.training, steps=steps))
        drawing = replace(
            given,
            methods=("joint",),
            reference="joint",
            diffusion=own,
            out=str(tmp_path / f"{steps}"),
        )
        with pytest.raises(Stop):
            run_study(drawing, lambda settings: Run(tmp_path), fit, lambda settings: tmp_path)
    assert [one.training.steps for one in seen[3:]] == [None, 300]


def test_imagenet_and_dino_stand_in_a_study_at_several_sizes(tmp_path: Path) -> None:
    write_dataset("bitewing", tmp_path / "films", count=8, labelled=True, seed=1, size=(64, 64))
    base = replace(Study().finetune, plan=PlanSettings(size=(32,)), split=Split(test=0.4))
    given = Study(
        data=str(tmp_path / "films"), out=str(tmp_path / "study"), labels=(2,), draws=1,
        methods=("imagenet", "dino"), sizes=(64, 128), reference="imagenet@64px",
        finetune=replace(base, encoder="dino-folder", dino=Decoding(blocks=(1, 3))),
    )  # fmt: skip
    dataset, splits, _ = open_study(given)
    seen: dict[str, Fit] = {}

    def fit(settings: Fit) -> Run:
        seen[Path(settings.out).name] = settings
        return Run(tmp_path)

    runs = StudyRuns(
        given, dataset, splits, lambda settings: Run(tmp_path), fit, lambda settings: tmp_path
    )
    for variant in variants(given):
        runs.run(variant, 2, 0)
    assert {name: one.plan.size for name, one in seen.items()} == {
        f"{method}{end}-2-0": (side,)
        for method in ("imagenet", "dino")
        for end, side in (("", 32), ("@64px", 64), ("@128px", 128))
    }
    # All else is the same: steps, splits, labels, seed. The encoder is for dino alone, with the blocks that are joined.
    like = seen["imagenet-2-0"]
    for name, one in seen.items():
        dino = name.startswith("dino")
        assert (one.encoder, one.dino.blocks) == ("dino-folder" if dino else None, (1, 3))
        plain = replace(one, plan=like.plan, out=like.out, encoder=None, method="imagenet")
        assert plain == like


def test_programs_that_are_none(
    films: Path, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(films, study, methods="scratch,nnunet")
    assert "--nnunet.python" in line_of(asked, capsys)
    asked.append("--nnunet.python")
    assert "cannot be run" in line_of([*asked, str(tmp_path / "gone")], capsys)
    line = line_of([*asked, sys.executable], capsys)
    assert "cannot import nnunetv2 (ModuleNotFoundError" in line
    assert "pip install nnunetv2" in line
    assert not (study / "nnunet").exists()


def test_dynunet_refuses_a_pretrained_start(
    films: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["fit", str(films), "--method", "dynunet", "--out", str(tmp_path / "r")]
    assert "pre-trained" in line_of([*asked, "--from", str(pretrained)], capsys)
    assert radiffuse.cli.main([*asked, "--size", "64", "--dry-run"]) == 0
    assert "levels of 32, 64, 128, 256, 512 channels" in capsys.readouterr().out
