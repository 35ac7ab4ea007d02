"""The planner's trial steps: what does not fit, what takes no effect, and what was measured before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from radiffuse.cli.settings import from_values
from radiffuse.config import Fit, Machine, Network, PlanSettings, Training
from radiffuse.data.batches import Batch
from radiffuse.data.ceiling import Ceiling, candidates
from radiffuse.data.fingerprint import ClassFacts, Fingerprint, Intensities
from radiffuse.data.plan import Plan, make_plan, read_plan
from radiffuse.errors import InputError
from radiffuse.objectives import OBJECTIVES
from radiffuse.phantoms import write_dataset
from radiffuse.train.planning import plan_training
from radiffuse.train.planning.configuration import Configuration, Measured, Request
from radiffuse.train.planning.machine import MachineFacts
from radiffuse.train.planning.measuring import is_whole, measure_steps
from radiffuse.train.planning.plan_training import Subject
from radiffuse.train.planning.search import configure
from radiffuse.train.segmenting import SegmentationTask
from radiffuse.train.task import Loss
from radiffuse.train.unlabelled import plan_unlabelled

VALUES = (Intensities(0, 2),)
CORES = MachineFacts("cpu", "2 cores", 6e9, 120e9, False)
CARD = MachineFacts("cuda", "a card of 80 GB", 74e9, 60e12, True)
OPEN = Training(steps=None, batch_size=None)
Measure = Callable[[Configuration, str], Measured | None]


def films(side: int) -> Fingerprint:
    shapes = ((side, side),)
    lung = ClassFacts("lung", 40, 0.3, 8e4, 2, 150)
    return Fingerprint(
        *(40, 40, 1, False, "px"), *(shapes, ((1.0, 1.0),), shapes, VALUES, VALUES, (lung,))
    )


def volumes(side: int) -> Fingerprint:
    shapes = ((side, side, side),)
    return Fingerprint(4, 0, 1, False, "mm", shapes, ((1.0, 1.0, 1.0),), shapes, VALUES)


def fine(found: Fingerprint) -> tuple[Ceiling, ...]:
    """Only the finest grid suffices."""
    return tuple(Ceiling(grid, (0.995,), (0.995,)) for grid in candidates(found)[-1:])


def request(**changes: Any) -> Request:
    return Request(**({"kind": "fit", "images": 40, "classes": 2, "training": OPEN} | changes))


def holding(memory: float, asked: list[Configuration]) -> Measure:
    """Steps of a card of 20 TFLOP/s which hold less than they are predicted to need."""

    def measure(config: Configuration, precision: str) -> Measured | None:
        asked.append(config)
        fits = config.memory(CARD, precision) <= memory
        return Measured(0.05 + config.operations / 20e12) if fits else None

    return measure


@pytest.mark.parametrize("memory", [3e9, 1.2e9])
def test_what_does_not_fit_is_followed_by_less_until_a_step_is_measured(memory: float) -> None:
    found, asked = films(1024), list[Configuration]()
    configured = configure(found, fine(found), CARD, request(hours=3), holding(memory, asked))
    assert len(asked) > 1
    first, second = asked[:2]
    assert second == replace(first, micro=first.micro // 2)  # as training would do
    last = next(c for c in asked if c.size == configured.plan.size and c.micro * 8 >= c.batch)
    assert configured.training.memory_gib * 2**30 <= 1.01 * memory
    assert configured.reasons["minutes"].endswith("measured here")
    assert last.batch == configured.training.batch_size
    seconds = float(configured.reasons["minutes"].split()[0])
    assert configured.training.steps == pytest.approx(0.9 * 3 * 3600 / seconds, rel=0.01)


def test_where_nothing_fits_it_is_said_by_name_and_soon() -> None:
    found, asked = films(1024), list[Configuration]()
    with pytest.raises(InputError) as error:
        configure(found, fine(found), CARD, request(hours=3), holding(0, asked))
    assert str(error.value).startswith(
        "memory of a card of 80 GB: does not hold a training step of 1"
    )
    assert "--size" in error.value.remedy
    needed = [config.memory(CARD, "bf16-mixed") for config in asked]
    assert needed == sorted(set(needed), reverse=True)
    assert len(asked) < 40


def test_given_passes_shrink_only_where_they_were_tried() -> None:
    plan, network = PlanSettings(size=(256,)), Network(preset="small")
    given = request(
        plan=plan, network=network, hours=1, training=replace(OPEN, batch_size=8, micro_batch=4)
    )
    asked: list[Configuration] = []
    needed = configure(films(256), (), CARD, given).training.memory_gib * 2**30
    tried = configure(films(256), (), CARD, given, holding(0.9 * needed, asked)).training
    assert [config.micro for config in asked] == [4, 2]
    assert (tried.batch_size, tried.micro_batch) == (8, 2)
    fixed = replace(given, machine=Machine(checkpoint_activations=False))
    with pytest.raises(InputError, match="no network fits"):
        configure(films(256), (), replace(CARD, memory=0.9 * needed), fixed)


def test_what_learns_from_its_batch_as_a_whole_gets_less_to_see_but_no_smaller_passes() -> None:
    """As training does, which refuses to shrink its passes there: as predicted, and where a step did not fit."""
    found, looked = films(1024), list[Configuration]()

    def whole(config: Configuration, precision: str) -> bool:
        looked.append(config)
        return True

    roomy = configure(found, fine(found), CARD, request(hours=3), whole=whole)
    tight = replace(CARD, memory=3e9)
    one = configure(found, fine(found), tight, request(hours=3), whole=whole)
    assert one.training.micro_batch == one.training.batch_size == 8
    assert one.training.memory_gib * 2**30 <= 3e9 < roomy.training.memory_gib * 2**30
    assert configure(found, fine(found), tight, request(hours=3)).training.micro_batch < 8
    assert all(max(config.size) <= 256 and config.unet.width == 16 for config in looked)  # cheap
    asked: list[Configuration] = []
    configure(found, fine(found), CARD, request(hours=3), holding(3e9, asked), whole=whole)
    assert len(asked) > 1
    assert all(config.micro == config.batch >= 8 for config in asked)
    given = request(hours=3, plan=PlanSettings(size=(512,)), network=Network(preset="base"))
    with pytest.raises(InputError, match="--micro-batch, which changes what is learned"):
        configure(found, (), tight, given, whole=whole)
    by_hand = replace(given, training=replace(OPEN, micro_batch=1))
    assert configure(found, (), tight, by_hand, whole=whole).training.micro_batch == 1


@pytest.mark.parametrize(("objective", "whole"), [("coordinates", True), ("ddpm", False)])
def test_the_plan_of_a_loss_of_the_whole_batch_has_whole_passes(
    objective: str, whole: bool, tmp_path: Path
) -> None:
    write_dataset("chest", tmp_path / "films", count=2, labelled=False, seed=0, size=(256, 256))
    words = {"data": str(tmp_path / "films"), "out": str(tmp_path / "run"), "hours": 1.0}
    machine = {"accelerator": "cpu", "memory": "1GB", "rate": 5.0}
    words |= {"objective": objective, "machine": machine, "reader": {"cache": str(tmp_path / "c")}}
    before = torch.get_rng_state()
    training = plan_unlabelled(OBJECTIVES[objective](from_values("pretrain", words))).plan.training
    assert training is not None
    assert (training.micro_batch == training.batch_size) == whole
    torch.testing.assert_close(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("layer", "whole"), [(nn.BatchNorm2d(1), True), (nn.Dropout(0.2), True), (nn.ReLU(), False)]
)
def test_a_plan_looks_at_the_network_as_training_does(layer: nn.Module, whole: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), layer).eval()
    found = is_whole(lambda: (Dots(network), None), Machine(accelerator="cpu"))  # type: ignore[arg-type,return-value]
    assert found == whole


def test_what_was_measured_counts_more_than_the_pace_of_something_else() -> None:
    found, asked = films(512), dict[Configuration, float]()

    def measure(config: Configuration, precision: str) -> Measured:
        """The large network is slow, smaller ones are fast: their pace must not make it look fast."""
        rate = 30e9 if config.unet.width > 16 else 300e9
        asked[config] = config.operations / rate
        return Measured(asked[config])

    ceilings = tuple(
        Ceiling(grid, (dice,), (dice,))
        for grid, dice in zip(candidates(found), (0.9, 0.91, 0.995), strict=False)
    )
    configured = configure(found, ceilings, CORES, request(hours=1), measure)
    slow, *_ = asked
    assert slow.unet.width > 16
    assert asked[slow] * slow.samples / slow.batch > 3600
    assert configured.training.network != slow.network


def test_the_last_measurement_is_not_taken_for_being_the_last() -> None:
    found, rates = films(1024), [40e9, 300e9, 20e9]
    asked: list[tuple[Configuration, float]] = []

    def measure(config: Configuration, precision: str) -> Measured:
        seconds = config.operations / rates[len(asked)]
        asked.append((config, seconds))
        return Measured(seconds)

    given = request(hours=1)
    plan = configure(found, fine(found), CORES, given, measure).plan
    fast = [seconds * c.samples / c.batch <= given.budget for c, seconds in asked]
    assert fast == [False, True, False]
    assert (plan.size, plan.grid) == (asked[1][0].size, asked[1][0].placed["grid"])


def test_what_was_measured_fits_whatever_does_not_after_it() -> None:
    found, asked = films(1024), list[Configuration]()

    def measure(config: Configuration, precision: str) -> Measured | None:
        asked.append(config)
        return Measured(1000.0) if len(asked) == 1 else None

    configured = configure(found, fine(found), CARD, request(hours=1), measure)
    assert len(asked) > 1
    assert configured.plan.size == asked[0].size
    assert configured.reasons["minutes"] == "1e+03 s per step, measured here"


def test_processes_share_a_batch_and_its_memory() -> None:
    found = volumes(128)
    given = request(hours=1, plan=PlanSettings(size=(64,)), network=Network(preset="tiny"))
    alone, four = (configure(found, (), replace(CARD, processes=n), given).training for n in (1, 4))
    assert (alone.batch_size, four.batch_size) == (2, 4)
    assert four.memory_gib < alone.memory_gib  # one volume each, not two


def test_settings_that_take_no_effect_pass_a_configuration_over() -> None:
    found, asked = films(1024), list[Configuration]()

    def patches_alone(config: Configuration, precision: str) -> None:
        if config.patches == 1:
            raise InputError("--zoom", "takes no effect on whole films", "Give a smaller --size")

    choose = {"measure": holding(70e9, asked), "verify": patches_alone}
    configured = configure(found, fine(found), CARD, request(hours=3), **choose)
    assert configured.plan.grid is not None
    assert all(config.patches > 1 for config in asked)
    given = request(hours=3, plan=PlanSettings(size=(256,)))
    with pytest.raises(InputError, match="--zoom: takes no effect"):
        configure(found, (), CARD, given, **choose)


def test_pre_training_that_zooms_is_planned_in_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset("chest", tmp_path / "films", count=2, labelled=False, seed=0, size=(256, 256))
    monkeypatch.setattr(plan_training, "measure_steps", lambda *_: Measured(0.001))
    words = {"data": str(tmp_path / "films"), "out": str(tmp_path / "run"), "hours": 1.0}
    cache = {"reader": {"cache": str(tmp_path / "cache")}, "machine": {"accelerator": "cpu"}}

    def planned(**more: Any) -> Plan:
        return plan_unlabelled(
            OBJECTIVES["ddpm"](from_values("pretrain", words | cache | more))
        ).plan

    assert planned().whole
    assert not planned(zoom=2.0).whole


class Full(nn.Module):
    """A segmenter that holds two images at once, in a cycle as networks are."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.weight, self.error, self.cycle = nn.Parameter(torch.ones(())), error, [self]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise self.error
        return images * self.weight


class Dots(SegmentationTask):
    def loss(self, network: nn.Module, batch: Batch, random: Any) -> Loss:
        return Loss(network(batch.images).mean())


FULL = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("could not create a primitive"),
)


@pytest.mark.parametrize("error", FULL)
def test_a_trial_says_that_it_does_not_fit_and_leaves_its_memory(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def batches(step: int, rank: int, world: int) -> Batch:
        return Batch(torch.zeros(4, 1, 8, 8), None, ("a",) * 4)

    made: list[weakref.ref[nn.Module]] = []

    def trial() -> Any:
        network = Full(error)
        made.append(weakref.ref(network))
        return Dots(network), batches

    machine = Machine(accelerator="cpu", precision="32-true")
    training = Training(steps=1, batch_size=4, micro_batch=4)
    gc.disable()
    try:
        assert measure_steps(trial, training, machine) is None
        error.__traceback__ = None  # a caught error that is kept keeps its frames
        assert measure_steps(trial, replace(training, micro_batch=2), machine) is not None
        assert [network() for network in made] == [None, None]
    finally:
        gc.enable()
    assert capsys.readouterr().err == ""


def test_what_cannot_be_trained_is_no_matter_of_memory() -> None:
    def trial() -> Any:
        raise InputError("the encoder", "takes 3 channels", "Train one")

    with pytest.raises(InputError, match="the encoder: takes 3 channels"):
        measure_steps(trial, Training(steps=1), Machine(accelerator="cpu"))


def measuring(settings: Fit, plan: Plan, seen: list[Any]) -> Any:
    """What measures for ``configure``; ``seen`` gets the facts under which a time is remembered."""

    def remember(facts: Any, measure: Any) -> Measured | None:
        seen.append(facts)
        found: Measured | None = measure()
        return found

    subject = Subject("fit", SimpleNamespace(), 4, labelled=True, segments=True)  # type: ignore[arg-type]
    return plan_training._measuring(settings, subject, plan, CORES, lambda *_: None, remember)  # type: ignore[arg-type,return-value]


def test_what_does_not_fit_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(plan_training, "soon", told.append)
    monkeypatch.setattr(plan_training, "measure_steps", lambda *_: None)
    plan = Plan(2, ("image",), ("background", "lung"), (64, 64))
    measure = measuring(Fit(), plan, [])
    asked = request(plan=PlanSettings(size=(64,)), training=Training(steps=90_000, batch_size=1))
    for _ in range(2):
        with pytest.raises(InputError, match="memory of 2 cores: does not hold"):
            configure(films(64), (), CORES, asked, measure)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) > 0
    assert told[0] == "planning: timing a few steps of 1 image of 64 x 64 (width 16)"
    text = "radiffuse: a step of 1 image of 64 x 64 (width 16) does not fit into memory"
    assert lines[0].startswith(text)


def test_a_time_is_known_again_for_the_same_dropout_and_scans_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_training, "measure_steps", lambda *_: Measured(1.0))
    plan = Plan(3, ("ct",), ("background", "liver"), (32, 32, 32), spacing=(1.0, 1.0, 1.0))
    given = PlanSettings(size=(32,), spacing=(1.0, 1.0, 1.0))

    def known(side: int, dropout: float | None) -> Any:
        seen: list[Any] = []
        measure = measuring(Fit(network=Network(dropout=dropout)), plan, seen)
        configure(volumes(side), (), CORES, request(plan=given, hours=1), measure)
        return seen[-1]

    assert known(64, None) == known(64, None)
    assert known(64, 0.3)["settings"]["network"].dropout == 0.3
    assert known(64, None) != known(128, None)  # patches are cut from all of it


@pytest.mark.parametrize("network", [None, Network(preset="tiny")])
@pytest.mark.parametrize("grid", [(500, 400), (100, 90), (32,)])
def test_a_patch_lies_within_a_grid_that_is_given(
    grid: tuple[int, ...], network: Network | None, tmp_path: Path
) -> None:
    settings = PlanSettings(grid=grid)
    found = films(512)
    given = request(kind="pretrain", classes=0, hours=1, plan=settings, network=network)
    placed = configure(found, (), CORES, given).plan
    assert placed.size is not None
    film = placed.grid or placed.size
    assert film == (grid * 2)[:2]  # as given
    assert all(0.3 * n <= patch <= n for patch, n in zip(placed.size, film, strict=True))
    dataset: Any = SimpleNamespace(channels=("image",))
    plan = make_plan(dataset, settings, labelled=False, found=found)
    path = tmp_path / "plan.json"
    path.write_text(replace(plan, size=placed.size, grid=placed.grid).to_json())
    assert read_plan(path).film == film


def test_a_grid_smaller_than_the_least_patch_of_a_network_is_refused() -> None:
    deep = Network(multipliers=(1,) * 7)
    given = request(hours=1, plan=PlanSettings(grid=(40,)), network=deep)
    with pytest.raises(InputError, match=r"--plan.grid 40 x 40: is smaller .* 64 x 64"):
        configure(films(512), (), CORES, given)
