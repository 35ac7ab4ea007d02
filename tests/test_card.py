"""On a CUDA card: every act learns what the processor learns, resumes, is quick in bfloat16, and predicts alike.

``make gpu`` runs these tests. RADIFFUSE_TEST_DEVICE=cpu runs the same code without a card, to try the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from conftest import SIZE, TINY, pretrain_settings
from radiffuse.config import Machine
from radiffuse.core.timesteps import LossAwareTimesteps
from radiffuse.data.streams import Stream
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.phantoms import write_dataset
from radiffuse.train.device import fixed_order
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.step import Step

DEVICE = os.environ.get("RADIFFUSE_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no card here"),
]
CARD = {"accelerator": DEVICE, "precision": "32-true"}
PROCESSOR = {"accelerator": "cpu", "precision": "32-true"}
OBJECTIVES = ("ddpm", "ddep", "restorative", "contrastive", "masked", "coordinates")
METHODS = ("scratch", "finetune", "dynunet", "imagenet", "pixel", "probe", "diffusion")
CLOSE = {"32-true": 2e-3, "bf16-mixed": 5e-2}
"""Relative difference of losses that arithmetic alone may make."""


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums in a fixed order, and no TensorFloat."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


@pytest.fixture
def draws_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss draws the same noise on either device; by themselves the two draw different numbers."""
    plain = Stream.torch

    def on_processor(self: Stream, seed: int, *place: int, device: Any = "cpu") -> torch.Generator:
        return plain(self, seed, *place)

    def moved(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def drawn(*given: Any, device: Any = None, **named: Any) -> torch.Tensor:
            generator = named.get("generator")
            if generator is None:
                return draw(*given, **named | ({"device": device} if device else {}))
            return draw(*given, **named).to(device or "cpu")

        return drawn

    monkeypatch.setattr(Stream, "torch", on_processor)
    for name in ("rand", "randn", "randint"):
        monkeypatch.setattr(torch, name, moved(getattr(torch, name)))
    monkeypatch.setattr(
        StepRandom, "share", lambda self, whole: whole[self.start : self.stop].to(self.device)
    )


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in run.log() if "loss" in row]


def fit_settings(data: Path, out: Path, method: str, start: Path, **changes: Any) -> dict[str, Any]:
    training = {"steps": 3, "batch_size": 4, "log_every": 1, "validate_every": 0}
    own = {"network": TINY} if method in ("scratch", "diffusion") else {}
    needs = method in ("finetune", "pixel", "probe")
    return {
        "data": data,
        "out": out,
        "method": method,
        "labels": 4,
        "training": training | changes.pop("training", {}),
        "reader": {"cache": str(out.parent / "cache")},
        **({"from_": start} if needs else {"plan": {"size": SIZE}}),
        **own,
        **changes,
    }


@pytest.mark.usefixtures("draws_of_the_processor")
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_learns_what_it_learns_on_the_processor(
    objective: str, unlabelled: Path, tmp_path: Path
) -> None:
    found = {}
    for name, machine in (("card", CARD), ("processor", PROCESSOR)):
        settings = pretrain_settings(
            unlabelled, tmp_path / name, tmp_path / "cache", machine=machine
        )
        network = TINY | ({"multipliers": (1, 2, 2)} if objective == "coordinates" else {})
        settings |= {"objective": objective, "network": network}
        found[name] = losses(radiffuse.pretrain(**settings))
    assert found["card"] == pytest.approx(found["processor"], rel=CLOSE["32-true"])


@pytest.mark.usefixtures("draws_of_the_processor")
@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_what_it_learns_on_the_processor(
    method: str, films: Path, pretrained: Path, tmp_path: Path
) -> None:
    found = {}
    for name, machine in (("card", CARD), ("processor", PROCESSOR)):
        settings = fit_settings(films, tmp_path / name, method, pretrained, machine=machine)
        found[name] = losses(radiffuse.fit(**settings))
    assert found["card"] == pytest.approx(found["processor"], rel=CLOSE["32-true"])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_arithmetic_and_compilation_change_a_loss_by_rounding_alone(
    precision: str, compiled: bool, films: Path, pretrained: Path, tmp_path: Path
) -> None:
    machine = {"accelerator": DEVICE, "precision": precision, "compile": compiled}
    tried = radiffuse.fit(
        **fit_settings(films, tmp_path / "a", "finetune", pretrained, machine=machine)
    )
    plain = radiffuse.fit(
        **fit_settings(films, tmp_path / "b", "finetune", pretrained, machine=CARD)
    )
    assert losses(tried) == pytest.approx(losses(plain), rel=CLOSE[precision])


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unlabelled abdomens of 24 voxels."""
    out = tmp_path_factory.mktemp("volumes")
    write_dataset("abdomen", out, count=6, labelled=False, seed=2, size=(24, 24, 24))
    return out


class Killed(Exception):
    pass


def killed(self: Step, batch: Any, number: int) -> tuple[float, dict[str, float]]:
    """A step, unless it is the third, at which the training ends as if killed."""
    if number == 2:
        raise Killed
    return take_step(self, batch, number)


take_step = Step.__call__


def resumed_alike(act: Callable[..., Run], settings: dict[str, Any], patch: Any) -> bool:
    """Whether a run that was killed and goes on ends with the weights of one that was not."""
    straight = act(**settings | {"out": settings["out"].parent / "straight"})
    with patch.context() as here:
        here.setattr(Step, "__call__", killed)
        with pytest.raises(Killed):
            act(**settings)
    resumed = act(**settings)
    one, other = (load_network(run.model).state_dict() for run in (straight, resumed))
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_resumes_bit_for_bit(
    method: str, films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fit_settings(
        films, tmp_path / "run", method, pretrained, machine=CARD | {"deterministic": True},
        training={"checkpoint_every": 1},
    )  # fmt: skip
    assert resumed_alike(radiffuse.fit, settings, monkeypatch)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_pretraining_on_volumes_resumes_bit_for_bit_or_says_what_it_cannot(
    objective: str, precision: str, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = CARD | {"precision": precision, "deterministic": True}
    settings = pretrain_settings(volumes, tmp_path / "run", tmp_path / "cache", machine=machine)
    network = TINY | ({"multipliers": (1, 2, 2)} if objective == "coordinates" else {})
    settings |= {"objective": objective, "network": network, "plan": {"size": (16, 16, 16)}}
    settings["training"] = settings["training"] | {"checkpoint_every": 1, "steps": 3}
    if objective == "contrastive" and DEVICE == "cuda":
        with pytest.raises(
            InputError, match=r'machine={"deterministic": ...}: grid_sampler_3d_backward'
        ):
            radiffuse.pretrain(**settings)
    else:
        assert resumed_alike(radiffuse.pretrain, settings, monkeypatch)


@pytest.mark.parametrize("grid", [None, (64, 64)])
def test_masks_are_those_of_the_processor(
    grid: tuple[int, int] | None, films: Path, pretrained: Path, tmp_path: Path
) -> None:
    settings = fit_settings(films, tmp_path / "run", "scratch", pretrained, machine=CARD)
    settings["plan"] |= {"grid": grid}
    run = radiffuse.fit(**settings | {"training": {"steps": 30, "batch_size": 4}})
    masks = {}
    for name, machine in (("card", CARD), ("processor", PROCESSOR)):
        out = tmp_path / name
        radiffuse.predict(runs=run.folder, data=films, out=out, cases="test", machine=machine)
        masks[name] = np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])
    assert (masks["card"] == masks["processor"]).mean() > 0.999
    assert masks["card"].any()


def test_loss_aware_timesteps_are_drawn_in_a_fixed_order() -> None:
    sampler, device = LossAwareTimesteps(1000), torch.device(DEVICE)
    with fixed_order(Machine(deterministic=True), device):
        one, other = (sampler.draw(64, Stream.STEP.torch(0, 1, device=device))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert len(one.unique()) > 32


def test_a_step_that_does_not_fit_goes_on_in_smaller_passes(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if DEVICE != "cuda":
        pytest.skip("needs the memory of a card")
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 5 * 2**30 / memory))
    try:
        settings = fit_settings(films, tmp_path / "run", "scratch", films, machine=CARD)
        settings |= {"network": {"preset": "small"}, "plan": {"size": (256, 256)}}
        run = radiffuse.fit(
            **settings | {"training": {"steps": 2, "batch_size": 32, "log_every": 1}}
        )
        assert len(losses(run)) == 2
        assert "32 images at a time do not fit into memory" in capsys.readouterr().err
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
