"""What is timed before a training, and under which facts it is known again."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from radiffuse.config import Diffusion, Fit, Machine, Training
from radiffuse.config.segmenting import MaskDiffusion
from radiffuse.data.batches import Batch
from radiffuse.data.fingerprint import Fingerprint, Intensities
from radiffuse.data.plan import Plan
from radiffuse.objectives.denoising import Denoising
from radiffuse.system.distributed import world_size
from radiffuse.train.device import resolve_precision
from radiffuse.train.planning import plan_training
from radiffuse.train.planning.configuration import Measured, Request
from radiffuse.train.planning.machine import MachineFacts, facts_of
from radiffuse.train.planning.measuring import Blank, measure_steps
from radiffuse.train.planning.plan_training import Subject
from radiffuse.train.planning.search import configure

VALUES = (Intensities(0, 2),)
FOUND = Fingerprint(4, 0, 1, False, "px", ((128, 128),) * 4, ((1.0, 1.0),) * 4, ((128, 128),) * 4, VALUES)  # fmt: skip
CORES = MachineFacts("cpu", "2 cores", 6e9, 120e9, False)
PLAN = Plan(2, ("image",), ("background", "lung"), (64, 64))


class Dot(nn.Module):
    """A denoiser of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def test_the_first_process_times_its_own_part_and_waits_for_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def waits(*_: object, **__: object) -> None:
        raise AssertionError("the others wait for the plan")

    group = torch.distributed
    for name, value in (("is_initialized", True), ("get_world_size", 2), ("get_rank", 0)):
        monkeypatch.setattr(group, name, lambda *_, value=value: value)
    monkeypatch.setattr(group, "all_reduce", waits)
    seen: list[tuple[int, int]] = []

    def batches(step: int, rank: int, world: int) -> Batch:
        seen.append((rank, world))
        return Batch(torch.zeros(4 // world, 1, 8, 8), None, ("a",) * (4 // world))

    process = Diffusion(timestep_sampling="loss-aware")
    machine = Machine(accelerator="cpu", precision="32-true")
    training = Training(steps=1, batch_size=4)
    assert world_size() == 2
    assert measure_steps(lambda: (Denoising(Dot(), process), batches), training, machine, 2)
    assert set(seen) == {(0, 2)}
    assert world_size() == 2


def test_as_many_processes_are_planned_for_as_were_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = Machine(accelerator="cpu", threads=1)
    one, asked = facts_of(cpu), facts_of(replace(cpu, devices=4, num_nodes=2))
    assert (one.processes, asked.processes) == (1, 8)
    assert asked.rate == 8 * one.rate
    for name, value in (("RANK", 0), ("WORLD_SIZE", 6), ("LOCAL_WORLD_SIZE", 3)):
        monkeypatch.setenv(name, str(value))
    assert facts_of(cpu).processes == 6


def test_a_blank_volume_is_drawn_once() -> None:
    plan = Plan(3, ("ct",), ("background", "liver"), (8, 8, 8), spacing=(1.0, 1.0, 1.0))
    blank = Blank.like(plan, (20, 16, 12), labelled=True)
    image, label = blank.image(0), blank.label(0)
    assert blank.image(7) is image
    assert blank.label(7) is label
    assert image.shape == (1, 20, 16, 12)
    assert -1 <= image.min() < -0.9
    assert 0.9 < image.max() <= 1
    assert set(label.ravel()) == {0, 1}


def known(settings: Fit) -> Any:
    """What a time is remembered under."""
    facts: list[Any] = []

    def remember(found: Any, measure: object) -> Measured:
        facts.append(found)
        return Measured(1.0)

    subject = Subject("fit", SimpleNamespace(), 4, labelled=True, segments=True)  # type: ignore[arg-type]
    measure = plan_training._measuring(settings, subject, PLAN, CORES, lambda *_: None, remember)  # type: ignore[arg-type,return-value]
    request = Request("fit", 4, 2, training=Training(), hours=1)
    configure(FOUND, (), CORES, request, measure)
    return facts[0]


def test_a_time_is_known_again_for_the_same_steps_alone() -> None:
    plain = Fit(method="imagenet", data="here", out="run")
    elastic = replace(plain.augmentation, elastic=0.2)
    others = [
        replace(plain, unlabelled=("pool",)),  # two more passes a step
        replace(plain, method="scratch"),
        replace(plain, augmentation=elastic),
    ]
    assert all(known(other) != known(plain) for other in others)
    drawn = Fit(method="diffusion")
    standard = replace(drawn, diffusion=MaskDiffusion(strategy="standard"))
    assert known(drawn) != known(standard)  # recycling has two passes
    moved = replace(plain, data="there", out="other", hours=3.0, labels=5, draw=2)
    assert known(moved) == known(plain)


@pytest.mark.parametrize(("major", "precision"), [(7, "32-true"), (8, "bf16-mixed")])
def test_arithmetic_that_a_card_only_emulates_is_not_taken(
    major: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = SimpleNamespace(major=major, minor=5)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda _: True)
    assert resolve_precision(Machine()) == precision
    assert resolve_precision(Machine(precision="bf16-mixed")) == "bf16-mixed"
