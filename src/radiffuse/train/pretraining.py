"""What all ways of pre-training share: the pool of unlabelled cases, and the base of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Pretrain, UNetConfig, resolve_network
from ..data.batches import Batches, center_cut
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
        training: Indices of those that are trained on.
        held_out: Indices of those that are held out for validation.
    """

    prepared: Prepared
    training: Sequence[int]
    held_out: Sequence[int]

    @property
    def plan(self) -> Plan:
        """How the cases are treated."""
        return self.prepared.plan

    def validation_images(self) -> Tensor | None:
        """Held-out images ``(N, C, *size)``, of volumes the middle; None where there are none."""
        images = [
            center_cut(self.prepared.image(i), self.plan.size)
            for i in self.held_out[:VALIDATION_IMAGES]
        ]
        return torch.from_numpy(np.stack(images).astype(np.float32)) if images else None


class Objective(ABC):
    """What pre-training learns by. One class for each name of ``--objective``, in ``objectives.OBJECTIVES``.

    Args:
        settings: The settings of the run.
    """

    noised = False
    """Whether the network learns from noised images, and so knows timesteps."""

    source: type[Batches] = Batches
    """What the images come from."""

    def __init__(self, settings: Pretrain) -> None:
        self.settings = settings

    def given_plan(self, dataset: Dataset) -> Plan | None:
        """The plan that the objective brings along; None leaves it to the data.

        Raises:
            InputError: The settings name a regressor that the objective has no use for.
        """
        if self.settings.coordinates is not None:
            raise InputError(
                f"--objective {self.settings.objective}",
                "is not guided",
                "Leave --coordinates out",
            )
        return None

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """The U-Net for images of so many spatial axes and channels."""
        return resolve_network(
            self.settings.network, spatial_dims=dims, in_channels=channels, out_channels=channels
        )

    @abstractmethod
    def task(self, pool: Pool) -> Task:
        """What is learned from the pool.

        Raises:
            InputError: ``--from`` does not fit.
        """

    def batches(self, pool: Pool) -> BatchesByStep:
        """What it is learned from."""
        training = self.settings.training
        return self.source(
            pool.prepared,
            batch_size=training.batch_size,
            seed=training.seed,
            augmentation=self.settings.augmentation,
            indices=pool.training,
        )

    def kept(self, network: nn.Module) -> nn.Module:
        """What of the trained network is saved."""
        return network

    def write(self, run: Run, network: nn.Module, pool: Pool) -> None:  # noqa: B027 (optional)
        """Leave results beside the network: nothing."""

    def config(self, pool: Pool) -> UNetConfig:
        """The U-Net for the pool."""
        return self.unet(pool.plan.spatial_dims, len(pool.plan.channels))

    def start(self, network: UNet) -> UNet:
        """The network with its first weights: of ``--from``, else drawn by the seed."""
        network.initialize(torch.Generator().manual_seed(self.settings.training.seed))
        if (before := load_start(self.settings, network.config)) is not None:
            network.load_state_dict(before.state_dict())
        return network
