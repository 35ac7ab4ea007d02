"""A task as the training loop sees it: a network to build, and a loss for each batch."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..config import Training
from ..data.batches import Batch
from .random import StepRandom

AT_ONCE = 16
"""Held-out films that go through the network together, where training has room for as many."""
Images = Callable[[Tensor], Tensor]
"""Images ``(B, C, *S)`` to logits ``(B, K, *S)``, without gradients."""
BatchesByStep = Callable[[int, int, int], Batch]
"""``batches(step, rank, world)``: the rank's part of the batch of a step; a pure function."""


def in_passes(at_once: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts of tensors ``(N, ...)``, of which the first are images ``(N, C, *S)``: so many films, or one volume."""
    size = at_once if tensors[0].ndim == 4 else 1
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes:
        value: Scalar to minimize.
        terms: For the log: numbers that are averaged over the batch; of what concerns some of the images alone, such as
            those at certain timesteps, the number of each of these, a vector.
    """

    value: Tensor
    terms: Mapping[str, float | Tensor] = dataclasses.field(default_factory=dict)


LossOf = Callable[[nn.Module, Batch, StepRandom], Loss]
"""From the network, a batch and its random numbers to a loss."""


class Task(ABC):
    """Base of all that is learned: a network and its loss; validation and a state of its own are optional.

    Args:
        network: The network before training, or a function that makes it from torch's global random state.
    """

    whole_batch = False
    """Whether the loss is one of the batch as a whole, so that smaller passes would learn something else."""

    in_passes = "the same result"
    """What a step of smaller passes gives, for messages."""

    judged_by: str | None = None
    """The validation score by which the best weights are kept, the higher the better; None: the last are kept."""

    decays_vectors = True
    """Whether weight decay also shrinks biases, the scales of normalizations, and other weights of a single axis."""

    memory: nn.Module | None = None
    """What the task itself learns, such as a history of losses; kept in checkpoints."""

    at_once = AT_ONCE
    """Films per pass of validation; whoever takes the steps lowers it where training has room for fewer."""

    averaged: Images
    """The network with averaged weights, as a teacher; whoever takes the steps sets it."""

    def __init__(self, network: nn.Module | Callable[[], nn.Module]) -> None:
        self.network = network

    def build(self) -> nn.Module:
        """The network before training; torch's global random state has the run's seed."""
        return self.network if isinstance(self.network, nn.Module) else self.network()

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The loss of a batch; every random number comes from ``random``."""

    def remark(self, training: Training) -> str:
        """What a choice means for a training of this length, for whoever waits; else ''."""
        return ""

    def losses_of(self, batch: Batch) -> tuple[LossOf, ...]:
        """What is minimized, one after another: each has a backward pass of its own, so one at a time is in memory."""
        return (self.loss,)

    def held(self, network: nn.Module, step: int) -> Iterable[nn.Parameter]:
        """The weights that do not learn in a step: their gradients are dropped, so that nothing moves them."""
        return ()

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores of the averaged network; empty without held-out data."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """State of ``memory``, for checkpoints."""
        return dict(self.memory.state_dict()) if self.memory is not None else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state."""
        if self.memory is not None:
            self.memory.load_state_dict(dict(state))
