"""A task as the training loop sees it: a network to build, and a loss for each batch."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from .random import StepRandom

BatchesByStep = Callable[[int, int, int], Batch]
"""``batches(step, rank, world)``: the rank's part of the batch of a step; a pure function."""


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a batch.

    Attributes:
        value: Scalar to minimize.
        terms: Numbers for the log, averaged over the batch.
    """

    value: Tensor
    terms: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Task(ABC):
    """Base of all that is learned: a network and its loss; validation and a state of its own are optional.

    Args:
        network: The network before training, or a function that makes it from torch's global random state.
    """

    whole_batch = False
    """Whether the loss is one of the batch as a whole, so that smaller passes would learn something else."""

    def __init__(self, network: nn.Module | Callable[[], nn.Module]) -> None:
        self.network = network

    def build(self) -> nn.Module:
        """The network before training; torch's global random state has the run's seed."""
        return self.network if isinstance(self.network, nn.Module) else self.network()

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The loss of a batch; every random number comes from ``random``."""

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores of the averaged network; empty without held-out data."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """State of the task itself, such as a history of losses, for checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (optional)
        """Restore the state."""
