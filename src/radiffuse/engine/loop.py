"""The training loop. One loop serves every method; what a method learns is its task."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import Machine, Training
from ..data.batches import Batch
from ..distributed import gather_objects, mean_over_ranks, wait_for_main
from ..errors import InputError, TrainingDiverged, is_out_of_memory
from ..files import write_atomic
from ..nets.norm import keep_own_statistics, share_statistics
from .checkpoint import (
    Checkpoint,
    flatten_optimizer,
    in_order_of_weights,
    load_newest,
    save_checkpoint,
    unflatten_optimizer,
)
from .device import make_fabric
from .learning_rate import learning_rate
from .mirrors import Mirror, open_mirrors
from .passes import Passes, Undo
from .progress import ProgressLine, duration
from .random import StepRandom
from .run import Run
from .sharding import gathered, shard, spread_optimizer, whole

RANK_STRIDE = 1_000_003
"""Between the seeds of dropout of neighboring ranks."""

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
        machine: Device, precision and processes.

    Raises:
        InputError: The batch cannot be shared by the processes.
        TrainingDiverged: The loss is not finite.
    """
    fabric = make_fabric(machine)
    _verify_share(training, fabric.world_size)
    wait_for_main()
    torch.manual_seed(training.seed)
    network = task.build()
    sharded = machine.strategy == "fsdp" and fabric.world_size > 1
    if machine.channels_last and not sharded:  # shards are cut from contiguous weights
        layout = torch.channels_last if _spatial_dims(network) == 2 else torch.channels_last_3d
        network = network.to(memory_format=layout)  # type: ignore[call-overload]
    average = _averaged(network, training.average_decay)
    found = load_newest(run.state)
    if found is not None:
        network.load_state_dict(found.tensors["network"])
        average.load_state_dict(found.tensors["average"])
        task.load_state_dict(found.tensors["task"])
    template = copy.deepcopy(network) if sharded else network
    share_statistics(network)
    model = fabric.setup_module(torch.compile(network) if machine.compile else network)
    optimizer = fabric.setup_optimizers(_optimizer(network, training))
    if sharded:
        shard(average.module, fabric.strategy.device_mesh)
    average.to(fabric.device)
    if found is not None:
        state = unflatten_optimizer(found.tensors["optimizer"], found.info["optimizer"])
        arrange = spread_optimizer if sharded else in_order_of_weights
        optimizer.load_state_dict(arrange(optimizer, state))

    passes = Passes(training.micro_batch or training.batch_size, str(run.folder), fabric.world_size)
    if found is not None and "micro_batch" in found.info:
        passes.size, passes.shrunk = int(found.info["micro_batch"]), True
    start = found.step if found is not None else 0
    log = _Log(run, start, training, main=fabric.global_rank == 0)
    began = time.monotonic()
    model.train()
    for step in range(start, training.steps):
        batch = batches(step, fabric.global_rank, fabric.world_size).to(fabric.device)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        value, terms = _step(fabric, model, network, optimizer, task, batch, step, training, passes)
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
        if done % training.checkpoint_every == 0 and done < training.steps:
            _save(run, done, task, network, average, optimizer, passes)
    if start < training.steps:
        if training.validate_every:
            _validate(task, average, log, training.steps, fabric.device)
        _save(run, training.steps, task, network, average, optimizer, passes)
    log.close()
    seconds = time.monotonic() - began
    if sharded:
        return Trained(gathered(average.module, template), gathered(network, template), seconds)
    keep_own_statistics(network)
    return Trained(average.module.cpu().eval(), network.cpu().eval(), seconds)


# ------------------------------------------------------------------------------------------------ internal


def _step(
    fabric: Any,
    model: Any,
    network: nn.Module,
    optimizer: Any,
    task: Task,
    batch: Batch,
    step: int,
    training: Training,
    passes: Passes,
) -> tuple[float, dict[str, float]]:
    """One optimizer step; where memory runs out, its passes are done once more, with fewer images each."""
    undo = Undo(network, task)
    while True:
        try:
            total, terms = _gradient(fabric, model, task, batch, step, training, passes.size)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:120]
        # Not in the handler: the error holds the frames, and with them the tensors, of the pass that failed.
        undo()
        passes.shrink(network, task, reason)
    if fabric.world_size > 1:
        total = float(mean_over_ranks(torch.tensor(total, device=fabric.device)))
    if not math.isfinite(total):
        return total, terms
    if training.gradient_clip is not None:
        fabric.clip_gradients(
            model, optimizer, max_norm=training.gradient_clip, error_if_nonfinite=False
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, terms


def _gradient(
    fabric: Any,
    model: Any,
    task: Task,
    batch: Batch,
    step: int,
    training: Training,
    micro: int,
) -> tuple[float, dict[str, float]]:
    """The gradient of a step, added up over passes of ``micro`` images; its loss and terms."""
    size = len(batch)
    first = fabric.global_rank * size
    torch.manual_seed(((training.seed << 32) ^ step) + RANK_STRIDE * fabric.global_rank)  # dropout
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
    rate, decay = training.learning_rate, training.weight_decay
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return cls(parameters, lr=rate, weight_decay=decay, fused=True)


def _spatial_dims(network: nn.Module) -> int:
    weights = (p.ndim - 2 for p in network.parameters())
    return 3 if 3 in weights else 2


def _save(
    run: Run,
    step: int,
    task: Task,
    network: nn.Module,
    average: AveragedModel,
    optimizer: Any,
    passes: Passes,
) -> None:
    """A checkpoint of whole tensors, which rank 0 writes."""
    tensors, info = flatten_optimizer(optimizer)
    parts = {
        "network": whole(network.state_dict()),
        "average": whole(average.state_dict()),
        "optimizer": whole(tensors),
        "task": task.state_dict(),
    }
    if run.main:
        more = {"optimizer": info, "threads": torch.get_num_threads()}
        # A run that is resumed after memory ran out must round as it did before.
        shrunk = {"micro_batch": passes.size} if passes.shrunk else {}
        save_checkpoint(run.state, Checkpoint(step, parts, more | shrunk))


def _verify_share(training: Training, processes: int) -> None:
    if training.batch_size % processes:
        raise InputError(
            f"--training.batch_size {training.batch_size}",
            f"cannot be shared evenly by {processes} processes",
            f"Use a multiple of {processes}",
        )


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
            run.folder.mkdir(parents=True, exist_ok=True)
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
        means = _means(gather_objects(self.terms))
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
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))


def _means(terms: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Mean of each term over steps and ranks; a term may be missing on some."""
    names = dict.fromkeys(name for part in terms for name in part)
    found = {name: [v for part in terms for v in part.get(name, ())] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
