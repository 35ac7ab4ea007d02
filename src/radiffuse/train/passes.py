"""How many images go through the network at once: fewer where memory runs out, with the same result.

Noise is drawn for the whole step (``StepRandom``) and losses are means over images, so a step in smaller passes has the
same gradient up to rounding. What the failed pass changed is restored first: buffers of the network, and state of the
task.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, OutOfMemory
from .task import Task


class Passes:
    """The size of a pass, which may only shrink.

    Args:
        size: Images per pass.
        where: The run folder, for messages.
        world: Processes that train together.

    Attributes:
        shrunk: Whether memory ran out before.
    """

    def __init__(self, size: int, where: str, world: int = 1) -> None:
        self.size = size
        self.where = where
        self.world = world
        self.shrunk = False

    def too_small(self) -> InputError:
        """That batch normalization sees a single number of a channel, of which no variance can be known."""
        problem = "a pass of one small image leaves batch normalization one number of each channel"
        return InputError(self.where, problem, "Raise --size, or --batch-size and --micro-batch")

    def resume(self, size: object) -> None:
        """Go on with the size that a checkpoint names.

        Raises:
            ValueError: No size that shrinking leads to.
        """
        if type(size) is not int or not 1 <= size <= self.size:
            raise ValueError(f"micro_batch is {size}, the settings give {self.size}")
        self.size, self.shrunk = size, True

    def shrink(self, network: nn.Module, task: Task, reason: str) -> None:
        """Halve the size, with a message the first time; ``reason`` says in it why memory ran out.

        Raises:
            OutOfMemory: A pass is one image already, or smaller passes would learn something else.
        """
        if self.size == 1:
            problem = f"one image at a time does not fit into memory ({reason})"
            remedy = "Lower --size or --network.width, or set --machine.precision bf16-mixed or "
            raise OutOfMemory(self.where, problem, remedy + "--checkpoint-activations")
        problem, half = f"{self.size} images at a time do not fit into memory", self.size // 2
        remedy = f"Set --micro-batch {half}"
        if self.world > 1:
            remedy += "; with several devices it does not shrink by itself"
            raise OutOfMemory(self.where, f"{problem} ({reason})", remedy)
        if learns_from_batch(network, task):
            remedy += ", which changes what is learned a little, or lower --size or --batch-size"
            whole = f"{problem} ({reason}), and this network learns from a batch as a whole"
            raise OutOfMemory(self.where, whole, remedy)
        if not self.shrunk:
            line = f"radiffuse: {self.where}: {problem}; going on with {half} or fewer"
            print(f"{line}, with {task.in_passes} (--micro-batch)", file=sys.stderr)
        self.shrunk = True
        self.size //= 2


class BeforeStep:
    """Keeps what a step changes before its optimizer step, so that the step can be repeated.

    That is the state of the task, and the buffers of the network, unless it has a method ``forget_step`` that
    restores them.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        self.network, self.task = network, task
        self.forget: Any = getattr(network, "forget_step", None)
        buffers = {} if self.forget else dict(network.named_buffers())
        self.buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        self.state: dict[str, Tensor] = {k: v.clone() for k, v in task.state_dict().items()}

    @torch.no_grad()
    def __call__(self) -> None:
        """Restore everything, drop the gradients, and free the memory of the failed pass."""
        if self.forget is not None:
            self.forget()
        for name, buffer in self.network.named_buffers():
            if name in self.buffers:
                buffer.copy_(self.buffers[name])
        self.task.load_state_dict({name: value.clone() for name, value in self.state.items()})
        self.network.zero_grad(set_to_none=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def learns_from_batch(network: nn.Module, task: Task) -> bool:
    """Whether smaller passes would learn something else, so that neither a plan nor training makes them by itself.

    That is so where the loss is of the batch as a whole, or an image's gradient depends on its pass: by batch
    normalization, or by dropout, whose mask is per pass.
    """
    return task.whole_batch or any(
        module.training
        and (
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        )
        for module in network.modules()
    )
