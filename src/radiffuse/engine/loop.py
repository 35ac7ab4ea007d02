"""The training loop. One loop serves every method; what a method learns is its task."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import Machine, Training
from ..data.batches import Batch
from ..errors import TrainingDiverged
from .checkpoint import (
    Checkpoint,
    flatten_optimizer,
    load_newest,
    save_checkpoint,
    unflatten_optimizer,
)
from .device import make_fabric
from .learning_rate import learning_rate
from .mirrors import Mirror, open_mirrors
from .progress import ProgressLine, duration
from .random import StepRandom
from .run import Run

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a task returns for a batch.

    Attributes:
        value: Scalar to descend.
        terms: Numbers for the log, averaged over the batch.
    """

    value: Tensor
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Task(Protocol):
    """A method, as the loop sees it."""

    name: str

    def build(self) -> nn.Module:
        """The network before training; deterministic for the run's seed."""

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The loss of a batch; every random number comes from ``random``."""

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores of the averaged network; empty if there is nothing to validate on."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the task itself has learned, such as a history of losses."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put it back."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training run, on the CPU.

    Attributes:
        average: The network with averaged weights (the last ones where averaging is off).
        raw: The network of the last step.
        seconds: Time spent in this process.
    """

    average: nn.Module
    raw: nn.Module
    seconds: float


def train(
    task: Task,
    batches: Callable[[int, int, int], Batch],
    run: Run,
    training: Training,
    machine: Machine,
) -> Trained:
    """Train a task, going on from the newest checkpoint of the run if there is one.

    Args:
        task: What to learn.
        batches: ``batches(step, rank, world)``, pure.
        run: Where checkpoints and the log go.
        training: The optimization.
        machine: Device and precision.

    Raises:
        TrainingDiverged: The loss is not finite.
    """
    fabric = make_fabric(machine)
    torch.manual_seed(training.seed)
    network = task.build()
    if machine.channels_last:
        layout = torch.channels_last if _spatial_dims(network) == 2 else torch.channels_last_3d
        network = network.to(memory_format=layout)  # type: ignore[call-overload]
    average = _averaged(network, training.average_decay)
    forward = torch.compile(network) if machine.compile else network
    optimizer = _optimizer(network, training)
    model, optimizer = fabric.setup(forward, optimizer)
    average.to(fabric.device)

    start = _resume(run, task, network, average, optimizer)
    log = _Log(run, start, training, main=fabric.global_rank == 0)
    began = time.monotonic()
    model.train()
    for step in range(start, training.steps):
        batch = batches(step, fabric.global_rank, fabric.world_size).to(fabric.device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        value, terms = _step(fabric, model, optimizer, task, batch, step, training)
        if not math.isfinite(value):
            raise TrainingDiverged(_diverged(run, step, batch, value))
        average.update_parameters(network)
        done = step + 1
        log.add(value, terms, len(batch) * fabric.world_size)
        if done % training.log_every == 0 or done == training.steps:
            log.write(done, learning_rate(step, training))
        if (
            training.validate_every
            and done % training.validate_every == 0
            and done < training.steps
        ):
            _validate(task, average, log, done, fabric.device)
            model.train()
        if done % training.checkpoint_every == 0 and done < training.steps and log.main:
            save_checkpoint(run.state, _checkpoint(done, task, network, average, optimizer))
    if start < training.steps and log.main:
        if training.validate_every:
            _validate(task, average, log, training.steps, fabric.device)
        save_checkpoint(run.state, _checkpoint(training.steps, task, network, average, optimizer))
    log.close()
    return Trained(average.module.cpu().eval(), network.cpu().eval(), time.monotonic() - began)


# ------------------------------------------------------------------------------------------------ internal


def _step(
    fabric: Any,
    model: Any,
    optimizer: Any,
    task: Task,
    batch: Batch,
    step: int,
    training: Training,
) -> tuple[float, dict[str, float]]:
    """One optimizer step, in as many passes as the micro-batch asks for."""
    size = len(batch)
    first = fabric.global_rank * size
    micro = training.micro_batch or size
    torch.manual_seed((training.seed << 32) ^ step)  # for dropout
    total, terms = 0.0, dict[str, float]()
    for start in range(0, size, micro):
        part = batch.part(start, min(start + micro, size))
        random = StepRandom(
            training.seed,
            step,
            total=size * fabric.world_size,
            start=first + start,
            stop=first + start + len(part),
            device=fabric.device,
        )
        last = start + micro >= size
        with fabric.no_backward_sync(model, enabled=not last and fabric.world_size > 1):
            loss = task.loss(model, part, random)
            share = len(part) / size
            fabric.backward(loss.value * share)
        total += float(loss.value.detach()) * share
        for name, term in loss.terms.items():
            terms[name] = terms.get(name, 0.0) + term * share
    if not math.isfinite(total):
        return total, terms
    if training.gradient_clip is not None:
        fabric.clip_gradients(
            model, optimizer, max_norm=training.gradient_clip, error_if_nonfinite=False
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, terms


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, warmed up so that early ones do not linger."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        rate = min(decay, (1 + n) / (10 + n)) if decay > 0 else 0.0
        torch._foreach_lerp_(averaged, current, 1 - rate)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=False)


def _optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    cls = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    parameters = [p for p in network.parameters() if p.requires_grad]
    return cls(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


def _spatial_dims(network: nn.Module) -> int:
    weights = (p.ndim - 2 for p in network.parameters())
    return 3 if 3 in weights else 2


def _checkpoint(
    step: int, task: Task, network: nn.Module, average: AveragedModel, optimizer: Any
) -> Checkpoint:
    tensors, info = flatten_optimizer(optimizer)
    return Checkpoint(
        step,
        {
            "network": network.state_dict(),
            "average": average.state_dict(),
            "optimizer": tensors,
            "task": task.state_dict(),
        },
        {"optimizer": info, "threads": torch.get_num_threads()},
    )


def _resume(
    run: Run, task: Task, network: nn.Module, average: AveragedModel, optimizer: Any
) -> int:
    found = load_newest(run.state)
    if found is None:
        return 0
    network.load_state_dict(found.tensors["network"])
    average.load_state_dict(found.tensors["average"])
    unflatten_optimizer(optimizer, found.tensors["optimizer"], found.info["optimizer"])
    task.load_state_dict(found.tensors["task"])
    return found.step


def _validate(
    task: Task, average: AveragedModel, log: _Log, step: int, device: torch.device
) -> None:
    average.eval()
    with torch.no_grad():
        scores = task.validate(average.module, device)
    if scores:
        log.validation(step, scores)


def _diverged(run: Run, step: int, batch: Batch, value: float) -> str:
    newest = load_newest(run.state)
    good = (
        f"the last good checkpoint is step {newest.step}"
        if newest
        else "there is no checkpoint yet"
    )
    names = ", ".join(batch.cases[:4]) + (" ..." if len(batch) > 4 else "")
    return (
        f"{run.folder}: the loss is {value} at step {step} (cases {names}); {good}. "
        "Lower the learning rate or look at these cases with radiffuse check."
    )


class _Log:
    """``log.jsonl`` is the truth; TensorBoard, the progress line and trackers mirror it."""

    def __init__(self, run: Run, start: int, training: Training, *, main: bool) -> None:
        self.main = main
        self.total = training.steps
        self.path = run.folder / "log.jsonl"
        self.line = ProgressLine("step")
        self.began = time.monotonic()
        self.start = start
        self.images = 0
        self.values: list[float] = []
        self.terms: dict[str, list[float]] = {}
        self.mirrors: list[Mirror] = []
        if main:
            self._forget_after(run, start)
            self.mirrors = open_mirrors(run, training, start)

    def add(self, value: float, terms: Mapping[str, float], images: int) -> None:
        self.images += images
        self.values.append(value)
        for name, term in terms.items():
            self.terms.setdefault(name, []).append(term)

    def write(self, step: int, rate: float) -> None:
        seconds = time.monotonic() - self.began
        speed = self.images / max(seconds, 1e-9)
        loss = sum(self.values) / len(self.values)
        means = {name: sum(v) / len(v) for name, v in self.terms.items()}
        self.values, self.terms = [], {}
        if not self.main:
            return
        row = {
            "step": step,
            "loss": loss,
            **means,
            "learning_rate": rate,
            "images_per_second": round(speed, 2),
            "seconds": round(seconds, 2),
        }
        self._append(row)
        left = (self.total - step) * seconds / max(1, step - self.start)
        self.line.update(
            step, self.total, f"loss {loss:.4f}  {speed:.1f} images/s  {duration(left)} left"
        )

    def validation(self, step: int, scores: Mapping[str, float]) -> None:
        if self.main:
            self._append({"step": step, "validation": dict(scores)})

    def close(self) -> None:
        for mirror in self.mirrors:
            mirror.close()

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step"
        }
        for name, value in row.get("validation", {}).items():
            numbers[f"validation/{name}"] = float(value)
        for mirror in self.mirrors:
            mirror.log(row["step"], numbers)

    def _forget_after(self, run: Run, start: int) -> None:
        """Steps that are done again are logged again."""
        rows = [row for row in run.log() if row.get("step", 0) <= start]
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
