"""What all segmentation tasks have in common: held-out images, their Dice, and logged terms of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count

import torch
from torch import Tensor, nn

from ..core.losses import dice_scores
from .labelled import HeldOut
from .task import Task


class SegmentationTask(Task):
    """Base of the tasks of ``fit``; ``held_out`` are labelled images for validation."""

    judged_by = "dice"

    def __init__(self, network: nn.Module, held_out: HeldOut | None = None) -> None:
        super().__init__(network)
        self.held_out = held_out

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over held-out images on the plan's grid."""
        return mean_dice(lambda images: network(images.to(device)), self.held_out, self.at_once)


def mean_dice(
    segment: Callable[[Tensor], Tensor], held_out: HeldOut | None, at_once: int
) -> dict[str, float]:
    """``{"dice": ...}``, the mean over images of the Dice of foreground classes; empty without images.

    Patches count as one image together, as nnU-Net's "pseudo Dice" does. ``segment`` takes images ``(B, C, *S)`` to
    logits ``(B, K, *S)``, ``at_once`` films at a time.
    """
    if held_out is None:
        return {}
    guesses, labels, scores = list[Tensor](), list[Tensor](), list[float]()
    for images, truth in held_out.parts(at_once):
        logits = segment(images)
        guess, classes = logits.argmax(1).cpu(), logits.shape[1]
        if held_out.patches:
            guesses.append(guess.flatten())
            labels.append(truth.flatten())
        else:
            scores += dice_scores(guess, truth, classes)
    if held_out.patches:
        scores = dice_scores(torch.cat(guesses)[None], torch.cat(labels)[None], classes)
    counted = [score for score in scores if not math.isnan(score)]
    return {"dice": sum(counted) / len(counted)} if counted else {}


def drawn_dice(
    sampler: Callable[[Tensor, Sequence[torch.Generator]], Tensor],
    held_out: HeldOut | None,
    device: torch.device,
    at_once: int,
) -> dict[str, float]:
    """``mean_dice`` of masks drawn from noise that stays the same, however many films go through at once.

    ``sampler`` gives the logits of every step.
    """
    numbers = count()

    def segment(images: Tensor) -> Tensor:
        each = [torch.Generator().manual_seed(next(numbers)) for _ in images]
        return sampler(images.to(device), each)[-1]

    return mean_dice(segment, held_out, at_once)


def logged(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """The terms of a loss as numbers for the log, if there are several."""
    if len(terms) < 2:
        return {}
    return {f"loss_{name}": float(term.detach().mean()) for name, term in terms.items()}
