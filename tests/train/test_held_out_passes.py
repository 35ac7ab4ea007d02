"""How many held-out images go through a network at once: no more than training has room for, and volumes one by one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from radiffuse.config import (
    IGNORE,
    Diffusion,
    Losses,
    Machine,
    PlanSettings,
    Pool,
    Pretrain,
    Training,
)
from radiffuse.data.batches import Batch
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan
from radiffuse.data.prepare import prepare
from radiffuse.inference.draw import draw_images
from radiffuse.objectives import denoising
from radiffuse.objectives.consistency import Consistency
from radiffuse.objectives.ddep import DecoderDenoising
from radiffuse.objectives.denoising import DDPM, Denoising
from radiffuse.objectives.masked import MaskedAutoencoding
from radiffuse.objectives.restorative import Restoring
from radiffuse.objectives.segmentation import Segmentation
from radiffuse.train.labelled import HeldOut, _held_out
from radiffuse.train.loop import train
from radiffuse.train.random import StepRandom
from radiffuse.train.segmenting import mean_dice
from radiffuse.train.start_run import start_run
from radiffuse.train.task import Loss, Task

CPU = Machine(accelerator="cpu", precision="32-true")


class Seen(nn.Module):
    """A network that counts the images of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.passes: list[int] = []

    def forward(self, images: Tensor, *_: Tensor) -> Tensor:
        self.passes.append(len(images))
        return self.weight * images


def labelled(images: Tensor) -> HeldOut:
    labels = torch.zeros(len(images), *images.shape[2:], dtype=torch.int64)
    return HeldOut(len(images), Batch(images, labels, ("",) * len(images)).part)


TASKS: dict[str, Callable[[nn.Module, Tensor], Task]] = {
    "ddpm": lambda n, x: Denoising(n, Diffusion(), x),
    "ddep": lambda n, x: DecoderDenoising(n, 0.2, x),
    "restorative": Restoring,
    "masked": lambda n, x: MaskedAutoencoding(n, 0.75, (4,) * (x.ndim - 2), x),
    "segmentation": lambda n, x: Segmentation(n, Losses(), labelled(x)),
    "pool": lambda n, x: Consistency(Segmentation(n, Losses(), labelled(x)), Pool(), Losses()),
}


@pytest.mark.parametrize("name", TASKS)
def test_volumes_are_validated_one_by_one_and_films_as_training_has_room(name: str) -> None:
    films, volumes = torch.rand(20, 2, 8, 8) - 0.5, torch.rand(3, 2, 8, 8, 8) - 0.5
    found = []
    for images, room, passes in (
        (volumes, 16, [1] * 3),
        (films, 16, [16, 4]),
        (films, 8, [8, 8, 4]),
    ):
        network = Seen()
        task = TASKS[name](network, images)
        task.at_once = room
        with torch.no_grad():
            found.append(task.validate(network, torch.device("cpu")))
        assert network.passes == passes
    assert found[1] == pytest.approx(found[2], rel=1e-5)


class Told(Task):
    """Remembers how many films it was told to validate on at once."""

    def __init__(self) -> None:
        super().__init__(Seen)
        self.told: list[int] = []

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        return Loss(network(batch.images).square().mean())

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        self.told.append(self.at_once)
        return {}


@pytest.mark.parametrize(("micro", "told"), [(None, 16), (8, 16), (2, 2), (1, 1)])
def test_the_loop_says_how_much_room_there_is(micro: int | None, told: int, tmp_path: Path) -> None:
    task, training = Told(), Training(steps=2, batch_size=8, micro_batch=micro, validate_every=1)

    def batches(step: int, rank: int, world: int) -> Batch:
        return Batch(torch.rand(8, 1, 4, 4), None, ("a",) * 8)

    with start_run(tmp_path / "run", "toy", {}) as run:
        train(task, batches, run, training, CPU)
    assert task.told == [told, told]


@pytest.mark.parametrize(
    ("size", "at_once", "passes"),
    [((4, 4), None, [5]), ((4, 4), 2, [2, 2, 1]), ((4, 4, 4), None, [1] * 5)],
)
def test_drawn_images_do_not_depend_on_the_passes(
    size: tuple[int, ...], at_once: int | None, passes: list[int]
) -> None:
    spacing = (1.0,) * 3 if len(size) == 3 else None
    plan = Plan(len(size), ("image",), (), size, spacing=spacing)
    network = Seen()
    options: Any = {"count": 5, "steps": 3}
    with torch.no_grad():
        images = draw_images(network, Diffusion(), plan, at_once=at_once, **options)
        whole = draw_images(Seen(), Diffusion(), replace(plan), at_once=None, **options)
    assert network.passes == passes * 3
    assert (images == whole).all()


def test_samples_of_a_pretraining_are_drawn_where_it_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[str] = []

    def drawn(network: nn.Module, *_: object) -> None:
        places.append(next(network.parameters()).device.type)

    monkeypatch.setattr(denoising, "local_device", lambda machine: SimpleNamespace(device="meta"))
    monkeypatch.setattr(denoising, "write_samples", drawn)
    monkeypatch.setattr(Seen, "cpu", lambda self: places.append("cpu"))
    pool: Any = SimpleNamespace(plan=None, validation_images=lambda: None)
    DDPM(Pretrain()).write(SimpleNamespace(folder=tmp_path), Seen(), pool)  # type: ignore[arg-type]
    assert places == ["meta", "cpu"]


def test_validation_holds_no_more_films_than_go_through_together(
    films: Path, tmp_path: Path
) -> None:
    """The oracle is the prepared file: each film as it is there, in its order, and the Dice by its pixels."""
    dataset = open_dataset(films)
    plan = make_plan(dataset, PlanSettings(size=(32,)), labelled=True)
    prepared = prepare(dataset, plan, labelled=True, cache=tmp_path)
    order = [5, 0, 3, 1, 4, 2, 6]
    held_out = _held_out(prepared, order)
    assert held_out is not None
    assert held_out.count == 7
    alive, most, seen, scores = set[int](), 0, list[Tensor](), list[float]()

    def segment(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0] * 0, images[:, 0]], 1)

    read = held_out.read

    def watched(start: int, stop: int) -> Batch:
        nonlocal most
        batch = read(start, stop)
        for number in range(start, stop):
            alive.add(number)
            weakref.finalize(batch, alive.discard, number)
        most = max(most, len(alive))
        seen.extend(batch.images)
        return batch

    found = mean_dice(segment, replace(held_out, read=watched), at_once=2)
    assert most <= 4  # those before are let go when the next are there
    for image, index in zip(seen, order, strict=True):
        stored, true = np.asarray(prepared.image(index)), np.asarray(prepared.label(index))
        assert np.array_equal(image.numpy(), stored.astype(np.float32))
        guess, known = stored[0] > 0, true != IGNORE
        both = 2 * (guess & (true == 1)).sum()
        scores.append(both / ((guess & known).sum() + (true == 1).sum()))
    assert found["dice"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert mean_dice(segment, held_out, at_once=7) == found
