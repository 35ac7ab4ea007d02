"""The training loop. One loop serves every method; what a method learns is its task."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import Machine, Training
from ..data.batches import Batch
from ..errors import InputError, TrainingDiverged
from ..system.distributed import any_rank, wait_for_main
from .batch_norm import keep_own_statistics, share_statistics
from .checkpoint import (
    Checkpoint,
    drop_old,
    flatten_optimizer,
    in_order_of_weights,
    load_newest,
    save_checkpoint,
    unflatten_optimizer,
)
from .device import make_fabric
from .learning_rate import learning_rate
from .log import Log
from .passes import Passes
from .run import Run
from .sharding import gathered, shard, spread_optimizer, whole
from .step import Step, new_optimizer
from .stopping import Stop, Stopped
from .task import Task

Tensors = tuple[Tensor, ...] | list[Tensor]


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
        Stopped: SIGTERM came; there is a checkpoint of the step it came in.
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
    optimizer = fabric.setup_optimizers(new_optimizer(network, training))
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
    take = Step(fabric, task, network, model, optimizer, training, passes)
    start = found.step if found is not None else 0
    unwritten = found.info.get("log") if found is not None else None
    log = Log(run, start, training, main=fabric.global_rank == 0, unwritten=unwritten)
    began = time.monotonic()
    model.train()
    with Stop() as stop:
        for step in range(start, training.steps):
            batch = batches(step, fabric.global_rank, fabric.world_size).to(fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, training)
            value, terms = take(batch, step)
            if not math.isfinite(value):
                raise TrainingDiverged(_diverged(run, step, batch, value))
            average.update_parameters(network)
            done = step + 1
            last = done == training.steps
            log.add(value, terms, len(batch) * fabric.world_size)
            if last or done % training.log_every == 0:
                log.write(done, learning_rate(step, training))
            if training.validate_every and done % training.validate_every == 0 and not last:
                _validate(task, average, log, done, fabric.device)
                model.train()
            asked = any_rank(stop.asked, fabric.device) and not last
            if asked or (done % training.checkpoint_every == 0 and not last):
                _save(run, done, take, average, log)
            if asked:
                log.close()
                raise Stopped(run.folder, done)
    if start < training.steps:
        if training.validate_every:
            _validate(task, average, log, training.steps, fabric.device)
        _save(run, training.steps, take, average, log)
    if run.main:
        drop_old(run.state)  # a kill may have come between the last checkpoint and this
    log.close()
    seconds = time.monotonic() - began
    if sharded:
        return Trained(gathered(average.module, template), gathered(network, template), seconds)
    keep_own_statistics(network)
    return Trained(average.module.cpu().eval(), network.cpu().eval(), seconds)


# ------------------------------------------------------------------------------------------------ internal


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, warmed up so that early ones do not linger."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        rate = min(decay, (1 + n) / (10 + n)) if decay > 0 else 0.0
        torch._foreach_lerp_(averaged, current, 1 - rate)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=False)


def _spatial_dims(network: nn.Module) -> int:
    weights = (p.ndim - 2 for p in network.parameters())
    return 3 if 3 in weights else 2


def _save(run: Run, done: int, take: Step, average: AveragedModel, log: Log) -> None:
    """A checkpoint of whole tensors, which rank 0 writes."""
    tensors, info = flatten_optimizer(take.optimizer)
    parts = {
        "network": whole(take.network.state_dict()),
        "average": whole(average.state_dict()),
        "optimizer": whole(tensors),
        "task": take.task.state_dict(),
    }
    if run.main:
        more = {"optimizer": info, "threads": torch.get_num_threads(), "log": log.unwritten}
        # A run that is resumed after memory ran out must round as it did before.
        shrunk = {"micro_batch": take.passes.size} if take.passes.shrunk else {}
        save_checkpoint(run.state, Checkpoint(done, parts, more | shrunk))


def _verify_share(training: Training, processes: int) -> None:
    if training.batch_size % processes:
        raise InputError(
            f"--training.batch_size {training.batch_size}",
            f"cannot be shared evenly by {processes} processes",
            f"Use a multiple of {processes}",
        )


def _validate(
    task: Task, average: AveragedModel, log: Log, step: int, device: torch.device
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
