"""The bases of objectives of pre-training and of their tasks, and the pool of prepared cases that they learn from."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from ..config import (
    Augmentation,
    Diffusion,
    Pretrain,
    UNetConfig,
    resolve_network,
)
from ..config.network import IMAGENET
from ..data.batches import Batches
from ..data.crops import CropPairBatches, CropPairs, crop_size
from ..data.plan import Plan
from ..data.prepared import Prepared
from ..data.streams import Stream
from ..errors import InputError
from ..nets.imagenet import new_imagenet_denoiser
from ..nets.unet import UNet
from .cases import VALIDATION_IMAGES
from .inherit import verify_plan
from .run import Run
from .start import (
    Pretrained,
    diffusion_of,
    find_pretrained,
    load_pretrained,
    unet_of,
)
from .task import BatchesByStep, Task, in_passes


@dataclass(frozen=True)
class Unlabelled:
    """Prepared unlabelled cases.

    Attributes:
        prepared: All of them.
        training: Indices of the training cases.
        held_out: Indices of the validation cases.
        zoom: See ``data.batches.Batches``.
    """

    prepared: Prepared
    training: Sequence[int]
    held_out: Sequence[int]
    zoom: float | None = 1.0

    @property
    def plan(self) -> Plan:
        """The plan they were prepared by."""
        return self.prepared.plan

    def validation_images(self) -> Tensor | None:
        """Held-out images ``(N, C, *size)``: whole films, or a patch of each that stays the same; None without any."""
        held = self.held_out[:VALIDATION_IMAGES]
        if not held:
            return None
        source = Batches(
            self.prepared, batch_size=1, seed=0, augmentation=Augmentation(), zoom=self.zoom
        )
        return torch.stack([source.sample(i, Stream.VALIDATION.rng(0, i))[0] for i in held])


class Objective(ABC):
    """A way of pre-training: a class for each name of ``--objective``, in ``objectives.OBJECTIVES``."""

    noised = False
    """Whether the network learns from images noised to all timesteps, and so knows timesteps other than 0."""

    shifts = False
    """Whether the noise schedule is shifted by the size of the patch."""

    source: type[Batches] = Batches
    """Makes the training batches."""

    def __init__(self, settings: Pretrain) -> None:
        self.settings = settings

    def with_settings(self, settings: Pretrain) -> Self:
        """The same objective, with the runs that it has loaded, by other settings."""
        other = copy.copy(self)
        other.settings = settings
        return other

    @property
    def follows(self) -> str | None:
        """The run whose plan is obeyed, by its name in the settings; None: any plan will do."""
        return None

    @cached_property
    def followed(self) -> Run | None:
        """That run, once it was found.

        Raises:
            InputError: There is no such run.
        """
        return None if self.follows is None else find_pretrained(self.follows)

    @property
    def one_scale(self) -> bool:
        """Whether a regressor sees the images, which is made for one scale."""
        return self.settings.coordinates is not None

    def obeyed(self) -> Pretrain:
        """The settings as they are obeyed, which are recorded: with the plan of ``follows``.

        Raises:
            InputError: One cannot be obeyed.
        """
        if (run := self.followed) is None:
            return self.settings
        verify_plan(self.settings.plan, run.plan, str(self.follows))
        return replace(self.settings, plan=run.plan.settings())

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """The U-Net for images of ``dims`` spatial axes; where the variance is learned, it is a second output."""
        learned = self.noised and self.settings.diffusion.variance == "learned"
        outputs = 2 * channels if learned else channels
        return resolve_network(
            self.settings.network, spatial_dims=dims, in_channels=channels, out_channels=outputs
        )

    @cached_property
    def source_run(self) -> tuple[Pretrained, Diffusion] | None:
        """The network and the noising process of ``--from``, which are loaded once; None without.

        Raises:
            InputError: The run has another kind of network.
        """
        if not self.settings.from_run:
            return None
        run = find_pretrained(self.settings.from_run)
        return load_pretrained(run), diffusion_of(run)

    @property
    def on_imagenet(self) -> bool:
        """Whether the network is that on ImageNet's encoder, which knows no timesteps."""
        return self.settings.network.preset == IMAGENET

    def before(self, unet: UNetConfig | None) -> Pretrained | None:
        """The network of ``--from``; None without.

        Raises:
            InputError: It is another U-Net than that of the settings, or one where they ask for none.
        """
        if self.source_run is None:
            return None
        network, _ = self.source_run
        if unet_of(network) != unet:
            problem = "holds another network than the settings ask for"
            remedy = "Give a pre-trained run of the same --network settings"
            raise InputError(str(self.settings.from_run), problem, remedy)
        return network

    @abstractmethod
    def task(self, pool: Unlabelled) -> Task:
        """The task on the pool.

        Raises:
            InputError: ``--from`` does not fit.
        """

    def batches(self, pool: Unlabelled) -> BatchesByStep:
        """The training batches."""
        training = self.settings.training
        return self.source(
            pool.prepared,
            batch_size=training.batch,
            seed=training.seed,
            augmentation=self.settings.augmentation,
            indices=pool.training,
            zoom=pool.zoom,
        )

    @property
    def zoom(self) -> float | None:
        """By how much patches are shrunk at most; None: whatever makes a patch of the whole image."""
        settings = self.settings
        if not self.one_scale:
            return settings.zoom
        if settings.zoom not in (None, 1.0):
            problem = "would give the regressor images of another scale"
            raise InputError(f"--zoom {settings.zoom:g}", problem, "Leave it out")
        return 1.0

    def kept(self, network: nn.Module) -> nn.Module:
        """The part of the trained network that is saved."""
        return network

    def write(self, run: Run, network: nn.Module, pool: Unlabelled) -> None:  # noqa: B027 (optional)
        """Write further results of the trained network into the run."""

    def write_missing(self, run: Run, pool: Unlabelled) -> None:  # noqa: B027 (optional)
        """Write results into a finished run that were not asked for before."""

    def verify(self, plan: Plan) -> None:  # noqa: B027 (optional)
        """Refuse settings that take no effect with a plan.

        Raises:
            InputError: Names the setting.
        """

    def config(self, pool: Unlabelled) -> UNetConfig:
        """The U-Net for the pool."""
        return self.unet(pool.plan.spatial_dims, len(pool.plan.channels))

    def network(self, pool: Unlabelled) -> Pretrained:
        """The network of the settings: random weights by the seed, and an encoder of ImageNet where they ask for it."""
        if self.on_imagenet:
            seed, published = self.settings.training.seed, not self.settings.from_run
            return new_imagenet_denoiser(len(pool.plan.channels), seed, published=published)
        network = UNet(self.config(pool))
        network.initialize(self.generator())
        return network

    def generator(self) -> torch.Generator:
        """What random weights are drawn by: a new one by the seed."""
        return torch.Generator().manual_seed(self.settings.training.seed)

    def started(self, pool: Unlabelled) -> Pretrained:
        """The same with the weights of ``--from``, if given."""
        network = self.network(pool)
        if (before := self.before(unet_of(network))) is not None:
            network.load_state_dict(before.state_dict())
        return network


class ImageTask(Task):
    """Base of what is learned of images alone, and validated by its own error on held-out ones.

    Args:
        network: The network at its start.
        held_out: Images ``(N, C, *S)`` for validation, never trained on; None: none.
    """

    def __init__(self, network: nn.Module, held_out: Tensor | None = None) -> None:
        super().__init__(network)
        self.held_out = held_out

    def drawn(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What ``error`` needs for images ``(N, C, *S)``, drawn for each: ``(N, ...)``; noise like them by default."""
        return torch.randn(images.shape, generator=generator)

    @abstractmethod
    def error(self, network: nn.Module, images: Tensor, drawn: Tensor) -> Tensor:
        """The error of each of the images ``(B, C, *S)``: ``(B, ...)``, whose mean is the loss."""

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """The mean error on the held-out images, with the same ``drawn`` each time."""
        if self.held_out is None:
            return {}
        drawn = self.drawn(self.held_out, torch.Generator().manual_seed(0))
        errors = [
            self.error(network, images.to(device), part.to(device)).reshape(len(part), -1).mean(1)
            for images, part in in_passes(self.at_once, self.held_out, drawn)
        ]
        return {"loss": float(torch.cat(errors).mean())}


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

    def batches(self, pool: Unlabelled) -> CropPairBatches:
        """Pairs of crops of the training cases."""
        training = self.settings.training
        return self._pairs(pool, pool.training, training.batch, training.seed)

    def validation_pairs(self, pool: Unlabelled) -> CropPairs | None:
        """A pair of each of the held-out cases, but no more than of images; None where there are none."""
        held = pool.held_out[:VALIDATION_IMAGES]
        seed = self.settings.training.seed + 1
        return self._pairs(pool, held, len(held), seed)(0) if held else None

    def _pairs(
        self, pool: Unlabelled, indices: Sequence[int], batch_size: int, seed: int
    ) -> CropPairBatches:
        multiple = self.config(pool).size_multiple
        return CropPairBatches(
            pool.prepared,
            crop_size(pool.plan, self.crop(pool.plan), multiple),
            batch_size=batch_size,
            seed=seed,
            augmentation=self.changes,
            indices=indices,
            nearby=self.nearby,
        )
