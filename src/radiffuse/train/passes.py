"""How many images go through the network at once: fewer where memory runs out, with the same result.

Noise is drawn for the whole step (``StepRandom``) and losses are means over images, so a step in smaller passes has the
same gradient up to rounding. What a step changes before its optimizer step is put back first: buffers of the network,
and what the task has learned.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


class Passes:
    """The size of a pass, which may only shrink.

    Args:
        size: Images at once.
        where: Named in messages: the run folder.
        world: Processes that train together.

    Attributes:
        size: Images at once.
        shrunk: Whether memory ran out before.
    """

    def __init__(self, size: int, where: str, world: int = 1) -> None:
        self.size = size
        self.where = where
        self.world = world
        self.shrunk = False

    def shrink(self, network: nn.Module, task: Any, reason: str) -> None:
        """Halve the size; says so once.

        Args:
            network: In training mode.
            task: One with a true ``whole_batch`` learns from a batch as a whole.
            reason: Why memory ran out, for the message.

        Raises:
            InputError: A pass is one image already, or smaller passes would learn something else.
        """
        if self.size == 1:
            raise InputError(
                self.where,
                f"one image at a time does not fit into memory ({reason})",
                "Lower --size or --network.width, or set --machine.precision bf16-mixed or "
                "--machine.checkpoint_activations",
            )
        if self.world > 1:
            raise InputError(
                self.where,
                f"{self.size} images at a time do not fit into memory ({reason})",
                f"Set --training.micro_batch {self.size // 2}; with several devices it does not shrink by itself",
            )
        if task.whole_batch or _sees_the_batch(network):
            raise InputError(
                self.where,
                f"{self.size} images at a time do not fit into memory ({reason}), and this network "
                "learns from a batch as a whole",
                f"Set --training.micro_batch {self.size // 2}, which changes what is learned a little, or "
                "lower --size or --training.batch_size",
            )
        if not self.shrunk:
            print(
                f"radiffuse: {self.where}: {self.size} images at a time do not fit into memory; going on "
                f"with {self.size // 2} or fewer, with the same result (--training.micro_batch)",
                file=sys.stderr,
            )
        self.shrunk = True
        self.size //= 2


class Undo:
    """What a step changes before its optimizer step, kept so that it can be done once more.

    Args:
        network: Its buffers are kept, unless it forgets by itself (``forget_step``).
        task: Its state is kept.
    """

    def __init__(self, network: nn.Module, task: Any) -> None:
        self.network, self.task = network, task
        self.forget: Any = getattr(network, "forget_step", None)
        buffers = {} if self.forget else dict(network.named_buffers())
        self.buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        self.state: dict[str, Tensor] = {k: v.clone() for k, v in task.state_dict().items()}

    @torch.no_grad()
    def __call__(self) -> None:
        """Put everything back, drop the gradients, and free what the failed pass held."""
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


def _sees_the_batch(network: nn.Module) -> bool:
    """Whether a pass depends on which images it holds: batch norm does, and masks of dropout are drawn by pass."""
    return any(
        module.training
        and (
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            or (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0)
        )
        for module in network.modules()
    )
