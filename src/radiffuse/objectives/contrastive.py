"""Contrastive pre-training, a rival of denoising (vox2vec, Goncharov et al. 2023, arXiv 2307.14725).

Two overlapping crops of a scan are changed in intensity independently; the embedding of a voxel must be nearer to that
of the same voxel in the other crop than to those of other voxels (InfoNCE). [ours] The other voxels are those of the
same pair of crops, so neither micro-batches nor several devices change what is learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import Augmentation, Contrast
from ..data.batches import Batch
from ..data.crops import CropPairs, same_voxels
from ..data.plan import Plan
from ..errors import InputError
from ..nets.embedder import VoxelEmbedder
from ..nets.unet import UNet
from ..train.pretraining import CropPairObjective, Unlabelled
from ..train.random import StepRandom
from ..train.task import Loss, Task


class Contrastive(CropPairObjective):
    """Pre-training by finding the same voxel in another crop."""

    nearby = True

    def crop(self, plan: Plan) -> float:
        """Set for films; a patch of a volume is a crop already."""
        return self.settings.contrast.crop if plan.spatial_dims == 2 else 1.0

    def verify(self, plan: Plan) -> None:
        """Refuse a size of crops for volumes."""
        if plan.spatial_dims == 3 and self.settings.contrast.crop != Contrast().crop:
            problem = "is for films; a crop of a volume is the plan's patch"
            raise InputError("--contrast.crop", problem, "Leave it out, or give --size")

    @property
    def changes(self) -> Augmentation:
        """Those of the contrastive views."""
        return self.settings.contrast.views

    def task(self, pool: Unlabelled) -> Task:
        """The U-Net under a projector."""
        wanted = self.settings.contrast
        network = UNet(self.config(pool))
        start = self.before(network.config)
        embedder = start_embedder(network, wanted.width, self.generator(), start)
        return VoxelContrast(embedder, wanted, self.validation_pairs(pool))

    def kept(self, network: nn.Module) -> nn.Module:
        """The U-Net without the projector."""
        assert isinstance(network, VoxelEmbedder)
        return network.unet


class VoxelContrast(Task):
    """The task: find the same voxel in the other crop.

    Args:
        network: The embedder at its start.
        settings: Voxels, temperature.
        held_out: Crop pairs for validation.
    """

    def __init__(
        self, network: VoxelEmbedder, settings: Contrast, held_out: CropPairs | None = None
    ) -> None:
        super().__init__(network)
        self.settings = settings
        self.held_out = held_out

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """InfoNCE in both directions, mean over pairs of crops."""
        assert isinstance(batch, CropPairs)
        logits, valid = self._compare(network, batch, random.uniform(_count(batch)))
        target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        target = torch.where(valid, target, -100)
        # A voxel outside the overlap has no partner: it is neither a query nor a candidate.
        blocked = (~valid)[:, None].expand_as(logits)
        losses = [
            functional.cross_entropy(
                one.masked_fill(blocked, -1e4).flatten(0, 1), target.flatten(), reduction="none"
            ).unflatten(0, target.shape)
            for one in (logits, logits.transpose(1, 2))
        ]
        counts = valid.sum(1).clamp(min=1)
        return Loss(((losses[0] + losses[1]).sum(1) / (2 * counts)).mean())

    @torch.no_grad()
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """How often the most similar voxel of the other crop is the same voxel, on held-out scans."""
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

    def _compare(self, network: nn.Module, pairs: CropPairs, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Similarities ``(B, P, P)`` of voxels of both crops, and which voxels have a partner, ``(B, P)``."""
        first, second, valid = choose_pairs(pairs, keys, self.settings.voxels)
        one, other = network(pairs.images, first), network(pairs.others, second)
        return one @ other.transpose(1, 2) / self.settings.temperature, valid


def start_embedder(
    unet: UNet, width: int, generator: torch.Generator, start: nn.Module | None = None
) -> VoxelEmbedder:
    """A U-Net, with the weights of ``start`` if given, under a projector; other weights are random."""
    unet.initialize(generator)
    if start is not None:
        unet.load_state_dict(start.state_dict())
    embedder = VoxelEmbedder(unet, width)
    embedder.initialize(generator)
    return embedder


def choose_pairs(pairs: CropPairs, keys: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random voxels that are in both crops, those of the body before air.

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
