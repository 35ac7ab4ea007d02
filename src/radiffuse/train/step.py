"""One optimizer step: a batch in one or several passes, the gradient, its clipping, the new weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from ..config import Training
from ..data.batches import Batch
from ..data.streams import Stream
from ..errors import is_out_of_memory
from ..system.distributed import mean_over_ranks
from .passes import Passes, Undo
from .random import StepRandom
from .task import Task


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimizer step, ready to be taken.

    Attributes:
        fabric: Lightning's, with the device, the precision and the processes.
        task: What is learned.
        network: The network itself.
        model: The network as ``fabric`` set it up, possibly compiled.
        optimizer: As ``fabric`` set it up.
        training: Seed and clipping.
        passes: Images per pass.
    """

    fabric: Any
    task: Task
    network: nn.Module
    model: Any
    optimizer: Any
    training: Training
    passes: Passes

    def __call__(self, batch: Batch, number: int) -> tuple[float, dict[str, float]]:
        """Take step ``number`` on a batch: its loss and terms. A loss that is not finite leaves the weights unchanged.

        Where memory runs out, the passes are repeated with fewer images each.
        """
        undo = Undo(self.network, self.task)
        while True:
            try:
                loss, terms = self.gradient(batch, number)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                words = str(error).strip() or type(error).__name__
                reason = words.splitlines()[0].rstrip(".")[:120]
            # Not in the handler: the error keeps the frames, and so the tensors, of the failed pass alive.
            undo()
            self.passes.shrink(self.network, self.task, reason)
        if self.fabric.world_size > 1:
            loss = float(mean_over_ranks(torch.tensor(loss, device=self.fabric.device)))
        if math.isfinite(loss):
            if (clip := self.training.gradient_clip) is not None:
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=clip, error_if_nonfinite=False
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return loss, terms

    def gradient(self, batch: Batch, number: int) -> tuple[float, dict[str, float]]:
        """Accumulate the gradient of a step, pass by pass; its loss and terms."""
        fabric, seed, size = self.fabric, self.training.seed, len(batch)
        first = fabric.global_rank * size
        torch.manual_seed(Stream.DROPOUT.torch_seed(seed, number, fabric.global_rank))
        total, terms = 0.0, dict[str, float]()
        for start in range(0, size, self.passes.size):
            stop = min(start + self.passes.size, size)
            random = StepRandom(
                seed,
                number,
                total=size * fabric.world_size,
                start=first + start,
                stop=first + stop,
                device=fabric.device,
            )
            weight = (stop - start) / size
            waits = stop < size and fabric.world_size > 1
            with fabric.no_backward_sync(self.model, enabled=waits):
                loss = self.task.loss(self.model, batch.part(start, stop), random)
                fabric.backward(loss.value * weight)
            total += float(loss.value.detach()) * weight
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0.0) + term * weight
        return total, terms


def new_optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimizer of the settings, over all weights that learn."""
    cls = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    parameters = [p for p in network.parameters() if p.requires_grad]
    rate, decay = training.learning_rate, training.weight_decay
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return cls(parameters, lr=rate, weight_decay=decay, fused=True)
