"""What a segmenter learns: to label every pixel of a clean image; or, on frozen features, random pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from ..config import IGNORE, Losses
from ..core.losses import cross_entropy, dice_scores, segmentation_loss
from ..data.batches import Batch
from ..nets.probe import ProbedNetwork
from ..train.random import StepRandom
from ..train.task import Loss

VALIDATION_BATCH = 16


class Segmentation:
    """The task: label every pixel of a clean image.

    Args:
        network: The segmenter at its start.
        losses: The loss.
        held_out: Images ``(N, C, *S)`` and labels ``(N, *S)`` for validation, never trained on.
    """

    name = "segmentation"

    def __init__(
        self, network: nn.Module, losses: Losses, held_out: Mapping[str, Tensor] | None = None
    ) -> None:
        self.network = network
        self.losses = losses
        self.held_out = held_out

    def build(self) -> nn.Module:
        """The segmenter at its start."""
        return self.network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The segmentation loss of the clean image's logits."""
        assert batch.labels is not None
        logits = network(batch.images).float()
        losses, terms = segmentation_loss(logits, batch.labels, self.losses)
        return Loss(losses.mean(), logged(terms))

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over held-out images on the plan's grid."""
        return mean_dice(lambda images: network(images.to(device)), self.held_out)

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


class CustomSegmentation(Segmentation):
    """The task with a loss of one's own.

    Args:
        network: The segmenter at its start.
        function: Logits ``(B, K, *S)`` float32 and labels ``(B, *S)`` int64, 255 where nothing counts, to a loss: a
            scalar, or ``(B,)``.
        held_out: As in ``Segmentation``.
    """

    def __init__(
        self,
        network: nn.Module,
        function: Callable[[Tensor, Tensor], Tensor],
        held_out: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(network, Losses(), held_out)
        self.function = function

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The function of the clean image's logits."""
        assert batch.labels is not None
        return Loss(self.function(network(batch.images).float(), batch.labels).mean())


class PixelProbing(Segmentation):
    """The task: classify random pixels from frozen features; features are computed anew, never stored.

    Args:
        network: The pixel classifier at its start.
        held_out: As in ``Segmentation``.
        pixels: Labelled pixels of each image that a step uses.
    """

    name = "pixel"

    def __init__(
        self, network: nn.Module, held_out: Mapping[str, Tensor] | None = None, pixels: int = 1024
    ) -> None:
        super().__init__(network, Losses(), held_out)
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


class Probing(Segmentation):
    """The task: heads on frozen features, side by side; none touches another's gradient.

    Args:
        network: The network with its heads at their start.
        losses: The loss of each head.
        held_out: As in ``Segmentation``.
    """

    name = "probing"

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The sum of the heads' losses; each is logged."""
        assert batch.labels is not None
        names = cast(ProbedNetwork, self.network).names
        total, terms = torch.zeros((), device=batch.images.device), {}
        for name, logits in zip(names, network(batch.images), strict=True):
            losses, _ = segmentation_loss(logits.float(), batch.labels, self.losses)
            total = total + losses.mean()
            terms[f"loss_{name}"] = float(losses.detach().mean())
        return Loss(total, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of the main head over held-out images."""
        main = cast(ProbedNetwork, self.network).names[:1]
        return mean_dice(lambda images: network(images.to(device), main)[0], self.held_out)


def mean_dice(
    segment: Callable[[Tensor], Tensor], held_out: Mapping[str, Tensor] | None
) -> dict[str, float]:
    """``{"dice": ...}``: mean over images of the Dice of foreground classes; empty without images.

    Args:
        segment: Images ``(B, C, *S)`` to logits ``(B, K, *S)``.
        held_out: Images and labels.
    """
    if held_out is None:
        return {}
    images, labels = held_out["images"], held_out["labels"]
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
