"""What a method is to the training loop: a network to build and a loss for each batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from .random import StepRandom


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
