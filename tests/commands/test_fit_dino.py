"""``fit --method dino``: from an encoder to masks, resumed, handed on as one folder, exported, and in a study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import radiffuse
from conftest import TINY, line_of
from radiffuse.cli import main
from radiffuse.nets.encoder import load_encoder
from radiffuse.nets.registry import load_network
from radiffuse.objectives.consistency import FeatureDropout
from radiffuse.release.program import trace, verify_program
from radiffuse.train.run import Run

CPU = {"accelerator": "cpu", "precision": "32-true"}


def settings(films: Path, out: Path, encoder: Path) -> dict[str, object]:
    return {
        "data": films,
        "method": "dino",
        "encoder": encoder,
        "labels": 2,
        "out": out,
        "dino": {"width": 16},
        "plan": {"size": (32, 32)},
        "training": {
            "steps": 4,
            "batch_size": 2,
            "validate_every": 0,
            "checkpoint_every": 2,
            "keep_state": True,
        },
        "machine": CPU,
    }


@pytest.fixture(scope="module")
def encoder(synthesizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage of a synthesizer alone: a DINO of the project's own, one block at a patch of 4 pixels."""
    return Path(shutil.copytree(synthesizer / "encoder", tmp_path_factory.mktemp("own") / "dino"))


@pytest.fixture(scope="module")
def decoded(films: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("decoded") / "run"
    return radiffuse.fit(**settings(films, out, encoder)).folder


def test_the_decoder_learns_and_the_encoder_does_not(decoded: Path, encoder: Path) -> None:
    network = load_network(decoded / "model")
    given = load_encoder(str(encoder)).state_dict()
    kept = network.encoder.state_dict()  # type: ignore[union-attr]
    assert given.keys() == kept.keys()
    assert all(torch.equal(given[name], kept[name]) for name in given)
    losses = [row["loss"] for row in Run.open(decoded).log() if "loss" in row]
    assert losses
    first, last = (
        load_file(decoded / f"state/step-0000000{step}/network.safetensors") for step in (2, 4)
    )
    moved = {name for name in first if not torch.equal(first[name], last[name])}
    assert moved == {name for name in first if not name.startswith("encoder.")}


def test_a_stopped_run_ends_the_same(
    films: Path, decoded: Path, encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stopped"
    shutil.copytree(decoded, out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "state" / "step-00000004")
    radiffuse.fit(**settings(films, out, encoder))
    for run in (out, decoded):
        assert (run / "model/model.safetensors").is_file()
    one, two = (load_file(run / "model/model.safetensors") for run in (out, decoded))
    assert all(torch.equal(one[name], two[name]) for name in two)


def test_it_learns_from_a_pool_with_its_encoder_frozen_and_goes_on_bit_for_bit(
    films: Path,
    unlabelled: Path,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dropped: list[torch.Size] = []
    apply = FeatureDropout.__call__

    def watched(self: FeatureDropout, *given: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = apply(self, *given)
        if self.kept is not None and given[0].training:
            dropped.append(features.shape)
        return features

    monkeypatch.setattr(FeatureDropout, "__call__", watched)

    def fit(name: str) -> Run:
        given = settings(films, tmp_path / name, encoder)
        return radiffuse.fit(**given | {"unlabelled": (str(unlabelled),), "pool": {"start": 0.25}})

    straight = fit("straight")
    assert dropped == 3 * [(2, 16, 8, 8)]  # at the grid of the patches, in the pool's steps
    shutil.copytree(straight.folder, tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "model")
    shutil.rmtree(tmp_path / "resumed" / "state" / "step-00000004")
    resumed = fit("resumed")
    for name in ("average", "network", "optimizer"):
        files = [r.state / f"step-00000004/{name}.safetensors" for r in (straight, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
    rows = [row for row in straight.log() if "loss" in row]
    assert "pool" in rows[-1]
    given, kept = load_encoder(str(encoder)).state_dict(), load_network(straight.model).state_dict()
    assert all(torch.equal(given[name], kept[f"encoder.{name}"]) for name in given)


def test_a_run_predicts_without_the_folder_of_its_encoder(
    films: Path, decoded: Path, encoder: Path, tmp_path: Path
) -> None:
    def masks(run: Path, name: str) -> dict[str, bytes]:
        out = radiffuse.predict(
            runs=run, data=films, out=tmp_path / name, cases="test", machine=CPU
        )
        return {path.name: path.read_bytes() for path in out.glob("*.png")}

    before = masks(decoded, "before")
    moved = Path(shutil.copytree(decoded, tmp_path / "elsewhere"))
    hidden = encoder.rename(encoder.with_name("hidden"))
    try:
        assert masks(moved, "after") == before
        assert before
    finally:
        hidden.rename(encoder)


def test_it_is_exported(decoded: Path, tmp_path: Path) -> None:
    traced = trace(Run.open(decoded))
    assert verify_program(traced, traced.program.module(), "dino") < 1e-5
    out = radiffuse.export(run=decoded, format="torch-export", out=tmp_path / "pt2")
    assert (out / "model.pt2").is_file()


def test_a_synthesizer_is_an_encoder_too(synthesizer: Path, encoder: Path) -> None:
    whole, stage = load_encoder(str(synthesizer)), load_encoder(str(encoder))
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), stage.state_dict().values(), strict=True)
    )


def test_a_dry_run_tells_blocks_and_patches(
    films: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(films), "--method", "dino", "--out", str(tmp_path / "run")]
    command += ["--size", "32", "--steps", "1", "--batch-size", "2", "--dry-run"]
    assert main([*command, "--encoder", str(encoder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"light decoder on blocks 0 of {encoder} at 32 x 32: 8 x 8 patches of 4 pixels" in shown
    assert "needs a DINO encoder" in line_of(command, capsys)
    line = line_of([*command, "--encoder", str(encoder), "--dino.blocks", "7"], capsys)
    assert "blocks 7: choose from 0 to 0" in line


def test_a_study_has_it_as_a_row(
    films: Path, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune = {
        "dino": {"width": 16},
        "network": TINY,
        "plan": {"size": (32, 32)},
        "training": {"steps": 1, "batch_size": 2},
        "machine": CPU,
    }
    command = ["study", str(films), "--methods", "scratch,dino", "--out", str(tmp_path / "s")]
    assert "--methods dino: needs a DINO encoder" in line_of(command, capsys)
    out = tmp_path / "study"
    radiffuse.study(
        data=films,
        out=out,
        methods=("scratch", "dino"),
        labels=(2,),
        draws=1,
        finetune=finetune | {"encoder": str(encoder)},
    )
    assert set(pd.read_csv(out / "results.csv")["method"]) == {"scratch", "dino"}
    assert "encoder" not in (out / "runs/scratch-2-0/config.yaml").read_text()
