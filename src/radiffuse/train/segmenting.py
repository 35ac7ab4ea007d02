"""What all ways of learning to segment share: held-out images, their Dice, terms of a loss as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..core.losses import dice_scores
from .labelled import HeldOut
from .task import Task

VALIDATION_BATCH = 16


class SegmentationTask(Task):
    """Base of the tasks of ``fit``.

    Args:
        network: The segmenter at its start.
        held_out: Labelled images for validation, never trained on.
    """

    def __init__(self, network: nn.Module, held_out: HeldOut | None = None) -> None:
        super().__init__(network)
        self.held_out = held_out

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over held-out images on the plan's grid."""
        return mean_dice(lambda images: network(images.to(device)), self.held_out)


def mean_dice(segment: Callable[[Tensor], Tensor], held_out: HeldOut | None) -> dict[str, float]:
    """``{"dice": ...}``: mean over images of the Dice of foreground classes; empty without images.

    Args:
        segment: Images ``(B, C, *S)`` to logits ``(B, K, *S)``.
        held_out: Images and labels.
    """
    if held_out is None:
        return {}
    images, labels = held_out.images, held_out.labels
    scores = []
    for i in range(0, len(images), VALIDATION_BATCH):
        logits = segment(images[i : i + VALIDATION_BATCH]).float().cpu()
        scores += dice_scores(logits.argmax(1), labels[i : i + VALIDATION_BATCH], logits.shape[1])
    counted = [score for score in scores if not math.isnan(score)]
    return {"dice": sum(counted) / len(counted)} if counted else {}


def logged(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The terms of a loss as numbers for the log, where there are several."""
    if len(terms) < 2:
        return {}
    return {f"loss_{name}": float(term.detach().mean()) for name, term in terms.items()}
