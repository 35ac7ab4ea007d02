"""Pixel classifiers on the features of a frozen denoiser (Baranchuk et al. 2022, arXiv 2112.03126).

A few small networks vote on each pixel. Features are computed in every step and never stored.
"""

from __future__ import annotations

import torch
from torch import nn

from ..config import IGNORE, Fit
from ..core.losses import cross_entropy
from ..data.batches import Batch
from ..data.plan import Plan
from ..nets.pixel import PixelClassifier
from ..train.labelled import HeldOut
from ..train.memory import verify_memory
from ..train.random import StepRandom
from ..train.segmenting import SegmentationTask
from ..train.start import Start, verify_size
from ..train.task import Loss


class PixelClassification(SegmentationTask):
    """The task: classify random labelled pixels from frozen features, ``pixels`` of each image in a step."""

    def __init__(
        self, network: nn.Module, held_out: HeldOut | None = None, pixels: int = 1024
    ) -> None:
        super().__init__(network, held_out)
        self.pixels = pixels

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Mean cross-entropy of the voters on random labelled pixels."""
        assert batch.labels is not None
        flat = batch.labels.flatten(1)
        keys = random.uniform(flat.shape[1:])
        chosen = keys.masked_fill(flat == IGNORE, 2.0).argsort(1)[:, : self.pixels]
        labels = flat.gather(1, chosen)
        votes = network(batch.images, chosen)
        losses = [cross_entropy(vote.float().movedim(-1, 1), labels).mean() for vote in votes]
        return Loss(torch.stack(losses).mean())


def build(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> PixelClassification:
    """Fresh voters on the frozen denoiser.

    Raises:
        InputError: The plan's size does not fit.
    """
    assert start is not None
    verify_size(plan.size, start.denoiser.config)
    verify_memory(plan.size, start.denoiser.config, settings.machine, training=False)
    network = PixelClassifier(
        start.denoiser, start.diffusion, len(plan.classes), seed=settings.training.seed
    )
    return PixelClassification(network, held_out)
