"""Learning to segment: where the network comes from, what the losses count, what is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import radiffuse
from conftest import TINY
from radiffuse.config import (
    IGNORE,
    Diffusion,
    Finetuning,
    Fit,
    Network,
    PlanSettings,
    resolve_network,
)
from radiffuse.data.batches import Batch
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.pixel import PixelClassifier
from radiffuse.nets.registry import load_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.objectives import method_of
from radiffuse.objectives.pixel import PixelClassification
from radiffuse.objectives.segmentation import new_segmenter
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.start import Start, as_unet, diffusion_of, load_pretrained

CLASSES = ("background", "a", "b")
PLAN = Plan(2, ("image",), CLASSES, (32, 32))
SETTINGS = Fit(data="d", out="o", network=Network(**TINY))  # type: ignore[arg-type]


def settings(films: Path, tmp_path: Path, **changes: object) -> dict[str, object]:
    return {
        "data": films,
        "out": tmp_path / "run",
        "method": "finetune" if "from_" in changes else "scratch",
        "network": TINY,
        "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2},
        "training": {"steps": 2, "batch_size": 2, "log_every": 1},
        "reader": {"cache": str(tmp_path / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


def random(total: int, start: int = 0, stop: int | None = None, step: int = 0) -> StepRandom:
    device = torch.device("cpu")
    return StepRandom(0, step, total=total, start=start, stop=stop or total, device=device)


def start(run: Run, weights: str = "average") -> Start:
    return Start(
        run, as_unet(load_pretrained(run, weights), run), diffusion_of(run), True, run.plan
    )


def test_from_scratch_is_the_same_network_with_other_weights(pretrained: Path) -> None:
    scratch = new_segmenter(SETTINGS, PLAN, None)
    tuned = new_segmenter(SETTINGS, PLAN, start(Run.open(pretrained)))
    assert isinstance(scratch, SegmentingUNet)
    assert isinstance(tuned, SegmentingUNet)
    assert scratch.to_config() == tuned.to_config()
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (scratch, tuned)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(
        scratch.unet.state_dict()["up.0.block.conv1.weight"],
        tuned.unet.state_dict()["up.0.block.conv1.weight"],
    )


@pytest.mark.parametrize("weights", ["average", "raw"])
def test_the_chosen_weights_are_taken_over(pretrained: Path, weights: str) -> None:
    network = new_segmenter(SETTINGS, PLAN, start(Run.open(pretrained), weights))
    source = load_network(pretrained / "model", "raw" if weights == "raw" else "model")
    own = network.unet.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(own[name], value), name


def test_the_start_depends_on_the_seed(pretrained: Path) -> None:
    def head(seed: int, source: Run | None) -> Tensor:
        training = dataclasses.replace(SETTINGS.training, seed=seed)
        before = None if source is None else start(source)
        chosen = dataclasses.replace(SETTINGS, training=training)
        return new_segmenter(chosen, PLAN, before).unet.head.weight

    for source in (None, Run.open(pretrained)):
        assert torch.equal(head(0, source), head(0, source))
        assert not torch.equal(head(0, source), head(1, source))


@pytest.mark.parametrize("timestep", [1000, -1])
def test_a_timestep_that_the_network_does_not_know(pretrained: Path, timestep: int) -> None:
    chosen = dataclasses.replace(SETTINGS, finetune=Finetuning(timestep=timestep))
    with pytest.raises(InputError, match="timesteps 0 to 999"):
        new_segmenter(chosen, PLAN, start(Run.open(pretrained)))


@pytest.mark.parametrize(
    "method", ["finetune", "pixel", "probe", "scratch", "dynunet", "imagenet", "dino"]
)
def test_a_method_says_whether_it_needs_a_pretrained_run(method: str) -> None:
    needs = method in ("finetune", "pixel", "probe")
    given = dataclasses.replace(SETTINGS, encoder="dino" if method == "dino" else None)
    word = "needs a pre-trained network" if needs else "cannot start from a pre-trained run"
    chosen = dataclasses.replace(given, method=method)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"--method {method}: {word}"):
        method_of(dataclasses.replace(chosen, from_run=None if needs else "runs/pre"))
    method_of(dataclasses.replace(chosen, from_run="runs/pre" if needs else None))


def test_a_segmenter_is_no_pretrained_denoiser(films: Path, tmp_path: Path) -> None:
    run = radiffuse.fit(**settings(films, tmp_path, labels=1))
    with pytest.raises(InputError, match="not a pre-trained denoiser"):
        start(run)


def test_budget_draw_and_parts_are_kept_with_the_run(films: Path, tmp_path: Path) -> None:
    run = radiffuse.fit(**settings(films, tmp_path, labels=2, draw=3))
    data, splits = (
        json.loads((run.folder / name).read_text()) for name in ("data.json", "splits.json")
    )
    assert data["split"]["train"] == splits["draws"][3][:2]
    assert data["split"]["validation"] == splits["validation"]
    assert data["cases"] == 2 + len(splits["validation"])
    assert not set(splits["test"]) & set(data["split"]["train"] + data["split"]["validation"])
    assert (run.folder / "validation" / "cases.csv").exists()


def test_the_pretrained_plan_is_taken_over(films: Path, pretrained: Path, tmp_path: Path) -> None:
    chosen = settings(films, tmp_path, from_=pretrained, labels=1, plan={}, network={})
    run = radiffuse.fit(**chosen)
    recorded = run.config["settings"]
    assert recorded["plan"]["size"] == [32, 32]
    assert {k: v for k, v in recorded["network"].items() if k in TINY} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in (TINY | {"preset": None}).items()
    }
    before = Run.open(pretrained).plan
    assert run.plan.treatment == before.with_classes(run.plan.classes).treatment
    assert len(run.plan.classes) > 1


def test_steps_for_a_class_that_is_not_there_are_not_taken_over(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    start = Path(shutil.copytree(pretrained, tmp_path / "start"))
    plan = json.loads((start / "plan.json").read_text())
    plan["postprocess"] = ["1=largest", "9=fill", "drop:3"]
    (start / "plan.json").write_text(json.dumps(plan))
    run = radiffuse.fit(**settings(films, tmp_path, from_=start, labels=1, plan={}, network={}))
    assert 1 < len(run.plan.classes) <= 9
    assert run.plan.postprocess == ("1=largest", "drop:3")


def test_unlabelled_data_is_refused(unlabelled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled image"):
        radiffuse.fit(**settings(unlabelled, tmp_path))


def test_a_network_of_ones_own_needs_a_loss_with_a_term(films: Path, tmp_path: Path) -> None:
    given = settings(films, tmp_path, cross_entropy=0, dice=0, network=lambda plan: nn.Identity())
    with pytest.raises(InputError, match="^loss: has no term"):
        radiffuse.fit_custom(**given)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "custom", "words"),
    [
        (33, {"network": lambda plan: nn.Conv2d(1, 3, 1)}, "half of the size is 16.5x16.5"),
        (40, {"loss": lambda logits, labels: logits.mean()}, "needs a multiple of 8x8"),
    ],
)
def test_half_of_the_size_has_to_be_one_for_what_is_ones_own_too(
    size: int, custom: dict[str, Any], words: str, films: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        radiffuse.fit_custom(
            data=films, out=tmp_path / "run", size=size, coarse=0.5, steps=2, batch_size=2,
            width=8, multipliers=(1, 1, 1, 1), cache=tmp_path / "cache", accelerator="cpu", **custom,
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------- pixels


def pixel_classifier() -> PixelClassifier:
    unet = resolve_network(SETTINGS.network, spatial_dims=2, in_channels=1, out_channels=1)
    denoiser = UNet(unet)
    denoiser.initialize(torch.Generator().manual_seed(0))
    return PixelClassifier(denoiser, Diffusion(), 3, voters=2)


def test_probing_trains_the_voters_alone(films: Path, pretrained: Path, tmp_path: Path) -> None:
    run = radiffuse.fit(**settings(films, tmp_path, from_=pretrained, labels=2, method="pixel"))
    network, source = load_network(run.model), load_network(pretrained / "model")
    assert isinstance(network, PixelClassifier)
    for name, value in source.state_dict().items():
        assert torch.equal(network.denoiser.state_dict()[name], value), name
    start = PixelClassifier(source, Diffusion(), len(run.plan.classes))  # type: ignore[arg-type]
    changed = [
        not torch.equal(a, b)
        for a, b in zip(start.voters.parameters(), network.voters.parameters(), strict=True)
    ]
    assert any(changed)


def test_probing_never_chooses_an_ignored_pixel_while_there_are_others() -> None:
    network = pixel_classifier()
    labels = torch.full((2, 16, 16), IGNORE)
    labels[0, 3:5] = 1
    labels[1, 9:11] = 2
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    batch = Batch(torch.zeros(2, 1, 16, 16), labels, ("a", "b"))
    value = PixelClassification(network, pixels=32).loss(network, batch, random(2)).value
    assert value.isfinite()
    chosen = labels.flatten(1).gather(1, seen[0])
    assert (chosen != IGNORE).all()
    assert all(len(row.unique()) == 32 for row in seen[0])


def test_an_image_without_any_label_does_not_break_probing() -> None:
    network = pixel_classifier()
    batch = Batch(torch.zeros(2, 1, 16, 16), torch.full((2, 16, 16), IGNORE), ("a", "b"))
    value = PixelClassification(network, pixels=32).loss(network, batch, random(2)).value
    value.backward()
    assert float(value.detach()) == 0


def test_a_scratch_run_resumes_its_own_plan(films: Path, tmp_path: Path) -> None:
    first = settings(films, tmp_path, labels=1)
    run = radiffuse.fit(**first)
    before = (run.folder / "model/model.safetensors").read_bytes()
    radiffuse.fit(**first)
    assert (run.folder / "model/model.safetensors").read_bytes() == before
    assert PlanSettings(size=(32, 32)).size == run.plan.size
