"""First steps at half the resolution: what they see, that they resume, what they cost, and where they are refused."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from test_loop import BASE, CPU, Killed, Toy, killing, same, trained
from torch import nn

from conftest import line_of
from radiffuse.config import Training
from radiffuse.data.augment import Change
from radiffuse.data.batches import Batch
from radiffuse.data.pool import PooledBatch
from radiffuse.errors import InputError
from radiffuse.train import log
from radiffuse.train.learning_rate import learning_rate
from radiffuse.train.loop import train
from radiffuse.train.random import StepRandom
from radiffuse.train.start_run import start_run
from radiffuse.train.task import Loss

COARSE = dataclasses.replace(BASE, coarse=0.5)
"""Three of six steps."""


class Watched(Toy):
    """Notes the sides of what each step sees."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[int] = []

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        self.sides.append(batch.images.shape[-1])
        return super().loss(network, batch, random)


@pytest.mark.parametrize("dims", [2, 3])
def test_images_are_means_and_labels_those_of_each_voxel_in_turn(dims: int) -> None:
    sides = (4, 6, 2)[:dims]
    labels = torch.arange(3 * 48)[: 3 * torch.Size(sides).numel()].reshape(3, *sides)
    batch = Batch(labels[:, None].float(), labels, ("a", "b", "c"))
    seen = [batch.halved(place) for place in range(2**dims)]
    assert all(torch.equal(one.images, seen[0].images) for one in seen)
    parts = torch.stack([one.labels for one in seen])  # type: ignore[misc]
    assert torch.equal(parts.float().mean(0), seen[0].images[:, 0])
    assert sorted(parts.flatten().tolist()) == labels.flatten().tolist()  # each of them once
    assert torch.equal(batch.halved(2**dims).labels, seen[0].labels)  # type: ignore[arg-type]


def test_the_pool_is_halved_with_the_labelled_images() -> None:
    images, pool = torch.rand(2, 4, 1, 16, 16)
    labels = (images[:, 0] > 0.5).long()
    batch = PooledBatch(images, labels, ("a",) * 4, pool, (Change(None),) * 4, 0.5)
    half = batch.halved(1)
    assert half.pool.shape == half.images.shape == (4, 1, 8, 8)
    assert float(half.pool[2, 0, 3, 5]) == pytest.approx(float(batch.pool[2, 0, 6:8, 10:12].mean()))
    assert (half.changes, half.strength) == (batch.changes, batch.strength)


def test_the_first_steps_alone_see_half(tmp_path: Path) -> None:
    task = Watched()
    trained(tmp_path, COARSE, task)
    assert task.sides == [3, 3, 3, 6, 6, 6]
    plain = Watched()
    trained(tmp_path / "plain", task=plain)
    assert plain.sides == [6] * 6


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_a_killed_run_goes_on_at_the_resolution_of_its_step(tmp_path: Path, stop: int) -> None:
    straight = trained(tmp_path / "straight", COARSE)
    with pytest.raises(Killed), start_run(tmp_path / "run", "toy", {}) as run:
        train(Toy(), killing(stop), run, COARSE, CPU)
    resumed = trained(tmp_path / "run", COARSE)
    same(straight.raw.state_dict(), resumed.raw.state_dict())
    same(straight.average.state_dict(), resumed.average.state_dict())


def test_a_run_with_steps_at_half_is_not_extended(tmp_path: Path) -> None:
    """In twice as many steps the fourth would have been at half the resolution, and was at full."""
    task = Watched()
    trained(tmp_path / "longer", dataclasses.replace(COARSE, steps=12), task)
    assert (task.sides[3], task.sides[6]) == (3, 6)

    def begin(folder: str, steps: int, coarse: float | None) -> None:
        training = {"steps": steps, "coarse": coarse}
        given = {"method": "scratch", "training": training}
        with start_run(tmp_path / folder, "fit", given) as run:
            (run.state / "step-00000006").mkdir(parents=True, exist_ok=True)

    for number, coarse in enumerate((0.0, None)):
        begin(f"plain-{number}", 6, coarse)
        begin(f"plain-{number}", 12, coarse)
    begin("run", 6, 0.5)
    with pytest.raises(InputError, match="steps = 6, not 12"):
        begin("run", 12, 0.5)


def test_the_last_step_is_at_full_resolution() -> None:
    for steps in range(1, 40):
        assert Training(steps=steps, coarse=0.9).coarse_steps < steps


def test_the_time_that_is_left_counts_that_full_steps_take_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps at a quarter of a second are done: two such and four of a second are left."""
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    said: list[str] = []
    monkeypatch.setattr(
        log.ProgressLine, "update", lambda self, done, total, text: said.append(text)
    )
    with start_run(tmp_path, "toy", {}) as run:
        training = dataclasses.replace(BASE, steps=8, coarse=0.5)
        written = log.Log(run, 0, training, main=True)
        for step in (1, 2):
            now[0] += 0.25
            written.add(1.0, {}, 4, step, 4)
        written.close()
    assert said[-1].endswith(f"{log.duration(4.5)} left")


@pytest.mark.parametrize(("stop", "share"), [(None, 1.0), (2, 3.25 / 3.75), (4, 2 / 3.75)])
def test_what_a_resumed_run_took_is_the_work_that_it_did(
    stop: int | None, share: float, tmp_path: Path
) -> None:
    """Three steps of a quarter and three whole ones: two of the latter are more than a third of all."""
    if stop is not None:
        with pytest.raises(Killed), start_run(tmp_path, "toy", {}) as run:
            train(Toy(), killing(stop), run, COARSE, CPU)
    assert trained(tmp_path, COARSE).share == pytest.approx(share)
    assert trained(tmp_path, COARSE).share == 0  # no step was left


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--method", "probe", "--from", "films"], "networks that are trained as a whole"),
        (["--method", "diffusion"], "networks that are trained as a whole"),
        (
            ["--method", "scratch", "--unlabelled", "p", "--pool.teacher", "t"],
            "label the pool label images at full resolution",
        ),
    ],
)
def test_what_cannot_is_refused(
    flags: list[str], words: str, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["fit", str(films), "--out", str(tmp_path), "--training.coarse", "0.5", *flags]
    line = line_of(given, capsys)
    assert "--training.coarse" in line
    assert words in line


@pytest.mark.parametrize("method", ["scratch", "dynunet"])
def test_half_of_a_size_has_to_fit_the_network(
    method: str, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["fit", str(films), "--out", str(tmp_path), "--method", method, "--size", "40"]
    shape = ["--multipliers", "1,1,1,1", "--width", "8"] if method == "scratch" else []
    line = line_of([*given, *shape, "--training.coarse", "0.5", "--steps", "1"], capsys)
    assert "half of the size is 20x20, and the network needs a multiple of 8x8" in line


def test_the_cosine_starts_anew_at_full_resolution() -> None:
    """Worked by hand: 1 to 0 along the first four steps, .5 to 0 along the last four."""
    training = Training(steps=9, coarse=0.45, learning_rate=1.0, decay="cosine")
    assert training.coarse_steps == 4
    rates = [learning_rate(step, training) for step in range(9)]
    cosine = [0.5 + 0.5 * math.cos(math.pi * step / 4) for step in range(5)]
    assert rates == pytest.approx([*cosine[:4], *(0.5 * rate for rate in cosine)])
    late = dataclasses.replace(training, warmup_steps=5, start_learning_rate=0.0)
    assert learning_rate(5, late) == 1.0  # a warm-up that is longer is not cut short
