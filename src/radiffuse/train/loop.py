"""The training loop. One loop serves every method; what a method learns is its task."""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..config import Machine, Training
from ..core.finite import not_finite
from ..data.batches import Batch
from ..errors import InputError, TrainingDiverged
from ..nets.norm import USED
from ..system.distributed import any_rank, mean_over_ranks, wait_for_main
from ..system.hardware import forget_peak_memory
from ..system.heap import Heap
from .ahead import Ahead
from .batch_norm import keep_own_statistics, share_statistics
from .checkpoint import (
    Checkpoint,
    drop_old,
    fitting,
    flatten_optimizer,
    in_order_of_weights,
    load_newest,
    save_checkpoint,
    unflatten_optimizer,
)
from .device import computes_by, fixed_order, make_fabric, say_other
from .learning_rate import cut_short, learning_rate, weight_decay
from .log import Log, unwritten_of
from .passes import Passes
from .run import Run
from .sharding import gathered, shard, shard_optimizer, whole_tensors
from .step import Step, build_network, new_optimizer, without_gradient
from .stopping import Stop
from .task import AT_ONCE, BatchesByStep, Task

Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a training run, on the CPU.

    Attributes:
        average: The network with averaged weights, the best by validation if the task judges them, else the last (where
            averaging is off, the weights themselves).
        raw: The network of the last step.
        seconds: Time spent in this process.
        share: Of the work of all steps, the part that was done in it, 0 to 1.
        normalization: Whose kernels normalized, see ``nets.norm.USED``.
    """

    average: nn.Module
    raw: nn.Module
    seconds: float
    share: float = 0.0
    normalization: tuple[str, ...] = ()


def train(
    task: Task,
    batches: BatchesByStep,
    run: Run,
    training: Training,
    machine: Machine,
    group: str = "",
) -> Trained:
    """Train a task, from the newest checkpoint of the run if there is one; ``group`` as in ``cut_short``.

    Raises:
        InputError: The batch cannot be divided evenly among the processes, or more steps are done than are asked for.
        RunError: The checkpoint is of another network or other settings.
        TrainingDiverged: The loss is not finite, or a weight.
        Stopped, KeyboardInterrupt: SIGTERM or SIGINT came; there is a checkpoint of the step it came in.
    """
    fabric = make_fabric(machine)
    with fixed_order(machine, fabric.device):
        return _train(fabric, task, batches, run, training, machine, group)


def _train(
    fabric: Any,
    task: Task,
    batches: BatchesByStep,
    run: Run,
    training: Training,
    machine: Machine,
    group: str,
) -> Trained:
    rank, world, device = fabric.global_rank, fabric.world_size, fabric.device
    if training.batch % world:
        where = f"--{group}training.batch-size {training.batch_size}"
        problem = f"cannot be shared evenly by {world} processes"
        raise InputError(where, problem, f"Use a multiple of {world}")
    wait_for_main()
    state = _State(fabric, task, run, training, machine)
    start, steps, log = state.start, training.length, state.log
    if start > steps:
        problem = f"is at step {start} already, more than --{group}training.steps {steps}"
        remedy = "Ask for as many steps or more, or choose another --out"
        raise InputError(run.folder, problem, remedy)
    for remark in (task.remark(training), cut_short(training, group)):
        if run.main and not start and remark:
            print(f"radiffuse: {run.folder}: {remark}", file=sys.stderr)
    began, done, last, stopping = time.monotonic(), start, False, False
    ahead = Ahead(batches, device, rank=rank, world=world, end=steps)
    with Stop() as stop, ahead, Heap(device.type, world) as heap:
        for step in range(start, steps):
            batch = ahead(step)
            rate, decay = learning_rate(step, training), weight_decay(step, training)
            loss, terms = state.update(batch, step, rate, decay)
            if step >= training.coarse_steps:
                heap.settle()
            if not math.isfinite(loss):
                names = ", ".join(batch.cases[:4]) + (" ..." if len(batch.cases) > 4 else "")
                raise _diverged(run, f"the loss is {loss} at step {step} (cases {names})")
            done, last = step + 1, step + 1 == steps
            log.add(loss, terms, batch.seen * world, done, 2 ** (batch.images.ndim - 2))
            if last or done % training.log_every == 0:
                log.write(done, rate)
            if training.validate_every and done % training.validate_every == 0 and not last:
                state.validate(done)
            stopping = any_rank(stop.requested is not None, device)
            if not last and (stopping or done % training.checkpoint_every == 0):
                state.save(done)
            if stopping:
                break
    stopping = stopping or any_rank(stop.requested is not None, device)  # after the last look
    if last:
        if training.validate_every:
            state.validate(steps)
        if state.best is not None:
            log.kept(steps, state.best[0])
        state.save(steps)
    log.close()
    if stopping:
        raise stop.stopped(run.folder, done)
    if run.main:
        drop_old(run.state)  # a kill may have come between the last checkpoint and this
    return Trained(*state.networks(), time.monotonic() - began, log.share, tuple(sorted(USED)))


class _State:
    """All that a checkpoint holds: network, averaged weights, optimizer, task and log; restored if there is one.

    Attributes:
        start: Steps that are done.
        network: The network itself; ``model`` is the same as ``fabric`` set it up, compiled where the settings say so.
        average: Its averaged weights.
        best: Step, score and averaged weights of the best validation so far.
    """

    def __init__(
        self, fabric: Any, task: Task, run: Run, training: Training, machine: Machine
    ) -> None:
        self.task, self.run, self.device = task, run, fabric.device
        self.computes = computes_by(fabric.device, machine)
        forget_peak_memory()
        USED.clear()
        self.judged_by = task.judged_by if training.keep == "best" else None
        self.best: tuple[int, float, dict[str, Tensor]] | None = None
        torch.manual_seed(training.seed)
        self.sharded = machine.strategy == "fsdp" and fabric.world_size > 1
        self.network = network = build_network(task, machine, sharded=self.sharded)
        self.average = _averaged(network, training.average_decay)
        newest = load_newest(run.state)
        if newest is not None:
            with fitting(run.state, newest):
                network.load_state_dict(newest.tensors["network"])
                if best := newest.info.get("best"):
                    weights = dict(newest.tensors["best"])
                    self.best = (int(best["step"]), float(best["score"]), weights)
                    self.average.module.load_state_dict(weights)  # only to see that they fit
                self.average.load_state_dict(newest.tensors["average"])
                task.load_state_dict(newest.tensors["task"])
        self.template = copy.deepcopy(network) if self.sharded else network
        share_statistics(network)
        self.model = fabric.setup_module(torch.compile(network) if machine.compile else network)
        new = new_optimizer(network, training, decays_vectors=task.decays_vectors)
        optimizer = self.optimizer = fabric.setup_optimizers(new)
        if self.sharded:
            shard(self.average.module, fabric.strategy.device_mesh)
        self.average.to(self.device).eval()
        task.averaged = without_gradient(self.average.module, fabric)
        passes = Passes(training.micro_batch or training.batch, str(run.folder), fabric.world_size)
        self.passes, self.start, unwritten = passes, 0, None
        if newest is not None:
            with fitting(run.state, newest):
                moments, info = newest.tensors["optimizer"], newest.info
                scheduled = training.final_weight_decay is not None
                own = {"weight_decay"} if scheduled else set[str]()
                content = unflatten_optimizer(optimizer, moments, info["optimizer"], own)
                arrange = shard_optimizer if self.sharded else in_order_of_weights
                optimizer.load_state_dict(arrange(optimizer, content))
                if "micro_batch" in info:
                    passes.resume(info["micro_batch"])
                self.start, unwritten = newest.step, unwritten_of(info.get("log"))
                say_other(run.folder, info.get("computed_by"), self.computes)
        self.step = Step(fabric, task, network, self.model, optimizer, training, passes)
        self.log = Log(run, self.start, training, main=fabric.global_rank == 0, unwritten=unwritten)
        self.model.train()

    def update(
        self, batch: Batch, number: int, rate: float, decay: float
    ) -> tuple[float, dict[str, float]]:
        """Take step ``number`` at a learning rate and a weight decay: its loss and terms.

        A loss that is not finite moves no weight.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.param_groups[0]["weight_decay"] = decay
        loss, terms = self.step(batch, number)
        if math.isfinite(loss):
            self.average.update_parameters(self.network)
        return loss, terms

    def validate(self, done: int) -> None:
        """Log the scores of the averaged network, with no more films in a pass than training has room for."""
        self.average.eval()
        share = self.step.training.batch // self.step.fabric.world_size
        room = self.passes.size if self.passes.size < share else AT_ONCE
        self.task.at_once = min(room, AT_ONCE)
        with torch.no_grad():
            scores = self.task.validate(self.average.module, self.device)
        if scores:
            self.log.validation(done, scores)
        score = scores.get(self.judged_by or "")
        if score is not None and self.step.fabric.world_size > 1:
            # Rounding may differ by process, and all have to agree: whole weights are gathered by all or by none.
            score = float(mean_over_ranks(torch.tensor(score, device=self.device)))
        if score is not None and (self.best is None or score >= self.best[1]):
            weights = whole_tensors(self.average.module.state_dict())
            self.best = (done, score, {name: v.cpu().clone() for name, v in weights.items()})
        self.model.train()

    def save(self, done: int) -> None:
        """Write a checkpoint of whole tensors; every process takes part, rank 0 writes."""
        tensors, info = flatten_optimizer(self.optimizer)
        parts = {
            "network": whole_tensors(self.network.state_dict()),
            "average": whole_tensors(self.average.state_dict()),
            "optimizer": whole_tensors(tensors),
            "task": self.task.state_dict(),
        }
        if name := not_finite(parts["network"]) or not_finite(parts["average"]):
            raise _diverged(self.run, f"the weights {name} are not finite after step {done}")
        unwritten = self.log.unwritten()
        if self.run.main:
            more = {
                "optimizer": info,
                "computed_by": self.computes,
                "log": unwritten,
            }
            # A run that is resumed after memory ran out must round as it did before.
            shrunk = {"micro_batch": self.passes.size} if self.passes.shrunk else {}
            if self.best is not None:
                step, score, parts["best"] = self.best
                more["best"] = {"step": step, "score": score}
            save_checkpoint(self.run.state, Checkpoint(done, parts, more | shrunk))

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The averaged network and that of the last step, whole and on the CPU."""
        average, last = self.average.module, self.network
        if self.sharded:
            average, last = gathered(average, self.template), gathered(last, self.template)
        else:
            keep_own_statistics(last)
            average, last = average.cpu().eval(), last.cpu().eval()
        if self.best is not None:
            average.load_state_dict(self.best[2])
        return average, last


def _averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, warmed up so that early ones do not linger."""

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        rate = min(decay, (1 + n) / (10 + n)) if decay > 0 else 0.0
        torch._foreach_lerp_(averaged, current, 1 - rate)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=False)


def _diverged(run: Run, what: str) -> TrainingDiverged:
    newest = load_newest(run.state)
    good = (
        f"the last good checkpoint is step {newest.step}"
        if newest
        else "there is no checkpoint yet"
    )
    return TrainingDiverged(
        f"{run.folder}: {what}; {good}. "
        "Lower the learning rate or look at the cases with radiffuse check."
    )
