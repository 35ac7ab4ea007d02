"""On a CUDA card: every act learns what the processor learns, resumes, is quick in bfloat16, and predicts alike.

``make gpu`` runs these tests. RADIFFUSE_TEST_DEVICE=cpu runs the same code without a card, to try the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from conftest import SIZE, TINY, pretrain_settings
from radiffuse.config import Machine, Training
from radiffuse.nets.registry import load_network
from radiffuse.train.loop import train
from radiffuse.train.run import Run

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


@pytest.mark.parametrize("method", ["finetune", "diffusion"])
def test_a_run_resumes_bit_for_bit(
    method: str, films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def killed(task: Any, batches: Any, run: Run, training: Training, machine: Machine) -> Any:
        def until(step: int, *ranks: int) -> Any:
            if step == 2:
                raise Killed
            return batches(step, *ranks)

        return train(task, until, run, training, machine)

    settings = fit_settings(
        films, tmp_path / "run", method, pretrained, machine=CARD, training={"checkpoint_every": 1}
    )
    straight = radiffuse.fit(**settings | {"out": tmp_path / "straight"})
    with monkeypatch.context() as patch:
        patch.setattr("radiffuse.train.act.train", killed)
        with pytest.raises(Killed):
            radiffuse.fit(**settings)
    resumed = radiffuse.fit(**settings)
    one, other = (load_network(run.model).state_dict() for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


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


def test_a_step_that_does_not_fit_goes_on_in_smaller_passes(films: Path, tmp_path: Path) -> None:
    if DEVICE != "cuda":
        pytest.skip("needs the memory of a card")
    memory = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 1.5 * 2**30 / memory))
    try:
        settings = fit_settings(films, tmp_path / "run", "scratch", films, machine=CARD)
        settings |= {"network": {"preset": "small"}, "plan": {"size": (256, 256)}}
        run = radiffuse.fit(
            **settings | {"training": {"steps": 2, "batch_size": 32, "log_every": 1}}
        )
        assert len(losses(run)) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
