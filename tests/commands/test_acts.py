"""The acts from end to end, on tiny data: they run, resume bit for bit, and refuse what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import radiffuse
from conftest import TINY, pretrain_settings
from radiffuse.data.batches import Batches
from radiffuse.errors import InputError, TrainingDiverged
from radiffuse.nets.registry import load_network
from radiffuse.train.run import Run


def finetune_settings(data: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    training = {
        "steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "validate_every": 2,
    }
    return {
        "data": data,
        "out": out,
        "method": "finetune" if "from_" in changes else "scratch",
        "network": TINY,
        "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2},
        "training": training | dict(changes.pop("training", {})),  # type: ignore[call-overload]
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


class Killed(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    whole = Batches.__call__

    def until(self: Batches, now: int, rank: int = 0, world: int = 1) -> object:
        if now == step:
            raise Killed
        return whole(self, now, rank, world)

    monkeypatch.setattr(Batches, "__call__", until)


def same_tensors(first: Path, second: Path) -> None:
    a, b = load_file(first), load_file(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_pretraining_resumes_bit_for_bit(
    unlabelled: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            radiffuse.pretrain(**settings)
    assert not Run.open(tmp_path / "run").finished
    radiffuse.pretrain(**settings)
    for part in ("network", "average", "optimizer"):
        name = f"step-00000004/{part}.safetensors"
        same_tensors(tmp_path / "run" / "state" / name, pretrained / "state" / name)
    same_tensors(tmp_path / "run/model/model.safetensors", pretrained / "model/model.safetensors")
    losses = [
        [row["loss"] for row in Run.open(run).log() if "loss" in row]
        for run in (tmp_path / "run", pretrained)
    ]
    assert losses[0] == losses[1]


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("method", ["finetune", "pixel"])
def test_finetuning_resumes_bit_for_bit(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for name in ("straight", "resumed"):
        settings = finetune_settings(
            films, tmp_path / name, tmp_path / "cache", from_=pretrained, labels=2, method=method
        )
        if name == "resumed":
            with monkeypatch.context() as patch:
                kill_at(patch, 3)
                with pytest.raises(Killed):
                    radiffuse.fit(**settings)
        radiffuse.fit(**settings)
    model = "model/model.safetensors"
    same_tensors(tmp_path / "straight" / model, tmp_path / "resumed" / model)
    assert (tmp_path / "straight" / "report.html").stat().st_size > 10_000


def test_micro_batches_see_what_one_pass_sees(unlabelled: Path, tmp_path: Path) -> None:
    losses = []
    for micro in (None, 2):
        settings = pretrain_settings(
            unlabelled,
            tmp_path / f"run-{micro}",
            tmp_path / "cache",
            training={"steps": 2, "micro_batch": micro},
        )
        run = radiffuse.pretrain(**settings)
        losses.append([row["loss"] for row in run.log() if "loss" in row])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_fine_tuned_network_starts_as_the_pretrained_one(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    radiffuse.fit(
        **finetune_settings(
            films,
            tmp_path / "run",
            tmp_path / "cache",
            from_=pretrained,
            labels=1,
            training={"steps": 1, "learning_rate": 0.0, "warmup_steps": 0, "validate_every": 0},
        )
    )
    segmenter, denoiser = load_network(tmp_path / "run/model"), load_network(pretrained / "model")
    tuned = {k.removeprefix("unet."): v for k, v in segmenter.state_dict().items()}
    for name, value in denoiser.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(tuned[name], value), name
    assert tuned["head.weight"].shape[0] == len(Run.open(tmp_path / "run").plan.classes)


def test_a_loss_that_is_not_finite_names_step_and_cases(unlabelled: Path, tmp_path: Path) -> None:
    settings = pretrain_settings(
        unlabelled,
        tmp_path / "run",
        tmp_path / "cache",
        training={"steps": 30, "learning_rate": 1e30, "gradient_clip": None},
    )
    with pytest.raises(TrainingDiverged, match=r"step \d+ \(cases bitewing-.*checkpoint"):
        radiffuse.pretrain(**settings)


def test_other_settings_are_refused_by_name(
    unlabelled: Path, pretrained: Path, tmp_path: Path
) -> None:
    settings = pretrain_settings(unlabelled, pretrained, tmp_path, training={"learning_rate": 0.5})
    with pytest.raises(InputError, match=r"training\.learning_rate = 0\.0001, not 0\.5"):
        radiffuse.pretrain(**settings)


def test_a_truncated_checkpoint_falls_back(
    unlabelled: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pretrained, tmp_path / "run")
    settings = pretrain_settings(unlabelled, tmp_path / "run", pretrained.parent / "cache")
    newest = tmp_path / "run/state/step-00000004/network.safetensors"
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "run/model/config.json").unlink()
    radiffuse.pretrain(**settings)
    assert "step-00000004: is damaged" in capsys.readouterr().err
    assert newest.read_bytes() == whole


def test_predict_and_evaluate(films: Path, pretrained: Path, tmp_path: Path) -> None:
    radiffuse.fit(
        **finetune_settings(films, tmp_path / "run", tmp_path / "cache", from_=pretrained)
    )
    out = radiffuse.predict(runs=tmp_path / "run", data=films, cases="test", out=tmp_path / "masks")
    masks = sorted(out.glob("*.png"))
    assert len(masks) == 5
    before = [mask.stat().st_mtime_ns for mask in masks]
    radiffuse.predict(runs=tmp_path / "run", data=films, cases="test", out=tmp_path / "masks")
    assert [mask.stat().st_mtime_ns for mask in masks] == before
    radiffuse.evaluate(masks=out, truth=films, out=tmp_path / "scores")
    table = pd.read_csv(tmp_path / "scores/cases.csv")
    assert table["case"].nunique() == 5
    assert table["dice"].dropna().between(0, 1).all()
    truth = radiffuse.evaluate(masks=films / "labels", truth=films, out=tmp_path / "perfect")
    assert (pd.read_csv(truth / "cases.csv")["dice"].dropna() == 1).all()


def test_a_volume_run_keeps_an_oblique_affine(tmp_path: Path) -> None:
    import nibabel

    rng = np.random.default_rng(0)
    for i in range(4):
        array = rng.normal(0, 100, (20, 18, 24)).astype(np.int16)
        label = np.zeros(array.shape, np.uint8)
        label[5:12, 4:10, 6:16] = 1
        array[label > 0] += 500
        affine = np.diag([-2.0, 1.5, 2.5, 1.0])
        affine[:3, :3] = affine[:3, [1, 2, 0]]
        affine[:3, 3] = (10, -20, 30)
        for kind, data in (("images", array), ("labels", label)):
            (tmp_path / "ct" / kind).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(data, affine).to_filename(
                tmp_path / "ct" / kind / f"case{i}.nii.gz"
            )
    settings = finetune_settings(
        tmp_path / "ct", tmp_path / "run", tmp_path / "cache", plan={"size": (16, 16, 16)}
    )
    radiffuse.fit(**settings)
    radiffuse.predict(runs=tmp_path / "run", data=tmp_path / "ct", out=tmp_path / "masks")
    mask = nibabel.load(tmp_path / "masks/case0.nii.gz")
    image = nibabel.load(tmp_path / "ct/images/case0.nii.gz")
    assert mask.shape == image.shape
    np.testing.assert_allclose(mask.affine, image.affine)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}


def test_study_compares_all_methods_and_does_nothing_twice(
    films: Path, unlabelled: Path, pretrained: Path, tmp_path: Path
) -> None:
    tiny = finetune_settings(Path(), Path(), tmp_path / "cache", training={"steps": 2})
    pre = pretrain_settings(Path(), Path(), tmp_path / "cache", training={"steps": 2})
    for settings in (tiny, pre):
        del settings["data"], settings["out"]
    del tiny["method"], tiny["training"]["validate_every"]  # type: ignore[attr-defined]
    arguments = {
        "data": films,
        "unlabelled": unlabelled,
        "from_": pretrained,
        "methods": ("scratch", "finetune", "pixel", "ddep", "pseudo-labels"),
        "labels": (1,),
        "draws": 1,
        "pseudo_labels": 8,
        "out": tmp_path / "study",
        "finetune": tiny,
        "pretrain": pre,
    }
    radiffuse.study(**arguments)
    table = pd.read_csv(tmp_path / "study/results.csv")
    counts = table.groupby(["method", "labels", "draw"])["case"].nunique()
    assert len(counts) == 5
    assert (counts == 5).all()
    assert (tmp_path / "study/comparisons.csv").exists()
    assert len(list((tmp_path / "study/drawn/0").glob("*.png"))) == 8
    models = sorted((tmp_path / "study/runs").glob("*/model/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in models]
    radiffuse.study(**arguments)
    assert [path.stat().st_mtime_ns for path in models] == before
    with pytest.raises(InputError, match=r"study\.yaml: was written with other settings of parts"):
        radiffuse.study(**arguments | {"parts": ("validation",)})
