"""Learning from the pool beside the labels, by consistency (UniMatch V2, arXiv 2410.10777, with soft labels).

The averaged weights label an image of the pool as it is. The network learns these probabilities, not their argmax, from
a view that is moved, strongly changed, mixed with a labelled image and seen with features missing. Where the teacher
should not be trusted its labels count less, see ``trust`` and ``plausible``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..config import IGNORE, Fit, Losses, Pool
from ..config.segmenting import POOLED
from ..core.axes import expand
from ..core.losses import one_hot, soft_loss
from ..data.augment import apply_changes
from ..data.batches import Batch, Batches
from ..data.cutmix import boxes
from ..data.pool import PooledBatch
from ..inference.teachers import Teachers
from ..train.pool import foreground_shares
from ..train.random import StepRandom
from ..train.task import Loss, LossOf, Task

DROPPED = 0.5
"""Fraction of the images whose features are dropped."""
DOUBT = 4
"""Exponent of the expected Dice in the weight of an image [ours]."""
SLACK, SPECK = 2.0, 0.01
"""A film is implausible if a class takes up this many times as much of it as in any labelled one, and more than so."""


class Consistency(Task):
    """A segmentation task with a second loss, of the pool.

    Args:
        task: What is learned of labelled images.
        settings: How the pool is learned from.
        losses: Weights of the terms of a segmentation loss.
        shares: Shares of each class in the labelled films ``(N, K)``; None: any mask is plausible.
        mirrored: Axes along which what is learned is mirrored outside the image, see ``data.augment.apply_changes``.
        teachers: Who labels the pool; by default the averaged weights.
    """

    def __init__(
        self,
        task: Task,
        settings: Pool,
        losses: Losses,
        shares: Tensor | None = None,
        mirrored: Sequence[int] | None = None,
        teachers: Teachers = Teachers(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(task.network)
        self.task, self.settings, self.weights = task, settings, losses
        self.shares, self.mirrored, self.teachers = shares, mirrored, teachers
        self.judged_by, self.memory = task.judged_by, task.memory
        self.features = FeatureDropout()

    @property
    def in_passes(self) -> str:  # type: ignore[override]
        """What a step of smaller passes gives: of the pool the same result, of labelled images what the task says."""
        return self.task.in_passes

    def build(self) -> nn.Module:
        """The network of the task; its features can be dropped if it says where its ``bottleneck`` is."""
        network = self.task.build()
        if (bottleneck := getattr(network, "bottleneck", None)) is not None:
            bottleneck.register_forward_hook(self.features)
        return network

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """That of the labelled images."""
        self.features.kept = None
        return self.task.loss(network, batch, random)

    def losses_of(self, batch: Batch) -> tuple[LossOf, ...]:
        """That of the labelled images, and that of the pool once it counts."""
        return (self.loss, self.pool_loss) if isinstance(batch, PooledBatch) else (self.loss,)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """As the task does."""
        self.task.at_once = self.at_once
        return self.task.validate(network, device)

    def pool_loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """Distance of what the network makes of changed images to what the teacher makes of them as they are."""
        assert isinstance(batch, PooledBatch)
        assert batch.labels is not None
        images, target, weight = self.taught(batch, random)
        coin, place = random.uniform((2,)), random.uniform((1 + batch.images.ndim - 2,))
        mixed = expand(coin[:, 0] < self.settings.cutmix, images)
        inside = mixed & boxes(images, place[:, 0], place[:, 1:])
        images = torch.where(inside, batch.images, images)
        target = torch.where(inside, one_hot(batch.labels, target.shape[1]), target)
        weight = torch.where(inside[:, 0], (batch.labels != IGNORE).float(), weight)
        with still(network):
            self.features.draw(self.settings.dropout, coin[:, 1] < DROPPED, random)
            logits = network(images).float()
        losses = soft_loss(logits, target, weight, self.weights)
        value = self.settings.weight * batch.strength * losses.mean()
        terms = {"pool": float(losses.detach().mean()), "pool_trust": float(weight.mean())}
        return Loss(value, terms)

    @torch.no_grad()
    def taught(self, batch: PooledBatch, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
        """Changed images ``(B, C, *S)``, the probabilities to learn ``(B, K, *S)`` and how much each voxel counts."""
        label, correct = self.teachers.label, self.teachers.correct
        found = label(batch.pool) if label else self.averaged(batch.pool).softmax(1)
        agreed = torch.ones_like(found[:, 0])
        if correct:
            found, agreed = correct(batch.pool, found, random)
        weight = agreed * trust(found, self.settings.threshold)
        if self.shares is not None:
            weight = weight * expand(plausible(found, self.shares), weight)
        both = torch.cat([found, weight[:, None]], dim=1)
        here = torch.zeros_like(weight, dtype=torch.int64)
        moves = [change.geometry for change in batch.changes]
        both, inside = apply_changes(moves, both, here, self.mirrored)
        assert inside is not None
        images, _ = apply_changes(batch.changes, batch.pool, None)
        return images, both[:, :-1], both[:, -1] * (inside != IGNORE)


def pooled(
    task: Task,
    settings: Fit,
    labelled: Batches,
    teachers: Teachers = Teachers(),  # noqa: B008 (frozen)
) -> Task:
    """The task, with a loss of the pool beside that of the labelled images, if there is a pool and it has none."""
    if not settings.unlabelled or settings.method not in POOLED:
        return task
    shares = foreground_shares(labelled)
    return Consistency(task, settings.pool, settings.loss, shares, labelled.mirrored, teachers)


class FeatureDropout:
    """A forward hook that leaves out channels ``(B, C, *S)``, whole, where ``kept`` says so; None: none."""

    def __init__(self) -> None:
        self.kept: tuple[float, Tensor, StepRandom] | None = None
        self.mask: Tensor | None = None

    def draw(self, rate: float, chosen: Tensor, random: StepRandom) -> None:
        """Drop a fraction of the channels of the chosen images ``(B,)`` in the next pass."""
        self.kept, self.mask = (rate, chosen, random), None

    def __call__(self, module: nn.Module, _: Any, features: Tensor) -> Tensor:
        """The features, those that stay scaled up, so that their sum is the same on average."""
        if self.kept is None or not module.training:
            return features
        rate, chosen, random = self.kept
        if self.mask is None:  # a pass that is repeated in order to save memory drops the same
            stay = (random.uniform((features.shape[1],)) >= rate) / (1 - rate)
            self.mask = torch.where(chosen[:, None], stay, 1.0)
        return features * expand(self.mask, features).to(features.dtype)


@contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Batch normalization as at prediction: the pool neither moves its statistics nor is it normalized by its own."""
    layers = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    learning = [layer for layer in layers if layer.training]
    for layer in learning:
        layer.eval()
    try:
        yield
    finally:  # memory may run out, and the step is repeated
        for layer in learning:
            layer.train()


def trust(found: Tensor, threshold: float | None) -> Tensor:
    """How much the teacher's probabilities ``(B, K, *S)`` count at each voxel: ``(B, *S)``, 0 to 1.

    With a threshold, 1 where the probability of the likeliest class reaches it. Without, exp(-2 d^2), d being how many
    standard deviations it lies below the mean of its class in the image (SoftMatch, eq. 3), times the Dice that the
    teacher expects of its own mask, raised to ``DOUBT``.
    """
    sure, guess = found.max(1)
    if threshold is not None:
        return (sure >= threshold).float()
    mask = one_hot(guess, found.shape[1])
    count = mask.flatten(2).sum(2)
    flat, inside = sure.flatten(1)[:, None], mask.flatten(2)
    mean = (flat * inside).sum(2) / count.clamp(min=1)
    variance = ((flat - mean[..., None]).square() * inside).sum(2) / count.clamp(min=1)
    of_voxel = expand(mean, found) * mask, expand(variance, found) * mask
    below = (of_voxel[0].sum(1) - sure).clamp(min=0)
    by_class = torch.exp(-2 * below.square() / of_voxel[1].sum(1).clamp(min=1e-8))
    return by_class * expand(expected_dice(found, mask) ** DOUBT, sure)


def expected_dice(found: Tensor, mask: Tensor) -> Tensor:
    """Soft Dice of probabilities and their own mask, both ``(B, K, *S)``: ``(B,)``, mean over the classes in the mask.

    Background counts where there is nothing else.
    """
    both = (found * mask).flatten(2).sum(2)
    dice = 2 * both / (found + mask).flatten(2).sum(2).clamp(min=1e-8)
    present = mask.flatten(2).sum(2) > 0
    shown = present[:, 1:].any(1)
    present = torch.cat([present[:, :1] & ~shown[:, None], present[:, 1:]], dim=1)
    return (dice * present).sum(1) / present.sum(1)


def plausible(found: Tensor, shares: Tensor) -> Tensor:
    """Whether each mask has a foreground, and no class more of the film, than labelled ones could have: ``(B,)``.

    Args:
        found: The teacher's probabilities ``(B, K, *S)``.
        shares: Share of each class in the labelled films ``(N, K)``.
    """
    shares = shares.to(found.device)
    mask = one_hot(found.argmax(1), found.shape[1]).flatten(2).mean(2)
    most = shares.amax(0) * SLACK + SPECK
    least = (1 - shares[:, 0]).min() / SLACK
    return ((mask <= most)[:, 1:].all(1) & (1 - mask[:, 0] >= least)).float()
