"""Contrastive pre-training, a rival of denoising (vox2vec, Goncharov et al. 2023, arXiv 2307.14725).

Two overlapping crops of a scan, each changed in intensity on its own: the embedding of a voxel must be nearer to that
of the same voxel in the other crop than to those of other voxels (InfoNCE). [ours] The other voxels are those of the
same pair of crops, so that neither micro-batches nor several devices change what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Contrast, UNetConfig
from ..data.batches import Batch
from ..data.crops import CropPairs, same_voxels
from ..nets.embedder import VoxelEmbedder
from ..nets.unet import UNet
from ..train.random import StepRandom
from ..train.task import Loss


class VoxelContrast:
    """The task: find the same voxel in the other crop.

    Args:
        unet: The network.
        settings: Voxels, temperature, length of embeddings.
        seed: Seed of the first weights.
        held_out: Crop pairs for validation.
        start: Network whose weights are taken over, or None.
    """

    name = "contrastive"

    def __init__(
        self,
        unet: UNetConfig,
        settings: Contrast,
        *,
        seed: int,
        held_out: CropPairs | None = None,
        start: UNet | None = None,
    ) -> None:
        self.unet = unet
        self.settings = settings
        self.seed = seed
        self.held_out = held_out
        self.start = start

    def build(self) -> nn.Module:
        """The network and its projector at their start."""
        generator = torch.Generator().manual_seed(self.seed)
        network = UNet(self.unet)
        network.initialize(generator)
        if self.start is not None:
            network.load_state_dict(self.start.state_dict())
        embedder = VoxelEmbedder(network, self.settings.width)
        embedder.initialize(generator)
        return embedder

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """InfoNCE in both directions, mean over pairs of crops."""
        assert isinstance(batch, CropPairs)
        logits, valid = self._compare(network, batch, random.uniform(_count(batch)))
        target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        target = torch.where(valid, target, -100)
        # A voxel outside the overlap has no partner: it is neither asked for nor offered as an answer.
        blocked = (~valid)[:, None].expand_as(logits)
        losses = [
            functional.cross_entropy(
                one.masked_fill(blocked, -1e4).flatten(0, 1), target.flatten(), reduction="none"
            ).unflatten(0, target.shape)
            for one in (logits, logits.transpose(1, 2))
        ]
        counts = valid.sum(1).clamp(min=1)
        value = ((losses[0] + losses[1]).sum(1) / (2 * counts)).mean()
        return Loss(value)

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """How often the nearest of the other crop's voxels is the same voxel, on scans never trained on."""
        if self.held_out is None:
            return {}
        generator = torch.Generator().manual_seed(0)
        keys = torch.rand((len(self.held_out), *_count(self.held_out)), generator=generator)
        hits, total = 0, 0
        for i in range(len(self.held_out)):
            pair = self.held_out.part(i, i + 1).to(device)
            logits, valid = self._compare(network, pair, keys[i : i + 1].to(device))
            logits = logits.masked_fill((~valid)[:, None].expand_as(logits), -1e4)
            own = torch.arange(logits.shape[1], device=device)
            hits += int(((logits.argmax(2) == own) & valid).sum())
            total += int(valid.sum())
        return {"accuracy": hits / total} if total else {}

    def state_dict(self) -> dict[str, Tensor]:
        """The task learns nothing beside its network."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""

    def _compare(self, network: nn.Module, pairs: CropPairs, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities ``(B, P, P)`` of voxels of the first crop with those of the second, and which have a partner."""
        first, second, valid = choose_pairs(pairs, keys, self.settings.voxels)
        one, other = network(pairs.images, first), network(pairs.others, second)
        return one @ other.transpose(1, 2) / self.settings.temperature, valid


def choose_pairs(pairs: CropPairs, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random voxels that lie in both crops, the body's before the air's.

    Args:
        pairs: B pairs of crops.
        keys: ``(B, N)`` uniform numbers, one per voxel of a crop.
        count: P, how many.

    Returns:
        Flat indices in the first and in the second crop, ``(B, P)`` each, and whether both crops hold the voxel.
    """
    grid = pairs.images.shape[2:]
    every = torch.arange(math.prod(grid), device=keys.device).expand(len(pairs), -1)
    places = pairs.places.to(keys.device)
    partner, inside = same_voxels(every, (places[:, 0] - places[:, 1]).long(), grid)
    body = (pairs.images.amax(1) > pairs.body).flatten(1)
    order = keys + ~body + 2 * (~inside)
    first = order.topk(min(count, order.shape[1]), dim=1, largest=False).indices
    return first, partner.gather(1, first), inside.gather(1, first)


def _count(pairs: CropPairs) -> Sequence[int]:
    return (math.prod(pairs.images.shape[2:]),)
