"""Random draws of one training step, the same however the step's images are spread over passes and processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..data.streams import Stream


class StepRandom:
    """Draws for the images ``start`` to ``stop`` of the ``total`` that a step has over all ranks.

    Everything is drawn for the whole batch and the share is cut out, so micro-batches and ranks together see what one
    pass on one process would see.

    Attributes:
        step: The step, counted from 0.
    """

    def __init__(
        self, seed: int, step: int, *, total: int, start: int, stop: int, device: torch.device
    ) -> None:
        self.step = step
        self.generator = Stream.STEP.torch(seed, step, device=device)
        self.total, self.start, self.stop = total, start, stop
        self.device = device

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers ``(stop - start, *shape)``."""
        whole = torch.randn((self.total, *shape), generator=self.generator, device=self.device)
        return self.share(whole)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Uniform numbers in [0, 1), ``(stop - start, *shape)``."""
        whole = torch.rand((self.total, *shape), generator=self.generator, device=self.device)
        return self.share(whole)

    def share(self, whole: Tensor) -> Tensor:
        """This share of a tensor whose first axis is the step's whole batch."""
        return whole[self.start : self.stop]
