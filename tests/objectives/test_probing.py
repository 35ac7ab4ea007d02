"""Probing a pre-trained run: the training, its sweep, prediction by head, resume, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import radiffuse
from radiffuse.config import Probing
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.objectives.probing import heads
from radiffuse.train.run import Run
from radiffuse.train.start import load_denoiser


def settings(films: Path, pretrained: Path, out: Path, **changes: object) -> dict[str, object]:
    return {
        "data": films,
        "from_run": str(pretrained),
        "out": out,
        "method": "probe",
        "timesteps": (5, 10),
        "width": 8,
        "split": {"test": 0.4, "validation": 0.2},
        "training": {"steps": 4, "batch_size": 2, "log_every": 1, "checkpoint_every": 2},
        "reader": {"cache": str(out.parent / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


@pytest.mark.usefixtures("drawn")
def test_a_sweep_ends_in_one_table_and_any_head_segments(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    run = radiffuse.fit(
        **settings(films, pretrained, tmp_path / "run", sweep=("clean", 30), sweep_levels=True)
    )
    table = pd.read_csv(run.folder / "sweep.csv")
    names = {"nonlinear", "nonlinear@t=clean", "nonlinear@level.0", "linear@t=30", "linear@middle"}
    assert names < set(table["head"])
    assert set(table["size"]) <= {"small", "medium", "big"}
    assert table["dice"].between(0, 1).all()
    assert set(table.loc[table["head"] == "linear", "timesteps"]) == {"5 10"}
    page = (run.folder / "report.html").read_text()
    assert "Heads" in page
    assert "one timestep alone" in page
    before = load_denoiser(Run.open(pretrained)).state_dict()
    after = load_network(run.model).denoiser.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())  # type: ignore[operator]
    masks = [
        radiffuse.predict(
            runs=(str(run.folder),), data=films, out=tmp_path / (head or "main"), head=head
        )
        for head in (None, "nonlinear", "linear")
    ]
    main, nonlinear, linear = (
        [path.read_bytes() for path in sorted(folder.glob("*.png"))] for folder in masks
    )
    assert main == nonlinear != linear
    with pytest.raises(InputError, match="Heads are: nonlinear, linear, nonlinear@t=clean"):
        radiffuse.predict(runs=(str(run.folder),), data=films, out=tmp_path / "x", head="deep")


def test_a_resumed_run_is_bit_identical(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radiffuse.train import loop

    straight = radiffuse.fit(**settings(films, pretrained, tmp_path / "a"))
    original = loop.save_checkpoint

    def killed(folder: Path, checkpoint: object) -> None:
        original(folder, checkpoint)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        radiffuse.fit(**settings(films, pretrained, tmp_path / "b"))
    monkeypatch.setattr(loop, "save_checkpoint", original)
    resumed = radiffuse.fit(**settings(films, pretrained, tmp_path / "b"))
    one, other = (load_file(run.model / "model.safetensors") for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_older_run_of_an_unguided_network_is_still_that_of_its_command(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    quick = {"steps": 1, "batch_size": 2, "validate_every": 0}
    given = settings(films, pretrained, tmp_path / "run", labels=2, training=quick)
    run = radiffuse.fit(**given)
    record = run.folder / "config.yaml"
    content = yaml.safe_load(record.read_text())
    assert content["settings"]["probe"].pop("coordinates") is False
    record.write_text(yaml.safe_dump(content))
    weights = (run.model / "model.safetensors").read_bytes()
    radiffuse.fit(**given)
    assert (run.model / "model.safetensors").read_bytes() == weights


def test_a_network_that_knows_no_noise_sees_the_clean_image(pretrained: Path) -> None:
    denoiser = load_denoiser(Run.open(pretrained))
    chosen = Probing(timesteps=(10, 20), sweep=(1, "clean"))
    for given in (Probing(), Probing(timesteps=(0,)), Probing(timesteps=("clean",))):
        assert [h.timesteps for h in heads(given, denoiser, clean=True)] == [(0,), (0,)]
    for name, value in {"timesteps": ("clean", 20), "sweep": (1, 5), "noise_draws": 2}.items():
        given = dataclasses.replace(Probing(), **{name: value})  # type: ignore[arg-type]
        with pytest.raises(
            InputError, match=f"^--probe.{name.replace('_', '-')}: .* knows no timesteps"
        ):
            list(heads(given, denoiser, clean=True))
    assert [h.timesteps for h in heads(chosen, denoiser, clean=False)][:3] == [
        (10, 20),
        (10, 20),
        (1,),
    ]
    fewer = dataclasses.replace(chosen, levels=("middle", "0"), sweep=())
    assert {h.taps for h in heads(fewer, denoiser, clean=False)} == {("middle", "level.0")}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"timesteps": (1000,)}, "go from 0 to"),
        ({"timesteps": ("clear",)}, "whole numbers or clean"),
        ({"sweep": ("clean", -1)}, "out of range"),
        ({"levels": ("9",)}, "choose from middle, level.1, level.0"),
        ({"from_run": "nowhere"}, "neither a run nor shipped weights"),
        ({"heads": ("nonlinear", "nonlinear")}, "names of their own"),
    ],
)
def test_what_does_not_fit_is_refused(
    films: Path, pretrained: Path, tmp_path: Path, change: dict[str, object], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        radiffuse.fit(**settings(films, pretrained, tmp_path / "run", **change))


def test_a_segmenter_is_no_source(films: Path, pretrained: Path, tmp_path: Path) -> None:
    run = radiffuse.fit(**settings(films, pretrained, tmp_path / "run"))
    with pytest.raises(InputError, match="not a pre-trained denoiser"):
        radiffuse.fit(**settings(films, run.folder, tmp_path / "other"))
