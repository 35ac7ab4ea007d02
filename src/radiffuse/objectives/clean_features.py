"""Features without noise (CleanDIFT, Stracke et al. 2024, arXiv 2412.03439).

A denoiser's best features are those of noised images, but noise hides details. A copy of it learns, on clean images, to
give the features that the denoiser has of noised ones, at several timesteps, through a projection for each; then the
projections are dropped. [paper] copy, projections by timestep, cosine. [ours] a few fixed timesteps with a projection
each, of a pyramid that is the bottleneck and every decoder level.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..config import Diffusion, Pretrain, UNetConfig
from ..core.diffusion import GaussianDiffusion
from ..data.batches import Batch
from ..errors import InputError
from ..nets.guided import GuidedUNet
from ..nets.student import FeatureStudent, feature_distance
from ..nets.unet import UNet
from ..train.inherit import verify_network
from ..train.pretraining import ImageTask, Objective, Unlabelled
from ..train.random import StepRandom
from ..train.task import Loss, Task

SHARES = (0.01, 0.03, 0.1, 0.3)
"""Default timesteps, of all: from where details are seen to where big structures alone are [ours]."""


class CleanFeatures(Objective):
    """Pre-training of a copy of a denoiser for clean images."""

    @property
    def follows(self) -> str | None:
        """The denoiser's run."""
        return self.settings.from_run

    @property
    def one_scale(self) -> bool:
        """Whether the denoiser is guided by a regressor."""
        return self.teacher[0].coordinate_channels > 0

    @property
    def teacher(self) -> tuple[UNet, Diffusion]:
        """The denoiser and its noising process.

        Raises:
            InputError: None is given, or the run learned something else.
        """
        if self.source_run is None or (run := self.followed) is None:
            problem = "learns from a denoiser"
            raise InputError("--objective clean-features", problem, "Give its run with --from")
        if (other := run.config["settings"].get("objective", "ddpm")) != "ddpm":
            problem = f"was pre-trained by {other}, which knows no timesteps"
            raise InputError(str(self.follows), problem, "Give a run of --objective ddpm")
        network, diffusion = self.source_run
        assert isinstance(network, UNet), "other networks are not of ddpm"
        return network, diffusion

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Those of the settings, or the default.

        Raises:
            InputError: The denoiser has no such timestep.
        """
        total = self.teacher[1].num_train_timesteps
        wanted = self.settings.feature_timesteps or [int(share * total) for share in SHARES]
        if beyond := [t for t in wanted if t >= total]:
            problem = f"{self.follows} was trained with timesteps 0 to {total - 1}"
            raise InputError(f"--feature-timesteps {beyond[0]}", problem, "Choose from these")
        return tuple(dict.fromkeys(wanted))

    def obeyed(self) -> Pretrain:
        """With the plan and the timesteps of the denoiser, whose network must be asked for, if any is."""
        verify_network(self.settings.network, self.teacher[0], str(self.follows))
        return replace(super().obeyed(), feature_timesteps=self.timesteps)

    def unet(self, dims: int, channels: int) -> UNetConfig:
        """That of the denoiser."""
        return self.teacher[0].config

    def task(self, pool: Unlabelled) -> Task:
        """A copy of the denoiser beside it."""
        denoiser, diffusion = self.teacher
        timesteps = self.timesteps
        student = FeatureStudent(copy.deepcopy(denoiser), len(timesteps))
        student.initialize(self.generator())
        teacher, held_out = copy.deepcopy(denoiser), pool.validation_images()
        return CleanFeatureLearning(student, teacher, diffusion, timesteps, held_out)

    def kept(self, network: nn.Module) -> nn.Module:
        """The U-Net without projections."""
        assert isinstance(network, FeatureStudent)
        return network.unet


class CleanFeatureLearning(ImageTask):
    """The task: on the clean image, the features of the denoiser on a noised one.

    Args:
        network: The student at its start.
        denoiser: Who gives the features; frozen.
        diffusion: Its noising process.
        timesteps: Training timesteps of the features; each image of a step gets one of them.
        held_out: Images ``(N, C, *S)`` for validation.
    """

    def __init__(
        self,
        network: FeatureStudent,
        denoiser: UNet,
        diffusion: Diffusion,
        timesteps: Sequence[int],
        held_out: Tensor | None = None,
    ) -> None:
        super().__init__(network, held_out)
        self.taps, self.guided = network.taps, isinstance(denoiser, GuidedUNet)
        self.denoiser = denoiser.requires_grad_(False).eval()
        self.process = GaussianDiffusion(diffusion)
        self.timesteps = torch.tensor(list(timesteps))

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The distance of the features at a random timestep; logged by timestep."""
        count = len(self.timesteps)
        drawn = (random.total,)
        which = torch.randint(count, drawn, generator=random.generator, device=random.device)
        which, noise = random.share(which), random.normal(batch.images.shape[1:])
        losses = self.distance(network, batch.images, which, noise)
        terms = {
            f"loss_t{t}": losses.detach()[which == number]
            for number, t in enumerate(self.timesteps.tolist())
        }
        return Loss(losses.mean(), terms)

    def error(self, network: nn.Module, images: Tensor, drawn: Tensor) -> Tensor:
        """The distance at every timestep ``(B, timesteps)`` for images ``(B, C, *S)`` and ``drawn`` noise."""
        every = torch.arange(len(self.timesteps), device=images.device)[:, None]
        found = [self.distance(network, images, t.expand(len(images)), drawn) for t in every]
        return torch.stack(found, dim=1)

    def distance(self, network: nn.Module, images: Tensor, which: Tensor, noise: Tensor) -> Tensor:
        """The distance ``(B,)`` for images ``(B, C, *S)``, numbers of timesteps ``(B,)`` and noise like the images."""
        t = self.timesteps.to(images.device)[which]
        self.denoiser.to(images.device)
        with torch.no_grad():
            x_t = self.process.to(images.device).add_noise(images, noise, t)
            guide = (images,) if self.guided else ()
            wanted = self.denoiser.features(x_t, t, self.taps, *guide)
        return feature_distance(network(images, which), [wanted[tap] for tap in self.taps])
