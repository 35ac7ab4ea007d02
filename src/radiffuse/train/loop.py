"""The training loop. One loop serves every method; what a method learns is its task."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import Machine, Training
from ..data.batches import Batch
from ..errors import InputError, TrainingDiverged
from ..nets.blocks import channels_last
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
from .sharding import gathered, shard, shard_optimizer, whole
from .step import Step, new_optimizer
from .stopping import Stop, Stopped
from .task import BatchesByStep, Task

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
    task: Task, batches: BatchesByStep, run: Run, training: Training, machine: Machine
) -> Trained:
    """Train a task, from the newest checkpoint of the run if there is one.

    Raises:
        InputError: The batch cannot be divided evenly among the processes.
        TrainingDiverged: The loss is not finite.
        Stopped: SIGTERM came; there is a checkpoint of the step it came in.
    """
    fabric = make_fabric(machine)
    rank, world, device = fabric.global_rank, fabric.world_size, fabric.device
    if training.batch_size % world:
        where = f"--training.batch_size {training.batch_size}"
        problem = f"cannot be shared evenly by {world} processes"
        raise InputError(where, problem, f"Use a multiple of {world}")
    wait_for_main()
    state = _State(fabric, task, run, training, machine)
    start, steps, log = state.start, training.steps, state.log
    began = time.monotonic()
    with Stop() as stop:
        for step in range(start, steps):
            batch = batches(step, rank, world).to(device)
            rate = learning_rate(step, training)
            loss, terms = state.update(batch, step, rate)
            if not math.isfinite(loss):
                raise _diverged(run, step, batch.cases, loss)
            done = step + 1
            last = done == steps
            log.add(loss, terms, len(batch) * world)
            if last or done % training.log_every == 0:
                log.write(done, rate)
            if training.validate_every and done % training.validate_every == 0 and not last:
                state.validate(done)
            stopping = any_rank(stop.requested, device) and not last
            if stopping or (done % training.checkpoint_every == 0 and not last):
                state.save(done)
            if stopping:
                log.close()
                raise Stopped(run.folder, done)
    if start < steps:
        if training.validate_every:
            state.validate(steps)
        state.save(steps)
    if run.main:
        drop_old(run.state)  # a kill may have come between the last checkpoint and this
    log.close()
    seconds = time.monotonic() - began
    return Trained(*state.networks(), seconds)


class _State:
    """All that a checkpoint holds: network, averaged weights, optimizer, task and log; restored if there is one.

    Attributes:
        start: Steps that are done.
        network: The network itself; ``model`` is the same as ``fabric`` set it up, compiled where the settings say so.
        average: Its averaged weights.
    """

    def __init__(
        self, fabric: Any, task: Task, run: Run, training: Training, machine: Machine
    ) -> None:
        self.task, self.run, self.device = task, run, fabric.device
        torch.manual_seed(training.seed)
        self.network = network = task.build()
        self.sharded = machine.strategy == "fsdp" and fabric.world_size > 1
        if machine.channels_last and not self.sharded:  # shards are cut from contiguous weights
            layout = channels_last(3 if any(p.ndim == 5 for p in network.parameters()) else 2)
            network.to(memory_format=layout)  # type: ignore[call-overload]
        self.average = _averaged(network, training.average_decay)
        newest = load_newest(run.state)
        if newest is not None:
            network.load_state_dict(newest.tensors["network"])
            self.average.load_state_dict(newest.tensors["average"])
            task.load_state_dict(newest.tensors["task"])
        self.template = copy.deepcopy(network) if self.sharded else network
        share_statistics(network)
        self.model = fabric.setup_module(torch.compile(network) if machine.compile else network)
        optimizer = self.optimizer = fabric.setup_optimizers(new_optimizer(network, training))
        if self.sharded:
            shard(self.average.module, fabric.strategy.device_mesh)
        self.average.to(self.device)
        passes = Passes(
            training.micro_batch or training.batch_size, str(run.folder), fabric.world_size
        )
        self.passes, self.start, unwritten = passes, 0, None
        if newest is not None:
            content = unflatten_optimizer(newest.tensors["optimizer"], newest.info["optimizer"])
            arrange = shard_optimizer if self.sharded else in_order_of_weights
            optimizer.load_state_dict(arrange(optimizer, content))
            if "micro_batch" in newest.info:
                passes.size, passes.shrunk = int(newest.info["micro_batch"]), True
            self.start, unwritten = newest.step, newest.info.get("log")
        self.step = Step(fabric, task, network, self.model, optimizer, training, passes)
        self.log = Log(run, self.start, training, main=fabric.global_rank == 0, unwritten=unwritten)
        self.model.train()

    def update(self, batch: Batch, number: int, rate: float) -> tuple[float, dict[str, float]]:
        """Take step ``number`` at a learning rate: its loss and terms; a loss that is not finite moves no weight."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, terms = self.step(batch, number)
        if math.isfinite(loss):
            self.average.update_parameters(self.network)
        return loss, terms

    def validate(self, done: int) -> None:
        """Log the scores of the averaged network."""
        self.average.eval()
        with torch.no_grad():
            scores = self.task.validate(self.average.module, self.device)
        if scores:
            self.log.validation(done, scores)
        self.model.train()

    def save(self, done: int) -> None:
        """Write a checkpoint of whole tensors; every process takes part, rank 0 writes."""
        tensors, info = flatten_optimizer(self.optimizer)
        parts = {
            "network": whole(self.network.state_dict()),
            "average": whole(self.average.state_dict()),
            "optimizer": whole(tensors),
            "task": self.task.state_dict(),
        }
        if self.run.main:
            more = {
                "optimizer": info,
                "threads": torch.get_num_threads(),
                "log": self.log.unwritten,
            }
            # A run that is resumed after memory ran out must round as it did before.
            shrunk = {"micro_batch": self.passes.size} if self.passes.shrunk else {}
            save_checkpoint(self.run.state, Checkpoint(done, parts, more | shrunk))

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The averaged network and that of the last step, whole and on the CPU."""
        average = self.average.module
        if self.sharded:
            return gathered(average, self.template), gathered(self.network, self.template)
        keep_own_statistics(self.network)
        return average.cpu().eval(), self.network.cpu().eval()


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, warmed up so that early ones do not linger."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        rate = min(decay, (1 + n) / (10 + n)) if decay > 0 else 0.0
        torch._foreach_lerp_(averaged, current, 1 - rate)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=False)


def _diverged(run: Run, step: int, cases: tuple[str, ...], loss: float) -> TrainingDiverged:
    newest = load_newest(run.state)
    good = (
        f"the last good checkpoint is step {newest.step}"
        if newest
        else "there is no checkpoint yet"
    )
    names = ", ".join(cases[:4]) + (" ..." if len(cases) > 4 else "")
    return TrainingDiverged(
        f"{run.folder}: the loss is {loss} at step {step} (cases {names}); {good}. "
        "Lower the learning rate or look at these cases with radiffuse check."
    )
