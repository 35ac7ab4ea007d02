"""Batches for the device: a GPU changes their images, and the next one is made while it is busy with this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch

from ..data.batches import Batch, BatchSource
from ..data.pool import WithPool
from .task import BatchesByStep


class Ahead:
    """Batches of one step after the other, on the device.

    On a GPU a thread makes the next one meanwhile: reading, cutting and drawing changes would keep the GPU waiting for
    as long as a step. The GPU changes the images, where their source can let it. On a processor, whose cores the step
    needs, each is made when it is asked for. Batches are a pure function of the step, so both give the same ones.

    Args:
        batches: What makes them.
        device: Where they go.
        rank: Of this process.
        world: Processes that share a batch.
        end: The step before which it ends; None: nobody knows.
    """

    def __init__(
        self,
        batches: BatchesByStep,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        end: int | None = None,
    ) -> None:
        self.batches, self.device = batches, device
        self.rank, self.world, self.end = rank, world, end
        self._next: tuple[int, Future[Batch]] | None = None
        self._thread = None
        if device.type == "cuda":
            source = batches.labelled if isinstance(batches, WithPool) else batches
            if isinstance(source, BatchSource):
                source.device = device
            threads = torch.get_num_threads()
            self._thread = ThreadPoolExecutor(1, "ahead", self._prepare, (threads,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for a batch that is being made, and drop it."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def __call__(self, step: int) -> Batch:
        """The batch of a step; what its making raises, is raised here."""
        made, self._next = self._next, None
        batch = made[1].result() if made and made[0] == step else self._make(step)
        if self._thread is not None and (self.end is None or step + 1 < self.end):
            self._next = step + 1, self._thread.submit(self._make, step + 1)
        return batch

    def _make(self, step: int) -> Batch:
        return self.batches(step, self.rank, self.world).to(self.device)

    def _prepare(self, threads: int) -> None:
        """Make the thread compute as the one that started it does."""
        torch.set_num_threads(threads)
        if torch.cuda.is_available():
            torch.cuda.set_device(self.device)
