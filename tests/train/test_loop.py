"""The loop with a task small enough to be computed by hand: resume, micro-batches, averaging, divergence."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from radiffuse.config import Machine, Training
from radiffuse.data.batches import Batch
from radiffuse.errors import InputError, TrainingDiverged
from radiffuse.nets.norm import USED, Norm
from radiffuse.train import log
from radiffuse.train.checkpoint import drop_all, load_newest
from radiffuse.train.device import make_fabric
from radiffuse.train.learning_rate import learning_rate
from radiffuse.train.loop import Trained, train
from radiffuse.train.passes import Passes
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run
from radiffuse.train.start_run import start_run
from radiffuse.train.step import Step, new_optimizer
from radiffuse.train.stopping import Interrupted, Stopped
from radiffuse.train.task import Loss, Task

CPU = Machine(accelerator="cpu", precision="32-true")
BASE = Training(
    steps=6,
    batch_size=4,
    learning_rate=0.05,
    warmup_steps=2,
    decay="cosine",
    weight_decay=0.01,
    average_decay=0.9,
    log_every=1,
    checkpoint_every=2,
    validate_every=3,
)


class Toy(Task):
    """Regression with dropout, a batch norm, step noise, and a number that the task itself learns."""

    def __init__(self, bad_step: int | None = None, dropout: float = 0.3) -> None:
        self.seen = torch.zeros(1)
        self.bad_step, self.dropout = bad_step, dropout
        self.validated = 0

    def build(self) -> nn.Module:
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Dropout(self.dropout),
            nn.Conv2d(4, 1, 3, padding=1),
        )
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, 0.2, generator=generator)
        return network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        noise = random.normal(batch.images.shape[1:])
        self.seen += float(noise.sum())
        error = (network(batch.images + 0.1 * noise) - noise).square().mean()
        if batch.cases[0] == f"case-{self.bad_step}":
            error = error * torch.inf
        return Loss(error, {"seen": float(self.seen)})

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        assert not network.training
        self.validated += 1
        return {"size": float(sum(p.abs().sum() for p in network.parameters()))}

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.seen = state["seen"]


class Killed(Exception):
    pass


def batches(step: int, rank: int = 0, world: int = 1) -> Batch:
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(step))
    return Batch(images, None, tuple(f"case-{step}" for _ in range(4)))


def killing(at: int):  # type: ignore[no-untyped-def]
    def until(step: int, rank: int = 0, world: int = 1) -> Batch:
        if step == at:
            raise Killed
        return batches(step, rank, world)

    return until


def trained(folder: Path, training: Training = BASE, task: Toy | None = None) -> Trained:
    with start_run(folder, "toy", {}) as run:
        return train(task or Toy(), batches, run, training, CPU)


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(("optimizer", "log_every"), [("adam", 1), ("adamw", 1), ("adamw", 5)])
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_killed_run_ends_bit_for_bit_as_a_straight_one(
    tmp_path: Path, stop: int, optimizer: str, log_every: int
) -> None:
    training = dataclasses.replace(BASE, optimizer=optimizer, log_every=log_every)  # type: ignore[arg-type]
    straight = trained(tmp_path / "straight", training)
    with pytest.raises(Killed), start_run(tmp_path / "run", "toy", {}) as run:
        train(Toy(), killing(stop), run, training, CPU)
    torch.manual_seed(99)  # the state of torch's own generator must not matter
    resumed = trained(tmp_path / "run", training)
    same(straight.raw.state_dict(), resumed.raw.state_dict())
    same(straight.average.state_dict(), resumed.average.state_dict())
    a, b = (load_newest(tmp_path / name / "state") for name in ("straight", "run"))
    assert a is not None
    assert b is not None
    assert a.step == b.step == 6
    assert a.tensors.keys() == {"network", "average", "optimizer", "task"}
    for part in a.tensors:
        same(a.tensors[part], b.tensors[part])

    def rows(name: str) -> list[dict[str, object]]:
        timed = {"seconds", "images_per_second"}
        return [
            {k: v for k, v in row.items() if k not in timed} for row in Run(tmp_path / name).log()
        ]

    assert rows("run") == rows("straight")


def test_the_log_tells_the_time_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1000.0, 10.0)
    monkeypatch.setattr(log.time, "monotonic", lambda: next(clock))
    with pytest.raises(Killed), start_run(tmp_path / "run", "toy", {}) as run:
        train(Toy(), killing(5), run, BASE, CPU)

    def logged(most: int) -> list[float]:
        rows = Run(tmp_path / "run").log()
        return [row["seconds"] for row in rows if "seconds" in row and row["step"] <= most]

    first = logged(4)  # the checkpoint
    trained(tmp_path / "run")
    seconds = logged(6)
    assert len(seconds) == 6
    assert seconds == sorted(seconds)  # the clock of the second process began anew
    assert seconds[:4] == first
    assert log.seconds_of(Run(tmp_path / "run")) == seconds[-1]


def test_a_row_of_a_resumed_run_counts_the_terms_of_every_process_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes whose terms are 1 and 3 before the checkpoint, 5 and 9 after it."""
    logs: list[log.Log] = []
    monkeypatch.setattr(log, "gather_objects", lambda _: [one.terms for one in logs])
    unwritten = None
    for start, both in ((0, (1.0, 3.0)), (1, (5.0, 9.0))):
        with start_run(tmp_path, "toy", {}) as run:
            logs[:] = [
                log.Log(run, start, BASE, main=main, unwritten=unwritten) for main in (True, False)
            ]
        for one, term in zip(logs, both, strict=True):
            one.add(1.0, {"term": term}, 4, start + 1)
        unwritten = logs[0].unwritten()
    logs[0].write(2, 0.1)
    assert Run(tmp_path).log()[-1]["term"] == 4.5


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is obeyed, also where the tests are a job in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, Stopped), (signal.SIGINT, Interrupted)]
)
@pytest.mark.parametrize("step", [0, 2, 3, 5])
def test_a_run_that_is_asked_to_stop_ends_with_a_checkpoint(
    tmp_path: Path, step: int, number: signal.Signals, error: type[BaseException]
) -> None:
    def asking(at: int, rank: int = 0, world: int = 1) -> Batch:
        if at == step:
            os.kill(os.getpid(), number)
        return batches(at, rank, world)

    straight = trained(tmp_path / "straight")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with (
        pytest.raises(error, match=f"stopped after step {step + 1}, as asked"),
        start_run(tmp_path / "run", "toy", {}) as run,
    ):
        train(Toy(), asking, run, BASE, CPU)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    found = load_newest(tmp_path / "run" / "state")
    assert found is not None
    assert found.step == step + 1
    resumed = trained(tmp_path / "run")
    same(straight.raw.state_dict(), resumed.raw.state_dict())
    same(straight.average.state_dict(), resumed.average.state_dict())


@pytest.mark.usefixtures("interruptible")
def test_a_run_that_is_asked_to_stop_at_the_end_of_its_last_step_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look(flag: bool, device: torch.device) -> bool:
        asked.append(flag)
        if len(asked) == BASE.steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return flag

    monkeypatch.setattr("radiffuse.train.loop.any_rank", look)
    with (
        pytest.raises(Stopped, match=f"stopped after step {BASE.steps}"),
        start_run(tmp_path / "run", "toy", {}) as run,
    ):
        train(Toy(), batches, run, BASE, CPU)
    assert asked == [False] * BASE.steps + [True]


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_ends_a_run_at_once(tmp_path: Path) -> None:
    def asking(at: int, rank: int = 0, world: int = 1) -> Batch:
        if at == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return batches(at, rank, world)

    with pytest.raises(KeyboardInterrupt) as caught, start_run(tmp_path / "run", "toy", {}) as run:
        train(Toy(), asking, run, BASE, CPU)
    assert caught.type is KeyboardInterrupt
    found = load_newest(tmp_path / "run" / "state")
    assert found is not None
    assert found.step == 2


def test_an_interrupt_that_is_ignored_stays_so(tmp_path: Path) -> None:
    def asking(at: int, rank: int = 0, world: int = 1) -> Batch:
        os.kill(os.getpid(), signal.SIGINT)
        return batches(at, rank, world)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with start_run(tmp_path / "run", "toy", {}) as run:
            done = train(Toy(), asking, run, BASE, CPU)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.share == 1


def test_a_run_that_goes_on_by_other_threads_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sums are in another order; so are those of another processor, card, arithmetic or version of torch."""
    with start_run(tmp_path, "toy", {}) as run, pytest.raises(Killed):
        train(Toy(), killing(3), run, BASE, CPU)
    with start_run(tmp_path, "toy", {}) as run, pytest.raises(Killed):
        train(Toy(), killing(5), run, BASE, CPU)
    assert "goes on with" not in capsys.readouterr().err
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    trained(tmp_path)
    said = capsys.readouterr().err
    assert f"{tmp_path} goes on with threads {threads + 1}, not {threads}: it rounds" in said


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = trained(tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    with start_run(tmp_path / "run", "toy", {}) as run:
        again = train(Toy(), killing(0), run, BASE, CPU)
    same(first.raw.state_dict(), again.raw.state_dict())
    assert (tmp_path / "run" / "log.jsonl").read_text() == log


def test_what_a_kill_left_of_old_checkpoints_goes(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    state = tmp_path / "run" / "state"
    kept = {path.name for path in state.iterdir()}
    shutil.copytree(state / max(kept), state / "step-00000001")
    trained(tmp_path / "run")
    assert {path.name for path in state.iterdir()} == kept


def test_a_kill_while_checkpoints_are_removed_leaves_none_to_train_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path / "run")
    run, remove = Run(tmp_path / "run"), shutil.rmtree

    def killed(folder: Path, **_: object) -> None:
        if folder.exists():  # the newest goes first, as a file system may have it
            remove(max(folder.iterdir()))
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        drop_all(run.state)
    monkeypatch.undo()
    assert run.reached is None
    with start_run(run.folder, "toy", {}):
        assert not [path.name for path in run.folder.iterdir() if "state" in path.name]


def test_a_longer_run_begins_as_a_shorter_one(tmp_path: Path) -> None:
    constant = dataclasses.replace(BASE, decay="constant", warmup_steps=0)
    straight = trained(tmp_path / "straight", constant)
    trained(tmp_path / "run", dataclasses.replace(constant, steps=3))
    longer = trained(tmp_path / "run", constant)
    same(straight.raw.state_dict(), longer.raw.state_dict())


class Plain(Toy):
    """The same without dropout and batch norm, which see how a batch is parted."""

    def build(self) -> nn.Module:
        network = super().build()
        assert isinstance(network, nn.Sequential)
        network[1], network[2] = nn.Identity(), nn.Identity()
        return network


@pytest.mark.parametrize("micro", [1, 2, 3])
def test_micro_batches_add_up(tmp_path: Path, micro: int) -> None:
    whole = trained(tmp_path / "whole", task=Plain())
    training = dataclasses.replace(BASE, micro_batch=micro)
    parts = trained(tmp_path / "parts", training, Plain())
    for a, b in zip(whole.raw.parameters(), parts.raw.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    losses = [
        [row["loss"] for row in Run(tmp_path / name).log() if "loss" in row]
        for name in ("whole", "parts")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loop_is_the_textbook_loop(tmp_path: Path) -> None:
    """Against a loop written out here: Adam, clipping, schedule, warmed-up average."""
    training = dataclasses.replace(BASE, optimizer="adam", gradient_clip=0.5)
    found = trained(tmp_path / "run", training, Plain())
    task = Plain()
    network = task.build()
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=0.01)
    average = [p.detach().clone().double() for p in network.parameters()]
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        random = StepRandom(0, step, total=4, start=0, stop=4, device=torch.device("cpu"))
        optimizer.zero_grad()
        task.loss(network, batches(step), random).value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        rate = min(0.9, (1 + step) / (10 + step))
        for mean, parameter in zip(average, network.parameters(), strict=True):
            now = parameter.detach().double()
            mean.copy_(now if step == 0 else rate * mean + (1 - rate) * now)
    for a, b in zip(found.raw.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for a, mean in zip(found.average.parameters(), average, strict=True):
        torch.testing.assert_close(a.double(), mean, rtol=1e-4, atol=1e-6)


def test_the_kernels_that_normalized_are_those_of_this_training(tmp_path: Path) -> None:
    class Normed(Toy):
        def build(self) -> nn.Module:
            return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), Norm(4, 2), nn.Conv2d(4, 1, 1))

    USED.add("triton")  # of what this process did before
    assert trained(tmp_path / "normed", task=Normed()).normalization == ("torch",)
    assert trained(tmp_path / "other").normalization == ()


def test_no_averaging_keeps_the_last_weights(tmp_path: Path) -> None:
    found = trained(tmp_path / "run", dataclasses.replace(BASE, average_decay=0.0))
    same(found.raw.state_dict(), found.average.state_dict())


def test_divergence_names_step_case_and_checkpoint_and_spoils_nothing(tmp_path: Path) -> None:
    expected = r"loss is (inf|nan) at step 3 \(cases case-3.*last good checkpoint is step 2"
    with pytest.raises(TrainingDiverged, match=expected) as error:
        trained(tmp_path / "run", task=Toy(bad_step=3))
    assert "\n" not in str(error.value)
    newest = load_newest(tmp_path / "run" / "state")
    assert newest is not None
    assert newest.step == 2
    assert all(t.isfinite().all() for t in newest.tensors["network"].values())
    with pytest.raises(TrainingDiverged, match="step 0 .*no checkpoint yet"):
        trained(tmp_path / "other", task=Toy(bad_step=0))


def test_validation_and_log_come_when_they_are_asked_for(tmp_path: Path) -> None:
    task = Toy()
    trained(tmp_path / "run", dataclasses.replace(BASE, log_every=4), task)
    rows = Run(tmp_path / "run").log()
    assert [row["step"] for row in rows if "loss" in row] == [4, 6]
    assert [row["step"] for row in rows if "validation" in row] == [3, 6]
    assert task.validated == 2
    task = Toy()
    trained(tmp_path / "off", dataclasses.replace(BASE, validate_every=0), task)
    assert task.validated == 0


class Judged(Toy):
    """Validation scores that are given, one after the other, and the weights that they were given for."""

    judged_by = "score"
    SCORES = (0.2, 0.7, 0.7, 0.1, 0.5, 0.4)

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[dict[str, Tensor]] = []

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        self.weights.append({name: v.clone() for name, v in network.state_dict().items()})
        return {"score": self.SCORES[len(self.weights) - 1], "other": 1.0}


def test_a_run_ends_with_the_weights_of_its_best_validation(tmp_path: Path) -> None:
    training = dataclasses.replace(BASE, validate_every=1)
    task = Judged()
    best = trained(tmp_path / "best", training, task)
    same(
        best.average.state_dict(), task.weights[2]
    )  # of equal scores the later, which has learned longer
    assert [row["kept"] for row in Run(tmp_path / "best").log() if "kept" in row] == [3]
    last = trained(tmp_path / "last", dataclasses.replace(training, keep="last"), task := Judged())
    same(last.average.state_dict(), task.weights[5])
    same(best.raw.state_dict(), last.raw.state_dict())
    without = trained(
        tmp_path / "without", dataclasses.replace(training, validate_every=0), Judged()
    )
    same(without.average.state_dict(), task.weights[5])


@pytest.mark.parametrize("stop", [2, 3, 5])
def test_the_best_weights_outlive_a_kill(tmp_path: Path, stop: int) -> None:
    training = dataclasses.replace(BASE, validate_every=1, checkpoint_every=1)
    straight = trained(tmp_path / "straight", training, task := Judged())
    with pytest.raises(Killed), start_run(tmp_path / "run", "toy", {}) as run:
        train(first := Judged(), killing(stop), run, training, CPU)
    second = Judged()
    second.weights = list(first.weights)
    resumed = trained(tmp_path / "run", training, second)
    same(straight.average.state_dict(), resumed.average.state_dict())
    same(resumed.average.state_dict(), task.weights[2])


def test_validation_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    with_ = trained(tmp_path / "a", dataclasses.replace(BASE, validate_every=1))
    without = trained(tmp_path / "b", dataclasses.replace(BASE, validate_every=0))
    same(with_.raw.state_dict(), without.raw.state_dict())


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    machine = Machine(accelerator="cuda")
    with (
        pytest.raises(InputError, match="accelerator cuda"),
        start_run(tmp_path / "run", "toy", {}) as run,
    ):
        train(Toy(), batches, run, BASE, machine)


class Dropping(Toy):
    """Records which of 144 units dropout lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Conv2d(1, 1, 1, bias=False))

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        output = network(torch.ones_like(batch.images))
        self.kept.append(output.detach() != 0)
        return Loss(output.square().mean())


def kept_units(folder: Path, seed: int = 0) -> list[Tensor]:
    task = Dropping()
    trained(folder, dataclasses.replace(BASE, seed=seed), task)
    return task.kept


def unlike(one: Tensor, other: Tensor) -> bool:
    """Whether two masks are like throws of two coins, which agree half of the time, give or take five deviations."""
    return abs(float((one == other).float().mean()) - 0.5) < 5 * 0.5 / one.numel() ** 0.5


def test_dropout_drops_other_units_in_every_step(tmp_path: Path) -> None:
    kept = kept_units(tmp_path / "run")
    assert len(kept) == 6
    assert all(unlike(one, other) for one, other in itertools.combinations(kept, 2))


def test_dropout_drops_other_units_with_every_seed(tmp_path: Path) -> None:
    first, second = kept_units(tmp_path / "0", seed=0), kept_units(tmp_path / "1", seed=1)
    assert all(unlike(one, other) for one, other in zip(first, second, strict=True))


class Brightness(Plain):
    """Logs how bright its images are."""

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        value = super().loss(network, batch, random).value
        return Loss(value, {"brightness": float(batch.images.mean())})


@pytest.mark.parametrize("micro", [1, 3, None])
def test_logged_terms_are_means_over_the_batch(tmp_path: Path, micro: int | None) -> None:
    training = dataclasses.replace(BASE, micro_batch=micro, validate_every=0)
    trained(tmp_path / "run", training, Brightness())
    found = [row["brightness"] for row in Run(tmp_path / "run").log()]
    expected = [float(batches(step).images.mean()) for step in range(6)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "expected"), [("adamw", 2 * (1 - 0.1 * 0.25)), ("adam", 1.9)]
)
def test_weight_decay_is_decoupled_with_adamw_alone(optimizer: str, expected: float) -> None:
    """Where the loss is flat, AdamW takes lr x decay of a weight; Adam sees decay x weight, and moves by lr.

    Loshchilov and Hutter 2019, algorithm 2. The first move of Adam has the length lr whatever the gradient.
    """
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 2.0)
    training = Training(optimizer=optimizer, learning_rate=0.1, weight_decay=0.25)  # type: ignore[arg-type]
    network.weight.grad = torch.zeros_like(network.weight)
    new_optimizer(network, training).step()
    assert float(network.weight.detach()) == pytest.approx(expected, abs=1e-5)


def test_a_loss_that_is_not_finite_moves_no_weight() -> None:
    for bad, moves in ((0, False), (None, True)):
        task, fabric = Toy(bad_step=bad, dropout=0.0), make_fabric(CPU)
        network = task.build()
        before = [p.detach().clone() for p in network.parameters()]
        model = fabric.setup_module(network)
        optimizer = fabric.setup_optimizers(new_optimizer(network, BASE))
        step = Step(fabric, task, network, model, optimizer, BASE, Passes(4, "run"))
        loss, _ = step(batches(0), 0)
        assert (loss == float("inf")) is not moves
        same_now = [torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True)]
        assert not any(same_now) if moves else all(same_now)
