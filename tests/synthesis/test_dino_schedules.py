"""What changes along the training of DINO, each against numbers worked by hand; and that it resumes bit for bit."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from radiffuse.config import DinoSettings, Machine, Training
from radiffuse.data.batches import Batch
from radiffuse.synthesis.dino import DinoLearning, DinoNetwork, teacher_temperature
from radiffuse.synthesis.views import Views
from radiffuse.train.loop import Trained, train
from radiffuse.train.random import StepRandom
from radiffuse.train.start_run import start_run
from radiffuse.train.task import Loss, Task

CPU = Machine(accelerator="cpu", precision="32-true")
SHORT = Training(
    steps=8,
    batch_size=4,
    learning_rate=0.1,
    weight_decay=0.04,
    final_weight_decay=0.4,
    average_decay=0.0,
    validate_every=0,
    checkpoint_every=1,
)
SMALL = DinoSettings(
    width=64, depth=1, patch=4, prototypes=16, local_crops=1, last_layer_held=0.4, training=SHORT
)


def views(step: int, rank: int = 0, world: int = 1) -> Views:
    generator = torch.Generator().manual_seed(step)
    large = torch.randn(4, 2, 1, 16, 16, generator=generator)
    small = torch.randn(4, 1, 1, 8, 8, generator=generator)
    return Views(large, None, ("a", "b", "c", "d"), small)


class Watched(DinoLearning):
    """Keeps the last layer as it was at the beginning of every step."""

    def __init__(self, settings: DinoSettings = SMALL) -> None:
        super().__init__(settings, 16, 1)
        self.last_layer: dict[int, Tensor] = {}

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        own = getattr(network, "module", network)
        self.last_layer[random.step] = own.student.prototypes.detach().clone()
        return super().loss(network, batch, random)


def trained(task: Task, folder: Path, batches: object = views) -> Trained:
    with start_run(folder, "toy", {}) as run:
        return train(task, batches, run, SHORT, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.04), (10, 0.05), (20, 0.06), (29, 0.069), (30, 0.07), (99, 0.07)],
)
def test_the_teacher_warms_up_linearly(step: int, expected: float) -> None:
    """From .04 to .07 in 30 of 100 steps: .001 a step."""
    settings = DinoSettings(
        start_teacher_temperature=0.04,
        teacher_temperature=0.07,
        teacher_warmup=0.3,
        training=Training(steps=100),
    )
    assert teacher_temperature(step, settings) == pytest.approx(expected, rel=1e-12)
    cold = dataclasses.replace(settings, teacher_warmup=0.0)
    assert teacher_temperature(step, cold) == 0.07


def test_the_loss_has_the_temperature_of_its_step() -> None:
    """Two outputs that differ by .1 have the entropy of the probability 1 / (1 + exp(-.1 / temperature))."""

    class Answers(nn.Module):
        def forward(self, *given: object) -> tuple[Tensor, Tensor, Tensor]:
            teacher = torch.tensor([[[0.1, 0.0], [0.1, 0.0]]])
            return torch.zeros(1, 2, 2), teacher, torch.ones(1, 2, 3)

    settings = DinoSettings(
        start_teacher_temperature=0.05,
        teacher_temperature=0.1,
        teacher_warmup=0.5,
        spread=0.0,
        training=Training(steps=4),
    )
    task, network = DinoLearning(settings, 4, 1), Answers()
    batch = Views(torch.zeros(1, 2, 1, 4, 4), None, ("a",), torch.zeros(1, 0, 1, 2, 2))
    for step, temperature in ((0, 0.05), (1, 0.075), (2, 0.1), (3, 0.1)):
        draws = StepRandom(0, step, total=1, start=0, stop=1, device=torch.device("cpu"))
        p = 1 / (1 + torch.tensor(-0.1 / temperature).exp())
        entropy = float(-(p * p.log() + (1 - p) * (1 - p).log()))
        found = task.loss(network, batch, draws).terms["teacher_entropy"]
        assert found == pytest.approx(entropy, rel=1e-5), step


def test_weight_decay_follows_its_schedule_and_leaves_vectors_alone(tmp_path: Path) -> None:
    """Where the loss is flat, AdamW leaves 1 - rate x decay of a weight: .04, .22 and .4 in three steps, rate .1."""

    class Flat(Task):
        decays_vectors = False

        def build(self) -> nn.Module:
            network = nn.Linear(1, 1)
            nn.init.ones_(network.weight)
            nn.init.ones_(network.bias)
            return network

        def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
            own = getattr(network, "module", network)
            return Loss(0.0 * (own.weight.sum() + own.bias.sum()))

    def batches(step: int, rank: int = 0, world: int = 1) -> Batch:
        return Batch(torch.zeros(1, 1), None, ("a",))

    three = dataclasses.replace(SHORT, steps=3, batch_size=1)
    with start_run(tmp_path, "toy", {}) as run:
        network = train(Flat(lambda: nn.Linear(1, 1)), batches, run, three, CPU).raw
    assert isinstance(network, nn.Linear)
    expected = (1 - 0.1 * 0.04) * (1 - 0.1 * 0.22) * (1 - 0.1 * 0.4)
    assert float(network.weight.detach()) == pytest.approx(expected, rel=1e-6)
    assert float(network.bias.detach()) == 1.0


def test_the_last_layer_stands_still_while_it_is_held(tmp_path: Path) -> None:
    """.4 of 8 steps are 3: not even weight decay moves it in them, and what is before it learns all along."""
    task = Watched()
    final = trained(task, tmp_path).raw
    layers = [task.last_layer[step] for step in range(8)]
    assert all(torch.equal(layers[0], layer) for layer in layers[1:4])
    assert not any(torch.equal(a, b) for a, b in pairwise(layers[3:]))
    assert isinstance(final, DinoNetwork)
    free = Watched(dataclasses.replace(SMALL, last_layer_held=0.0))
    trained(free, tmp_path / "free")
    assert not torch.equal(free.last_layer[0], free.last_layer[1])


@pytest.mark.parametrize("killed", [2, 3, 6])
def test_it_resumes_bit_for_bit_while_held_and_after(tmp_path: Path, killed: int) -> None:
    straight = trained(Watched(), tmp_path / "straight").raw.state_dict()

    class Killed(Exception):
        pass

    def until(step: int, rank: int = 0, world: int = 1) -> Views:
        if step == killed:
            raise Killed
        return views(step)

    with pytest.raises(Killed):
        trained(Watched(), tmp_path / "run", until)
    resumed = trained(Watched(), tmp_path / "run").raw.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
