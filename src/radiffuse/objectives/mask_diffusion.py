"""Segmentation by mask diffusion, and the ways to train it (Fu et al. 2023, arXiv 2308.16355).

The network predicts the clean mask from the image and a noised mask. Noising the *true* mask leaks it: its coarse shape
survives at all but the last timesteps, whereas sampling starts from pure noise. Recycling noises a mask that the
network predicted from pure noise instead, or, as the released code does, from the true mask at the last timestep.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ..config import Fit, Losses, MaskDiffusion, Training
from ..core.axes import expand
from ..core.diffusion import GaussianDiffusion
from ..core.losses import segmentation_loss
from ..core.masks import logits_to_x_start, mask_to_x_start
from ..core.timesteps import timestep_sampler
from ..data.batches import Batch
from ..data.plan import Plan
from ..errors import InputError
from ..inference.mask_sampler import MaskSampler
from ..nets.mask_denoiser import MaskDenoiser
from ..system.distributed import gather
from ..train.labelled import HeldOut
from ..train.random import StepRandom
from ..train.segmenting import SegmentationTask, drawn_dice, logged
from ..train.start import Start, unet_for
from ..train.task import Loss

SELF_CONDITIONED = ("self-condition", "self-condition-next")
"""Strategies whose network has an earlier estimate as a further input."""
BELOW_LAST = ("recycle", "recycle-next", "self-condition-next")
"""Strategies whose second pass is never at the last timestep, since the first pass is at a later one."""
SHOWN = 0.5
"""Probability that a self-conditioned network gets the earlier estimate in training (Chen et al. 2022)."""


class MaskDenoising(SegmentationTask):
    """The task: from an image and a noised mask to the clean mask.

    Args:
        network: The denoiser at its start.
        settings: Strategy (not ``none``), noising process, and how validation draws masks.
        losses: The segmentation loss, always against the true mask.
        held_out: Labelled images for validation.
    """

    def __init__(
        self,
        network: MaskDenoiser,
        settings: MaskDiffusion,
        losses: Losses,
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__(network, held_out)
        strategy, diffusion = settings.strategy, settings.process
        self.classes, self.strategy, self.config = network.classes, strategy, diffusion
        self.losses, self.sampling = losses, settings.sampling
        self.from_noise = settings.first_pass == "noise"
        self.hard = settings.feed_back == "classes"
        self.process = GaussianDiffusion(diffusion)
        self.last = diffusion.num_train_timesteps - 1
        drawn = diffusion.num_train_timesteps - (strategy in BELOW_LAST)
        sampled = dataclasses.replace(diffusion, num_train_timesteps=drawn)
        self.timesteps = self.memory = timestep_sampler(sampled)

    def remark(self, training: Training) -> str:
        """When loss-aware timesteps become active."""
        return self.timesteps.remark(training.batch_size, training.steps)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """One training step: draw t, predict the mask by the strategy, compare with the truth."""
        assert batch.labels is not None
        self.process.to(batch.images.device)
        t, weights = (random.share(v) for v in self.timesteps.draw(random.total, random.generator))
        x_true = mask_to_x_start(batch.labels, self.classes)
        logits = self.predict(network, batch.images, x_true, t, random).float()
        losses, terms = segmentation_loss(logits, batch.labels, self.losses)
        self.timesteps.update(gather(t), gather(losses.detach()))
        return Loss((weights * losses).mean(), logged(terms))

    def predict(
        self, network: nn.Module, images: Tensor, x_true: Tensor, t: Tensor, random: StepRandom
    ) -> Tensor:
        """Logits of the pass that has a gradient. The strategies differ only here.

        Args:
            network: Called as ``network(images, x_t, t, guess)``.
            images: ``(B, C, *S)``.
            x_true: ``(B, K, *S)``, the true mask in [-1, 1].
            t: ``(B,)``, 0 to T - 1; to T - 2 for ``BELOW_LAST``.
            random: Source of the noise.
        """

        def noised(x_start: Tensor, at: Tensor) -> Tensor:
            return self.process.add_noise(x_start, random.normal(x_true.shape[1:]), at)

        def first_pass(x_t: Tensor, at: Tensor) -> Tensor:
            with torch.no_grad():
                logits = network(images, x_t, at).float()
                if self.hard:
                    return mask_to_x_start(logits.argmax(1), self.classes)
                return logits_to_x_start(logits)

        def shown(guess: Tensor) -> Tensor:
            coin = random.uniform(()) < SHOWN
            return torch.where(expand(coin, guess), guess, -1.0)

        logits: Tensor
        match self.strategy:
            case "standard":
                logits = network(images, noised(x_true, t), t)
            case "recycle":
                end = torch.full_like(t, self.last)
                noise = random.normal(x_true.shape[1:])
                x_t = noise if self.from_noise else self.process.add_noise(x_true, noise, end)
                guess = first_pass(x_t, end)
                logits = network(images, noised(guess, t), t)
            case "recycle-next":
                guess = first_pass(noised(x_true, t + 1), t + 1)
                logits = network(images, noised(guess, t), t)
            case "self-condition":
                x_t = noised(x_true, t)
                guess = first_pass(x_t, t)
                logits = network(images, x_t, t, shown(guess))
            case "self-condition-next":
                x_next = noised(x_true, t + 1)
                guess = first_pass(x_next, t + 1)
                x_t = self.process.reverse(guess, x_next, t + 1, random.normal(x_true.shape[1:]))
                logits = network(images, x_t, t, shown(guess))
            case _:
                raise ValueError(f"{self.strategy!r} diffuses no mask")
        return logits

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over held-out images on the plan's grid, of masks drawn from fixed noise."""
        assert isinstance(network, MaskDenoiser)
        sampler = MaskSampler(network, self.config, self.sampling)
        return drawn_dice(sampler, self.held_out, device, self.at_once)


def build(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> MaskDenoising:
    """Mask diffusion with the U-Net of the settings, or with that of a pre-trained denoiser.

    Raises:
        InputError: The plan's size does not fit.
    """
    wanted = settings.diffusion
    generator = torch.Generator().manual_seed(settings.training.seed)
    conditioned = wanted.strategy in SELF_CONDITIONED
    unet = unet_for(settings, plan, start)
    if start is None:
        network = MaskDenoiser.from_scratch(
            unet,
            self_condition=conditioned,
            image_share=wanted.image_share,
            generator=generator,
        )
    else:
        classes = len(plan.classes)
        network = MaskDenoiser.from_denoiser(
            start.denoiser, classes=classes, self_condition=conditioned, generator=generator
        )
    return MaskDenoising(network, wanted, settings.loss, held_out)


def verify(settings: Fit) -> None:
    """Refuse settings that do not apply to mask diffusion.

    Raises:
        InputError: Names the first of them.
    """
    process, sampling = settings.diffusion.process, settings.diffusion.sampling
    wanted = {
        "prediction_type": ("x_start", "the network gives logits of the clean mask"),
        "variance": ("fixed_small", "no variance is learned"),
        "min_snr_gamma": (None, "the loss is that of segmentation"),
        "loss": ("mse", "the loss is that of segmentation; see --loss.dice and its neighbors"),
    }
    for name, (legal, reason) in wanted.items():
        if (value := getattr(process, name)) != legal:
            where = f"--diffusion.process.{name} {value}"
            raise InputError(where, f"does not apply: {reason}", "Leave it")
    if process.num_train_timesteps < 2 or sampling.steps > process.num_train_timesteps:
        where = f"--diffusion.sampling.steps {sampling.steps}"
        problem = f"the process has {process.num_train_timesteps} timesteps"
        remedy = "Use at least two timesteps, and no more steps than timesteps"
        raise InputError(where, problem, remedy)
