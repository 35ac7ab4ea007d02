"""What all ways of pre-training have in common: the pool of unlabelled cases, and the base of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Augmentation, Pretrain, UNetConfig, resolve_network
from ..data.batches import Batches, center_cut
from ..data.crops import CropPairBatches, CropPairs, crop_size
from ..data.dataset import Dataset
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..errors import InputError
from ..nets.unet import UNet
from .cases import VALIDATION_IMAGES
from .run import Run
from .start import load_start
from .task import BatchesByStep, Task


@dataclass(frozen=True)
class Pool:
    """Prepared unlabelled cases.

    Attributes:
        prepared: All of them.
        training: Indices of the training cases.
        held_out: Indices of the validation cases.
    """

    prepared: Prepared
    training: Sequence[int]
    held_out: Sequence[int]

    @property
    def plan(self) -> Plan:
        """The plan they were prepared by."""
        return self.prepared.plan

    def validation_images(self) -> Tensor | None:
        """Held-out images ``(N, C, *size)``, volumes cropped to their center; None where there are none."""
        images = [
            center_cut(self.prepared.image(i), self.plan.size)
            for i in self.held_out[:VALIDATION_IMAGES]
        ]
        return torch.from_numpy(np.stack(images).astype(np.float32)) if images else None


class Objective(ABC):
    """A way of pre-training: a class for each name of ``--objective``, in ``objectives.OBJECTIVES``."""

    noised = False
    """Whether the network learns from noised images, and so knows timesteps."""

    source: type[Batches] = Batches
    """Makes the training batches."""

    def __init__(self, settings: Pretrain) -> None:
        self.settings = settings

    def given_plan(self, dataset: Dataset) -> Plan | None:
        """The plan that the objective requires; None: any plan will do.

        Raises:
            InputError: The settings name a regressor, which this objective cannot use.
        """
        if self.settings.coordinates is not None:
            where = f"--objective {self.settings.objective}"
            raise InputError(where, "is not guided", "Leave --coordinates out")
        return None

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """The U-Net for images of ``dims`` spatial axes; where the variance is learned, it is a second output."""
        learned = self.noised and self.settings.diffusion.variance == "learned"
        outputs = 2 * channels if learned else channels
        return resolve_network(
            self.settings.network, spatial_dims=dims, in_channels=channels, out_channels=outputs
        )

    @abstractmethod
    def task(self, pool: Pool) -> Task:
        """The task on the pool.

        Raises:
            InputError: ``--from`` does not fit.
        """

    def batches(self, pool: Pool) -> BatchesByStep:
        """The training batches."""
        training = self.settings.training
        return self.source(
            pool.prepared,
            batch_size=training.batch_size,
            seed=training.seed,
            augmentation=self.settings.augmentation,
            indices=pool.training,
        )

    def kept(self, network: nn.Module) -> nn.Module:
        """The part of the trained network that is saved."""
        return network

    def write(self, run: Run, network: nn.Module, pool: Pool) -> None:  # noqa: B027 (optional)
        """Write further results of the trained network into the run."""

    def config(self, pool: Pool) -> UNetConfig:
        """The U-Net for the pool."""
        return self.unet(pool.plan.spatial_dims, len(pool.plan.channels))

    def start(self, network: UNet) -> UNet:
        """The network with its initial weights: those of ``--from``, else random ones by the seed."""
        network.initialize(torch.Generator().manual_seed(self.settings.training.seed))
        if (before := load_start(self.settings, network.config)) is not None:
            network.load_state_dict(before.state_dict())
        return network


class CropPairObjective(Objective):
    """A way of pre-training on pairs of crops of the same scan."""

    nearby = False
    """Whether the crops overlap."""

    @abstractmethod
    def crop(self, plan: Plan) -> float:
        """Side of a crop, as a fraction of the plan's size."""

    @property
    def changes(self) -> Augmentation:
        """Changes of intensity, drawn for each crop on its own."""
        return self.settings.augmentation

    def batches(self, pool: Pool) -> CropPairBatches:
        """Pairs of crops of the training cases."""
        training = self.settings.training
        return self._pairs(pool, pool.training, training.batch_size, training.seed)

    def validation_pairs(self, pool: Pool) -> CropPairs | None:
        """A pair of each held-out case; None where there are none."""
        held = pool.held_out
        seed = self.settings.training.seed + 1
        return self._pairs(pool, held, len(held), seed)(0) if held else None

    def _pairs(
        self, pool: Pool, indices: Sequence[int], batch_size: int, seed: int
    ) -> CropPairBatches:
        multiple = 2 ** (len(self.config(pool).multipliers) - 1)
        return CropPairBatches(
            pool.prepared,
            crop_size(pool.plan, self.crop(pool.plan), multiple),
            batch_size=batch_size,
            seed=seed,
            augmentation=self.changes,
            indices=indices,
            nearby=self.nearby,
        )
