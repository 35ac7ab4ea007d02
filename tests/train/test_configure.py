"""The planner as a pure function: fingerprint, machine, hours and settings to a plan with its reasons."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from radiffuse.config import Machine, Network, PlanSettings, Training, resolve_network
from radiffuse.data.ceiling import Ceiling, candidates
from radiffuse.data.fingerprint import ClassFacts, Fingerprint, Intensities
from radiffuse.data.plan import Plan, Structures
from radiffuse.data.scan import rounded
from radiffuse.errors import InputError
from radiffuse.system.files import locked, read_json, write_json
from radiffuse.system.waiting import Spent
from radiffuse.train.planning import measuring
from radiffuse.train.planning.configuration import Configuration, Configured, Measured, Request
from radiffuse.train.planning.machine import (
    GPU_RATE,
    MPS_RATE,
    MachineFacts,
    Pace,
    facts_of,
    in_bytes,
)
from radiffuse.train.planning.plan_text import format_plan, grids, rows, structures
from radiffuse.train.planning.search import configure

OPEN = Training(steps=None, batch_size=None)
VALUES = (Intensities(0, 2),)
CORES = MachineFacts("cpu", "2 cores", 6e9, 120e9, False)
CARD = MachineFacts("cuda", "a card of 24 GB", 22e9, 15e12, True)
LARGE = MachineFacts("cuda", "a card of 80 GB", 74e9, 60e12, True)


def films(shape: tuple[int, int] = (512, 512), count: int = 40) -> Fingerprint:
    lung = ClassFacts("lung", count, 0.3, 8e4, 2, 150)
    return Fingerprint(
        *(count, count, 1, False, "px"),
        *((shape,), ((1.0, 1.0),), (shape,), VALUES, VALUES, (lung,)),
    )


def volumes(shape: tuple[int, ...], spacing: tuple[float, ...], channels: int = 1) -> Fingerprint:
    organ = ClassFacts("organ", 30, 0.01, 8e4, 1, 20)
    return Fingerprint(
        *(30, 30, channels, channels == 1, "mm"),
        *((shape,), (spacing,), (shape,), VALUES * channels, VALUES * channels, (organ,)),
    )


def rising(found: Fingerprint, enough: int) -> tuple[Ceiling, ...]:
    """Ceilings of which the one at place ``enough`` is the first that suffices."""
    scores = [0.9 + 0.01 * i for i in range(enough)] + [0.995]
    return tuple(
        Ceiling(grid, (dice,), (dice,))
        for grid, dice in zip(candidates(found), scores, strict=False)
    )


def request(**changes: object) -> Request:
    values: dict[str, object] = {"kind": "fit", "images": 40, "classes": 2, "training": OPEN}
    return Request(**(values | changes))  # type: ignore[arg-type]


def test_the_grid_is_the_coarsest_that_suffices_and_the_film_is_seen_whole() -> None:
    found = films()
    configured = configure(found, rising(found, 2), CORES, request(hours=2))
    assert configured.plan.size == (128, 128)
    assert configured.plan.grid is None
    assert "coarsest that suffices" in configured.reasons["grid"]
    assert "lung" in configured.reasons["grid"]
    assert set(configured.reasons) >= {
        "size",
        "network",
        "batch_size",
        "steps",
        "precision",
        "minutes",
    }


@pytest.mark.parametrize("hours", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((512, 512, 130), (0.8, 0.8, 3.0)), ((150, 150, 50), (0.98, 0.98, 3.27))],
)
def test_a_patch_of_a_volume_shows_what_lies_around_an_organ(
    shape: tuple[int, ...], spacing: tuple[float, ...], hours: float
) -> None:
    found = volumes(shape, spacing)
    configured = configure(
        found, rising(found, len(candidates(found)) - 1), CORES, request(hours=hours, images=10)
    )
    body = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    seen = [
        n * mm for n, mm in zip(configured.plan.size, configured.plan.spacing or (), strict=True)
    ]
    # a quarter of the body's sides, or 96 voxels; patches are rounded to what the network can halve
    wide = zip(configured.plan.size, seen, body, strict=True)
    assert all(n >= 96 or mm >= 0.22 * whole for n, mm, whole in wide)
    assert math.prod(configured.plan.size) >= 24**3


@pytest.mark.parametrize(
    ("seconds", "changes", "side"),
    [
        (1.0, {}, 128),
        (0.5, {}, 192),  # 1,200 steps of half a second, of a grid of 2.25 times as many pixels
        (0.1, {}, 256),  # no finer
        (0.1, {"training": Training(steps=200, batch_size=8), "hours": None}, 128),  # too few
        (0.1, {"training": Training(steps=600, batch_size=8), "hours": None}, 256),
    ],
)
def test_time_that_is_left_goes_into_a_finer_grid_of_whole_films(
    seconds: float, changes: dict[str, object], side: int
) -> None:
    def measure(choice: Configuration, precision: str) -> Measured:
        return Measured(seconds * math.prod(choice.size) / 128**2)

    found = films((1024, 1024))
    asked = request(**({"hours": 0.25, "own": True} | changes))
    configured = configure(found, rising(found, 2), CORES, asked, measure)
    assert (configured.plan.size, configured.plan.grid) == ((side, side), None)
    words = "suffices for a perfect network, 128 x 128, where the grid alone limits Dice to 0.995"
    assert (words in configured.reasons["grid"]) == (side > 128)
    if "hours" in changes:
        return
    unseen = configure(found, (), CORES, asked, measure)  # without labels nothing suffices
    assert "labels would say" in unseen.reasons["grid"]


@pytest.mark.parametrize(
    ("changes", "side", "coarse"),
    [
        ({"halves": False}, 128, 0.0),
        ({"halves": True}, 256, 0.75),
        ({"halves": True, "training": Training(coarse=0.0)}, 128, 0.0),
        ({"halves": False, "training": Training(coarse=0.6)}, 192, 0.6),
        ({"halves": True, "hours": 0.015}, 128, 0.0),
        ({"halves": True, "hours": None, "training": Training(steps=400)}, 256, 0.75),
        ({"halves": True, "hours": None, "training": Training(steps=300)}, 128, 0.0),
    ],
)
def test_steps_at_half_the_resolution_make_a_finer_grid_cheaper(
    changes: dict[str, object], side: int, coarse: float
) -> None:
    """On 256 x 256 400 steps of .4 s would be needed, 300 of them in a quarter of the time: 70 s."""

    def measure(choice: Configuration, precision: str) -> Measured:
        return Measured(0.1 * math.prod(choice.size) / 128**2)

    found = films((1024, 1024))
    asked = request(**({"hours": 0.025, "own": True} | changes))
    configured = configure(found, rising(found, 2), CORES, asked, measure)
    assert configured.plan.size == (side, side)
    training = configured.training
    assert training.coarse == coarse
    assert ("coarse" in configured.reasons) == (coarse > 0)
    seconds = 0.1 * side**2 / 128**2 * (1 - 0.75 * coarse) * training.steps
    assert training.minutes == pytest.approx(seconds / 60 / 0.9, abs=0.02)
    if asked.hours:
        assert training.minutes == pytest.approx(60 * asked.hours, rel=0.01)


@pytest.mark.parametrize(
    ("hours", "side"), [(0.003, 128), (0.01, 256), (0.1, 192), (1.0, 128), (9.0, 256)]
)
def test_a_finer_grid_takes_no_smaller_network(
    hours: float, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = films((1024, 1024))
    finer = configure(found, rising(found, 2), LARGE, request(hours=hours))
    monkeypatch.setattr("radiffuse.train.planning.search.finer_grids", lambda *given: [])
    coarse = configure(found, rising(found, 2), LARGE, request(hours=hours))
    widths = [c.training.network.width for c in (finer, coarse)]  # type: ignore[union-attr]
    assert widths[0] >= widths[1]
    assert coarse.plan.size == (128, 128)
    assert finer.plan.size == (side, side)


def test_parts_of_a_film_need_more_steps_than_whole_films() -> None:
    found = films((1024, 1024), 9)
    fine = rising(found, candidates(found).index((768.0, 768.0)))
    core = replace(CORES, rate=60e9)
    for hours in (0.08, 0.13, 0.3, 1.0):
        configured = configure(found, fine, core, request(hours=hours, images=9))
        side = (configured.plan.grid or configured.plan.size)[0]  # type: ignore[index]
        shown = configured.training.steps * configured.training.batch_size  # type: ignore[operator]
        patches = round(side / configured.plan.size[0]) ** 2  # type: ignore[index]
        assert shown >= 2400 * patches**0.5


def test_what_time_does_not_allow_is_said() -> None:
    found = films((2048, 2048))
    fine = rising(found, 10)
    slow = configure(found, fine, CORES, request(hours=0.2))
    fast = configure(found, fine, LARGE, request(hours=10))
    assert max(fast.plan.grid or fast.plan.size) == 1536
    assert max(slow.plan.grid or slow.plan.size) < 1536
    assert "as fine as time and memory allow: the grid alone limits Dice to" in slow.reasons["grid"]


def test_a_faster_machine_trains_a_larger_network() -> None:
    found = films()
    widths = [
        configure(found, rising(found, 4), facts, request(hours=2)).training.network.width  # type: ignore[union-attr]
        for facts in (CORES, CARD, LARGE)
    ]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


@pytest.mark.parametrize("facts", [CORES, CARD, LARGE])
@pytest.mark.parametrize("hours", [0.5, 8.0])
def test_predicted_time_and_memory_keep_within_what_there_is(
    facts: MachineFacts, hours: float
) -> None:
    for found in (films(), films((2500, 2048)), volumes((512, 512, 120), (0.8, 0.8, 3.0))):
        configured = configure(found, rising(found, 3), facts, request(hours=hours))
        assert configured.training.memory_gib * 2**30 <= facts.memory * 1.01
        assert configured.training.minutes <= 60 * hours * 1.01
        assert configured.training.minutes >= 60 * hours * 0.95  # the hours are filled
        network = configured.training.network
        assert network is not None
        dims = found.spatial_dims
        unet = resolve_network(network, spatial_dims=dims, in_channels=1, out_channels=2)
        size = configured.plan.size
        assert size is not None
        left = [n // m for n, m in zip(size, unet.size_multiple, strict=True)]
        assert all(n % m == 0 for n, m in zip(size, unet.size_multiple, strict=True))
        assert max(left) <= 8


def test_without_hours_steps_are_passes_over_the_images() -> None:
    found = films(count=2000)
    few, many = (
        configure(found, rising(found, 0), LARGE, request(images=n)).training for n in (10, 20_000)
    )
    assert many.steps * many.batch_size == pytest.approx(40 * 20_000, rel=0.01)
    assert few.steps * few.batch_size >= 2400
    slow = configure(found, rising(found, 0), CORES, request(images=20_000))
    assert slow.training.minutes == pytest.approx(60, rel=0.02)
    assert "more with --hours" in slow.reasons["steps"]


def test_what_is_given_stays() -> None:
    found = films((1024, 1024))
    network = Network(preset="tiny", width=24)
    given = request(
        plan=PlanSettings(size=(96,), grid=(512,)),
        training=Training(steps=77, batch_size=3, micro_batch=1),
        machine=Machine(precision="bf16-mixed", compile=True, checkpoint_activations=True),
        network=network,
    )
    configured = configure(found, rising(found, 4), CORES, given)
    plan, training = configured.plan, configured.training
    assert (plan.size, plan.grid) == ((96, 96), (512, 512))
    assert (training.steps, training.batch_size, training.micro_batch) == (77, 3, 1)
    assert (training.precision, training.compile, training.checkpoint_activations) == (
        *("bf16-mixed", True),
        True,
    )
    assert training.network is None
    for name in ("size", "grid", "network", "batch_size", "micro_batch", "steps", "compile"):
        assert configured.reasons[name].startswith("given"), name
    with pytest.raises(InputError, match="--hours 2: would be ignored"):
        configure(found, (), CORES, replace(given, hours=2.0))


def test_a_few_given_steps_are_not_worth_a_large_network() -> None:
    found = films((64, 64))
    few, many = (
        configure(found, (), LARGE, request(training=Training(steps=n, batch_size=8))).training
        for n in (4, 40_000)
    )
    assert few.network is not None
    assert few.network.preset == "tiny"
    assert many.network not in (None, few.network)


def test_memory_decides_how_many_go_through_at_once() -> None:
    found = volumes((128, 128, 128), (1.0, 1.0, 1.0))
    plan = PlanSettings(size=(128,), spacing=(1.0, 1.0, 1.0))
    network = Network(preset="small")
    wanted = request(plan=plan, network=network, training=Training(steps=9, batch_size=4))
    roomy = configure(found, (), LARGE, wanted).training
    assert (roomy.micro_batch, roomy.checkpoint_activations) == (4, False)
    tight = configure(found, (), replace(LARGE, memory=32e9), wanted).training
    assert tight.micro_batch < 4
    tiny = configure(found, (), replace(LARGE, memory=8e9), wanted).training
    assert tiny.checkpoint_activations
    with pytest.raises(InputError, match="no network fits into"):
        configure(found, (), replace(LARGE, memory=1e9), wanted)


def test_measured_steps_count_more_than_guessed_ones() -> None:
    found, asked = films(), []

    def measure(choice: object, precision: str) -> Measured:
        asked.append(choice)
        return Measured(100.0)

    configured = configure(found, rising(found, 2), LARGE, request(hours=1), measure)
    assert 1 <= len(asked) <= 3
    assert configured.training.minutes == pytest.approx(60, rel=0.1)
    assert configured.training.steps == 32  # an hour, but for a tenth, of 100 s each
    assert "measured here" in configured.reasons["minutes"]
    for described, source in ((False, "as a rule of such machines"), (True, "as given")):
        facts = replace(CARD, described=described)
        said = configure(found, rising(found, 2), facts, request(hours=1)).reasons["minutes"]
        assert said.endswith(f"not measured: at 15 TFLOP/s (10^12 operations a second), {source}")


@pytest.mark.parametrize("speed", [8e12, 70e12])
def test_a_card_that_waits_for_launches_is_not_taken_for_a_slow_one(speed: float) -> None:
    found, timed = volumes((192, 160, 160), (1.5, 1.5, 2.0)), dict[tuple[int, ...], float]()

    def measure(choice: Configuration, precision: str) -> Measured:
        timed[choice.size] = 0.06 + choice.operations / speed
        return Measured(timed[choice.size])

    card = replace(LARGE, rate=GPU_RATE["bf16-mixed"])
    configured = configure(found, rising(found, 3), card, request(hours=0.012), measure)
    # A line from the origin, through steps that are mostly launches, ended at patches of 32 voxels a side.
    assert math.prod(configured.plan.size) > 64**3
    steps = 0.9 * 43.2 / timed[configured.plan.size]
    assert configured.training.steps == pytest.approx(steps, rel=0.02)
    assert len(timed) <= 6


@pytest.mark.parametrize(
    ("image", "facts", "changes", "batch"),
    [
        (1e-4, LARGE, {}, 128),  # of 20 ms of launches 128 images take more than half
        (1e-2, LARGE, {}, 16),  # each image takes its time
        (1e-4, LARGE, {"images": 40}, 32),  # no more than there are
        (1e-4, LARGE, {"hours": 0.06}, 16),  # too few steps
        (1e-4, replace(LARGE, processes=3), {}, 144),
        (1e-4, CORES, {}, 16),
        (1e-4, LARGE, {"training": replace(OPEN, batch_size=16)}, 16),
        (1e-4, LARGE, {"training": replace(OPEN, steps=20_000), "hours": None}, 16),
    ],
)
def test_a_card_that_waits_for_launches_gets_larger_batches(
    image: float, facts: MachineFacts, changes: dict[str, object], batch: int
) -> None:
    def measure(choice: Configuration, precision: str) -> Measured:
        return Measured(0.02 + choice.batch * image)

    asked = {"kind": "pretrain", "images": 4000, "classes": 0, "hours": 4, **changes}
    asked["plan"], asked["network"] = PlanSettings(size=(64,), grid=(64,)), Network(preset="tiny")
    found = configure(films(), (), facts, request(**asked), measure)
    assert (found.training.batch_size, found.training.micro_batch) == (batch, batch)
    more = "more than usual" in found.reasons["batch_size"]
    assert more == (batch > 18)
    if more:
        assert found.training.steps >= 10_000


def test_a_larger_batch_that_does_not_fit_is_not_planned() -> None:
    def measure(choice: Configuration, precision: str) -> Measured | None:
        return None if choice.batch > 32 else Measured(0.02)

    plan, network = PlanSettings(size=(64,), grid=(64,)), Network(preset="tiny")
    asked = request(kind="pretrain", images=4000, classes=0, hours=4, plan=plan, network=network)
    assert configure(films(), (), LARGE, asked, measure).training.batch_size == 32


@pytest.mark.parametrize(("facts", "measured"), [(CORES, 0), (LARGE, 1)])
def test_a_short_training_is_measured_where_the_machine_may_be_slower_than_thought(
    facts: MachineFacts, measured: int
) -> None:
    asked = []

    def measure(choice: Configuration, precision: str) -> Measured:
        asked.append(choice)
        return Measured(0.1)

    plan, network = PlanSettings(size=(64,), grid=(64,)), Network(preset="tiny")
    unmeasured = configure(films(), (), facts, request(plan=plan, network=network))
    one = float(unmeasured.reasons["minutes"].split()[0])
    steps = round(10 / one)  # of a training that is thought to take 10 s
    training = Training(steps=steps, batch_size=unmeasured.training.batch_size)
    configure(films(), (), facts, request(plan=plan, network=network, training=training), measure)
    assert len(asked) == measured


def test_the_pace_of_a_card_is_a_line_through_what_was_timed() -> None:
    assert Pace.of((), LARGE).seconds(6e12) == pytest.approx(0.1)
    assert Pace.of([(1e12, 0.5)], LARGE).seconds(2e12) == pytest.approx(1.0)
    found = Pace.of([(3e12, 0.4), (1e12, 0.2)], LARGE)
    assert (found.rate, found.overhead) == pytest.approx((1e13, 0.1))
    # As long for three times as much: no faster than what is thought possible.
    flat = Pace.of([(3e12, 0.2), (1e12, 0.2)], LARGE)
    assert (flat.rate, flat.overhead) == pytest.approx((60e12, 0.15))
    # Slower by more than in proportion: nothing is left for launches.
    steep = Pace.of([(3e12, 0.9), (1e12, 0.1)], LARGE)
    assert (steep.rate, steep.overhead) == pytest.approx((3e12 / 0.9, 0.0))
    assert Pace.of([(3e12, 0.4), (1e12, 0.2)], CORES).seconds(2e12) == pytest.approx(0.4)


def test_another_machine_can_be_described() -> None:
    facts = facts_of(Machine(accelerator="cpu", memory="8GiB", rate=2.5))
    assert facts.memory == pytest.approx(0.8 * 8 * 2**30)
    assert facts.rate == 2.5e12
    assert facts.described
    assert facts.why_precision.startswith("as here: bfloat16 is ")
    assert in_bytes("1.5GB") == 1.5e9


@pytest.mark.parametrize("rate", [None, 15.0])
def test_no_plan_takes_the_cores_for_a_card_that_is_not_there(
    rate: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "--machine.accelerator cuda: this machine has no cuda. Choose what it has"
    with pytest.raises(InputError, match=message) as error:
        facts_of(Machine(accelerator="cuda", memory="24GiB", rate=rate))
    assert ("describe another one" in error.value.remedy) == (rate is not None)


def test_another_accelerator_is_not_taken_for_the_cores_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    facts = facts_of(Machine(threads=2))
    assert (facts.device, facts.rate) == ("mps", MPS_RATE)
    # So that steps in which it waits for launches are no reason for smaller ones.
    assert Pace.of([(1e12, 0.4), (3e11, 0.3)], facts).overhead > 0.2


def test_the_plan_shows_how_large_many_and_thin_the_structures_are() -> None:
    """Lungs of 8e4 pixels in two pieces, 150 px thin; slices five times as thick as pixels are wide."""
    two, three = films(), volumes((64, 64, 20), (1.0, 1.0, 5.0))
    title, rows = structures(held(two))
    assert rows == [("lung", "80,000", "2", "150")]
    assert title.startswith("structures in px")
    assert rounded(92730.5) == "92,700"
    assert [rounded(v) for v in (0, 2, 0.012345, 1234567.8)] == ["0", "2", "0.0123", "1,230,000"]
    assert "coarsest" not in title
    assert structures(held(three))[0].endswith("the coarsest axis is 5 times the finest")
    assert Structures.of(replace(two, classes=())) is None
    plan = Plan(2, ("image",), ("background", "lung"), (64, 64), structures=held(two))
    console = Console(width=120)
    with console.capture() as shown:
        console.print(format_plan(plan))
    assert re.search(r"class +size +pieces +thinnest *\nlung +80,000 +2 +150", shown.get())


def test_the_table_of_grids_holds_every_name_in_80_columns() -> None:
    names = [f"{part}_lobe_of_the_left_lung" for part in ("upper", "lower")] + ["aorta"] * 6
    classes = tuple(f"{name}_{i}" for i, name in enumerate(names))
    sizes = ((7.9532,) * 3, (5.6269,) * 3, (3.9766,) * 3, (1.9883, 1.9883, 2.5))
    rows = tuple({"grid": grid, "classes": dict.fromkeys(classes, (0.5, 0.25))} for grid in sizes)
    plan = Plan(
        3, ("image",), ("background", *classes), (8, 8, 8), spacing=sizes[-1], ceilings=rows
    )
    console = Console(width=80)
    with console.capture() as shown:
        console.print(format_plan(plan))
    assert "…" not in shown.get()
    assert all(re.search(rf"^{name}  ", shown.get(), re.MULTILINE) for name in classes)
    title, table = grids(plan)
    assert title[0] == "7.9532 x 7.9532 x 7.9532"
    assert table == [(name, *["0.500 / 0.250"] * 4) for name in classes]


def held(found: Fingerprint) -> Structures:
    known = Structures.of(found)
    assert known is not None
    return known


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(
    ("seconds", "found", "steps"),
    [
        ([9.0, 1.5, 1.2, 2.0, 1.3, 1.4], 1.2, 6),  # the first is slow, and one is disturbed
        ([1.0, 5.0, 2.0, 4.0], 2.0, 4),  # as many as fit into eight seconds
        ([15.0, 12.0, 11.0], 11.0, 3),  # two at least
        ([21.0], 21.0, 1),  # too slow for another
    ],
)
def test_the_speed_is_that_of_the_fastest_step_after_the_first(
    seconds: list[float], found: float, steps: int
) -> None:
    asked: list[int] = []

    def timed(number: int) -> Spent:
        asked.append(number)
        return Spent(seconds[number])

    assert measuring._steady(timed) == Measured(found)
    assert asked == [*range(steps)]


BUSY_STEPS = [Spent(3.0, 1.0), Spent(2.4, 1.2), Spent(3.6, 2.2), Spent(2.0, 0.6)]
"""Of them all but the first take 8 s by the clock and 4 s without what they waited; the fastest 1.2 s."""


@pytest.mark.usefixtures("drawn")
def test_steps_are_planned_as_if_nothing_else_ran() -> None:
    found = measuring._steady(BUSY_STEPS.__getitem__)
    assert found == Measured(pytest.approx(1.2), pytest.approx(2.0))
    data = films()

    def decided(steps: Measured) -> Configured:
        return configure(data, rising(data, 2), CORES, request(hours=1), lambda *choice: steps)

    quiet, busy = decided(Measured(1.2, 1.05)), decided(found)
    assert quiet.plan == busy.plan
    assert (quiet.training.slowed, busy.training.slowed) == (1, 2)
    assert replace(busy.training, slowed=1.0) == quiet.training
    assert quiet.reasons["minutes"] == "1.2 s per step, measured here"
    said = []
    for one in (quiet, busy):
        plan = Plan(2, ("image",), (), (64, 64), training=one.training, reasons=one.reasons)
        said.append(next(why for name, _, why in rows(plan) if name == "time"))
    assert said[0] == quiet.reasons["minutes"]
    assert said[1].endswith("as when it was timed, training takes 2.0 times as long")


def test_what_a_busy_machine_took_is_measured_again(tmp_path: Path) -> None:
    def remembered(result: Measured) -> Measured | None:
        return measuring.remembered(tmp_path, {"machine": "M"}, lambda: result, keep=True)

    busy, quiet, later = Measured(1.3, 2.0), Measured(1.2, 1.05), Measured(9.0)
    assert [remembered(m) for m in (busy, quiet, later)] == [busy, quiet, quiet]
    rows = read_json(tmp_path / measuring.FILE)
    write_json(tmp_path / measuring.FILE, {key: {"seconds": 7.0} for key in rows})
    assert remembered(later) == later  # what was kept by the clock, before other work was counted


def test_commands_that_share_a_cache_leave_what_another_one_writes(tmp_path: Path) -> None:
    def remembered(cache: Path, name: str) -> Measured | None:
        return measuring.remembered(cache, {"machine": name}, lambda: Measured(1.0), keep=True)

    half = tmp_path / "prepared" / "key" / ".image-000001.npy.7.8.part"
    half.parent.mkdir(parents=True)
    with locked(half.parent):
        half.touch()
        assert remembered(tmp_path, "one") == Measured(1.0)
    assert half.exists()
    path = tmp_path / measuring.FILE
    assert len(read_json(path)) == 1
    with locked(path.parent):
        assert remembered(tmp_path, "two") == Measured(1.0)
    assert remembered(half, "no folder") == Measured(1.0)


def test_memory_of_a_trial_that_did_not_fit_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*values: object) -> float:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    emptied: list[bool] = []
    card = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    monkeypatch.setattr(measuring, "local_fabric", lambda machine: card)
    monkeypatch.setattr(measuring, "_time", full)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    assert measuring.measure_steps(lambda: None, Training(), Machine()) is None  # type: ignore[arg-type,return-value]
    assert emptied == [True]


def test_what_has_no_fixed_order_is_refused_before_anything_is_prepared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unordered(*values: object) -> float:
        raise RuntimeError("grid_sampler_3d does not have a deterministic implementation")

    card = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(measuring, "local_fabric", lambda machine: card)
    monkeypatch.setattr(measuring, "_time", unordered)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    machine = Machine(deterministic=True)
    with pytest.raises(InputError, match="--machine.deterministic: grid_sampler_3d"):
        measuring.measure_steps(lambda: None, Training(), machine)  # type: ignore[arg-type,return-value]


def test_why_nothing_is_compiled_is_said() -> None:
    found = films()
    reasons = [
        configure(found, rising(found, 2), facts, request(hours=2)).reasons
        for facts in (CORES, CARD)
    ]
    assert "longer than planning may" in reasons[0]["compile"]
    assert "pays on a GPU" in reasons[1]["compile"]
