"""One optimizer step: a batch in one or several passes, the gradient, its clipping, the new weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Machine, Training
from ..data.batches import Batch
from ..data.streams import Stream
from ..errors import first_line, is_out_of_memory
from ..nets.memory_format import channels_last
from ..nets.unet import UNet
from ..system.distributed import mean_over_ranks
from .passes import BeforeStep, Passes
from .random import StepRandom
from .task import Images, Task


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

        The first steps see the batch at half the resolution, where the settings say so.
        Where memory runs out, the passes are repeated with fewer images each.

        Raises:
            InputError: Batch normalization would see a single number of a channel.
        """
        if number < self.training.coarse_steps:
            batch = batch.halved(number)
        undo = BeforeStep(self.network, self.task)
        while True:
            try:
                loss, terms = self.gradient(batch, number)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):  # torch's words
                    raise
                raise self.passes.too_small() from None
            # Not in the handler: the error keeps the frames, and so the tensors, of the failed pass alive.
            undo()
            self.passes.shrink(self.network, self.task, reason)
        if self.fabric.world_size > 1:
            loss = float(mean_over_ranks(torch.tensor(loss, device=self.fabric.device)))
        if math.isfinite(loss):
            for weight in self.task.held(self.network, number):
                weight.grad = None
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
        total, terms, shares = 0.0, dict[str, float](), dict[str, float]()
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
            part = batch.part(start, stop)
            losses = self.task.losses_of(part)
            for loss_of in losses:
                waits = (stop < size or loss_of is not losses[-1]) and fabric.world_size > 1
                with fabric.no_backward_sync(self.model, enabled=waits):
                    loss = loss_of(self.model, part, random)
                    fabric.backward(loss.value * weight)
                total += float(loss.value.detach()) * weight
                for name, term in loss.terms.items():
                    if isinstance(term, Tensor):
                        mean, share = float(term.sum()) / max(1, len(term)), len(term) / size
                    else:
                        mean, share = term, weight
                    terms[name] = terms.get(name, 0.0) + mean * share
                    shares[name] = shares.get(name, 0.0) + share
        return total, {name: terms[name] / share for name, share in shares.items() if share}


def without_gradient(network: nn.Module, fabric: Any) -> Images:
    """Logits of a network for its task, with the precision of ``fabric``."""

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad(), fabric.autocast():
            found: Tensor = network(images).float()
        return found

    return logits


def build_network(task: Task, machine: Machine, *, sharded: bool = False) -> nn.Module:
    """The network of a task before training, with the layout and the checkpointing of the settings."""
    network = task.build()
    for part in network.modules():
        if isinstance(part, UNet) and any(p.requires_grad for p in part.parameters()):
            part.checkpoint_activations = bool(machine.checkpoint_activations)
    if machine.channels_last and not sharded:  # shards are cut from contiguous weights
        layout = channels_last(3 if any(p.ndim == 5 for p in network.parameters()) else 2)
        network.to(memory_format=layout)  # type: ignore[call-overload]
    return network


def new_optimizer(
    network: nn.Module, training: Training, *, decays_vectors: bool = True
) -> torch.optim.Optimizer:
    """The optimizer of the settings, over all weights that learn; weight decay is that of its first group.

    ``decays_vectors`` False: weights of a single axis are in a second group, without weight decay.
    """
    cls = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    parameters: Any = [p for p in network.parameters() if p.requires_grad]
    if not decays_vectors:
        vectors = [p for p in parameters if p.ndim < 2]
        matrices = [p for p in parameters if p.ndim >= 2]
        parameters = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    rate, decay = training.learning_rate, training.weight_decay
    # Fused: one pass over weights, gradients and moments instead of a dozen.
    return cls(parameters, lr=rate, weight_decay=decay, fused=True)
