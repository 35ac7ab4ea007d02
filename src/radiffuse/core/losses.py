"""Segmentation losses, one value per image, so that images can be weighted and batches split.

Logits are ``(B, K, *spatial)``, labels ``(B, *spatial)`` int64, with 255 for pixels to ignore. Every loss is finite on
an image without foreground, and 0 on an image without any label.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..config import IGNORE, Losses

DICE_SMOOTHING = 1e-5
"""Added above and below the fraction, so that an empty pair is 1 and the gradient stays finite."""


def segmentation_loss(
    logits: Tensor, labels: Tensor, weights: Losses
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms, ``(B,)``, and the unweighted terms by name; terms of weight 0 are not computed."""
    terms = {}
    if weights.cross_entropy:
        terms["cross_entropy"] = cross_entropy(logits, labels)
    if weights.dice:
        terms["dice"] = dice_loss(logits, labels)
    if weights.focal:
        terms["focal"] = focal_loss(logits, labels, weights.focal_gamma)
    total = torch.zeros(len(logits), device=logits.device)
    for name, term in terms.items():
        total = total + getattr(weights, name) * term
    return total, terms


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled pixels of each image, ``(B,)``; 0 where there are none."""
    losses = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return _pixel_mean(losses, labels)


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of -(1 - p)^gamma log p, p of the true class (Lin et al. 2017, eq. 4), ``(B,)``."""
    log_p = -functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    # At p = 1 a power below 1 has no finite slope.
    wrong = (1 - log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)
    return _pixel_mean(-(wrong**gamma) * log_p, labels)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - soft Dice, mean over the foreground classes present in each image, ``(B,)``; 0 where none is."""
    truth = one_hot(labels, logits.shape[1])  # an ignored pixel is background, left out below
    probabilities = logits.softmax(1) * (labels != IGNORE)[:, None]
    overlap = (truth * probabilities).flatten(2).sum(2)[:, 1:]
    volume = (truth + probabilities).flatten(2).sum(2)[:, 1:]
    present = truth.flatten(2).sum(2)[:, 1:] > 0
    dice = (2 * overlap + DICE_SMOOTHING) / (volume + DICE_SMOOTHING)
    return ((1 - dice) * present).sum(1) / present.sum(1).clamp(min=1)


def soft_loss(logits: Tensor, targets: Tensor, counts: Tensor, weights: Losses) -> Tensor:
    """A loss against probabilities, ``(B,)``, least where the network gives the same ones; of weight 0 is not computed.

    The focal loss is replaced by cross-entropy. Dice is the metric of Wang et al. 2023 (arXiv 2303.16296, eq. 10),
    which for probabilities of 0 and 1 is the usual one: sum |p - q| / sum (p + q), mean over the foreground classes
    that are the likeliest anywhere.

    Args:
        logits: ``(B, K, *S)``.
        targets: Probabilities ``(B, K, *S)``.
        counts: How much each voxel counts, ``(B, *S)``; the mean is over all voxels all the same.
        weights: Of the terms.
    """
    total = torch.zeros(len(logits), device=logits.device)
    if weight := weights.cross_entropy or (1.0 if weights.focal else 0.0):
        losses = -(targets * logits.log_softmax(1)).sum(1)
        total = total + weight * (losses * counts).flatten(1).mean(1)
    if weights.dice:
        found = logits.softmax(1)
        apart = ((found - targets).abs() * counts[:, None]).flatten(2).sum(2)[:, 1:]
        volume = (found + targets).flatten(2).sum(2)[:, 1:] + DICE_SMOOTHING
        present = one_hot(targets.argmax(1), targets.shape[1]).flatten(2).amax(2)[:, 1:]
        dice = (apart / volume * present).sum(1) / present.sum(1).clamp(min=1)
        total = total + weights.dice * dice
    return total


def dice_scores(prediction: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Dice of each image, mean over the foreground classes in either; NaN where there is none.

    Args:
        prediction: ``(B, *spatial)`` label values.
        labels: ``(B, *spatial)``; 255 is ignored.
        classes: K.
    """
    scores = []
    for guess, truth in zip(prediction, labels, strict=True):
        counted = truth != IGNORE
        found = []
        for value in range(1, classes):
            a, b = (guess == value) & counted, (truth == value) & counted
            total = int(a.sum() + b.sum())
            if total:
                found.append(2 * float((a & b).sum()) / total)
        scores.append(sum(found) / len(found) if found else float("nan"))
    return scores


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """``(B, *spatial)`` int64 as float32 ``(B, K, *spatial)``; 255 counts as background."""
    safe = labels.masked_fill(labels == IGNORE, 0)[:, None]
    found = torch.zeros((len(labels), classes, *labels.shape[1:]), device=labels.device)
    return found.scatter_(1, safe, 1.0)  # functional.one_hot takes 8 bytes a number, classes last


def _pixel_mean(losses: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labelled pixels; at the others the loss is already 0."""
    return losses.flatten(1).sum(1) / (labels != IGNORE).flatten(1).sum(1).clamp(min=1)
