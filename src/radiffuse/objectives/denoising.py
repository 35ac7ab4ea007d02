"""Denoising at all noise levels (DDPM, Ho et al. 2020, algorithm 1; Rousseau et al. 2023 use it for radiographs).

A guided network (Li et al. 2025, arXiv 2501.19265) also sees body coordinates of every voxel, which a frozen regressor
computes from the clean image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Diffusion, Pretrain, Training, UNetConfig
from ..core.diffusion import GaussianDiffusion
from ..core.timesteps import timestep_sampler
from ..data.batches import Batch
from ..inference.coordinates import warn_of_guide
from ..inference.draw import write_samples
from ..nets.coordinates import CoordinateRegressor
from ..nets.guided import GuidedUNet
from ..system.distributed import gather
from ..train.device import local_device
from ..train.pretraining import Objective, Unlabelled
from ..train.random import StepRandom
from ..train.run import Run
from ..train.start import Pretrained, load_regressor
from ..train.task import Loss, Task, in_passes

Network = Callable[..., Any]
"""``(x_t, t, *context)`` to the output."""
QUARTERS = 4
"""Parts of the timesteps whose loss is logged."""


class DDPM(Objective):
    """Pre-training by denoising, with or without body coordinates; leaves samples for the report."""

    noised = True
    shifts = True

    @property
    def follows(self) -> str | None:
        """The run of the regressor; None: no coordinates."""
        return self.settings.coordinates

    @cached_property
    def regressor(self) -> CoordinateRegressor | None:
        """What guides the denoiser.

        Raises:
            InputError: The run is no regressor.
        """
        if self.followed is None:
            return None
        regressor = load_regressor(self.followed)
        warn_of_guide(self.followed.folder)
        return regressor

    def obeyed(self) -> Pretrain:
        """With the plan of the regressor."""
        _ = self.regressor  # another kind of run is refused before anything is read
        return super().obeyed()

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """With an input channel more for each coordinate."""
        plain = super().unet(dims, channels)
        return replace(plain, in_channels=channels + dims) if self.settings.coordinates else plain

    def network(self, pool: Unlabelled) -> Pretrained:
        """Guided where a regressor is given."""
        if self.regressor is None:
            return super().network(pool)
        network = GuidedUNet(self.config(pool), copy.deepcopy(self.regressor))
        network.initialize(self.generator())
        return network

    def task(self, pool: Unlabelled) -> Task:
        """Denoising of the pool's images."""
        return Denoising(self.started(pool), self.settings.diffusion, pool.validation_images())

    def write(self, run: Run, network: nn.Module, pool: Unlabelled) -> None:
        """``samples.npy``, drawn where the network was trained."""
        settings = self.settings
        network.to(local_device(settings.machine).device)
        write_samples(
            network,
            settings.diffusion,
            pool.plan,
            run.folder / "samples.npy",
            pool.validation_images(),
            settings.training.micro_batch,
        )
        network.cpu()


class DenoisingTask(Task):
    """Algorithm 1 of Ho et al. 2020; a subclass may override ``clean`` and ``context``."""

    def __init__(self, network: nn.Module | Callable[[], nn.Module], diffusion: Diffusion) -> None:
        super().__init__(network)
        self.diffusion = GaussianDiffusion(diffusion)
        self.timesteps = self.memory = timestep_sampler(diffusion)

    def remark(self, training: Training) -> str:
        """When loss-aware timesteps become active."""
        return self.timesteps.remark(training.batch_size, training.steps)

    def clean(self, batch: Batch, random: StepRandom) -> Tensor:
        """``x_start``: the images."""
        return batch.images

    def context(self, batch: Batch, random: StepRandom) -> tuple[Tensor, ...]:
        """Further inputs of the network after x_t and t: none."""
        return ()

    def loss(self, network: Network, batch: Batch, random: StepRandom) -> Loss:
        """Weighted error of the prediction at random timesteps; logged by quarter of the timesteps."""
        self.diffusion.to(batch.images.device)
        t, weights = (random.share(v) for v in self.timesteps.draw(random.total, random.generator))
        x_start = self.clean(batch, random)
        noise = random.normal(x_start.shape[1:])
        x_t = self.diffusion.add_noise(x_start, noise, t)
        output = network(x_t, t, *self.context(batch, random))
        losses = self.diffusion.training_loss(output, x_start, noise, x_t, t)
        self.timesteps.update(gather(t), gather(losses.detach()))
        quarter = t * QUARTERS // self.diffusion.num_train_timesteps
        by_quarter = {f"loss_q{q}": losses.detach()[quarter == q] for q in range(QUARTERS)}
        return Loss((losses * weights).mean(), by_quarter)

    def held_out_error(self, network: nn.Module, x_start: Tensor, *context: Tensor) -> float:
        """Mean error on ``(N, C, *S)`` at fixed noise, each at the middle of one of N equal parts of the timesteps."""
        self.diffusion.to(x_start.device)
        total, count = self.diffusion.num_train_timesteps, len(x_start)
        t = (2 * torch.arange(count, device=x_start.device) + 1) * total // (2 * count)
        noise = torch.randn(x_start.shape, generator=torch.Generator().manual_seed(0))
        noise = noise.to(x_start.device)
        x_t = self.diffusion.add_noise(x_start, noise, t)
        losses = []
        for x, e, noised, at, *more in in_passes(self.at_once, x_start, noise, x_t, t, *context):
            output = network(noised, at, *more)
            losses.append(self.diffusion.training_loss(output, x, e, noised, at))
        return float(torch.cat(losses).mean())


class Denoising(DenoisingTask):
    """The task of DDPM: predict the noise in x_t.

    Args:
        network: The denoiser at its start.
        diffusion: The noising process.
        held_out: Images ``(N, C, *S)`` for validation, never trained on.
    """

    def __init__(
        self, network: nn.Module, diffusion: Diffusion, held_out: Tensor | None = None
    ) -> None:
        super().__init__(network, diffusion)
        self.guided = isinstance(network, GuidedUNet)
        self.held_out = held_out

    def context(self, batch: Batch, random: StepRandom) -> tuple[Tensor, ...]:
        """The clean images, for the coordinates of a guided network."""
        return (batch.images,) if self.guided else ()

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Denoising error on held-out images."""
        if self.held_out is None or not len(self.held_out):
            return {}
        images = self.held_out.to(device)
        context = (images,) if self.guided else ()
        return {"loss": self.held_out_error(network, images, *context)}
