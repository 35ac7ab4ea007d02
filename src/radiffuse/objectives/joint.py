"""Image and mask together: one denoiser whose parts are given, noised or missing.

UniDiffuser (Bao et al. 2023, arXiv 2303.06555) noises two parts to timesteps of their own, so that one network learns
their marginal, conditional and joint distributions: a part at timestep -1 is given, one at T - 1 is missing. Of the
paper are the two timesteps. [ours]: the second part is a mask, of which the network gives logits instead of its noise;
some parts are given as they are, since few labels leave no time to draw that by chance; images of a pool without labels
train the image part, their masks missing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..config import Fit, Joint, Losses
from ..core.axes import expand
from ..core.diffusion import GaussianDiffusion
from ..core.losses import segmentation_loss
from ..core.masks import mask_to_x_start
from ..core.timesteps import timestep_sampler
from ..data.augment import apply_changes
from ..data.batches import Batch
from ..data.issues import Issues, say
from ..data.plan import Plan
from ..data.pool import PooledBatch
from ..errors import InputError
from ..inference.mask_sampler import MaskSampler
from ..nets.joint_denoiser import CLEAN, JointDenoiser
from ..train.labelled import HeldOut, Labelled
from ..train.random import StepRandom
from ..train.run import Run
from ..train.segmenting import SegmentationTask, drawn_dice, logged
from ..train.start import Start, find_pretrained, unet_for
from ..train.task import Loss, LossOf

PROPER = Losses(cross_entropy=1.0)
"""The loss of masks of noised images. Its best answer is the probability of each class, which sampling takes it for;
that of Dice is a mask."""


class JointDenoising(SegmentationTask):
    """The task: from an image and a mask, each at a timestep of its own, to both as they were.

    Args:
        network: The denoiser at its start.
        settings: Which parts are given, noising process, and how validation draws masks.
        losses: The segmentation loss of masks of images that are given.
        held_out: Labelled images for validation.
    """

    def __init__(
        self,
        network: JointDenoiser,
        settings: Joint,
        losses: Losses,
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__(network, held_out)
        self.classes, self.parts = network.classes, network.parts
        self.settings, self.losses = settings, losses
        self.process = GaussianDiffusion(settings.process)
        self.last = settings.process.num_train_timesteps - 1
        self.timesteps = timestep_sampler(settings.process)

    def losses_of(self, batch: Batch) -> tuple[LossOf, ...]:
        """That of the labelled images, and that of the pool."""
        return (self.loss, self.pool_loss) if isinstance(batch, PooledBatch) else (self.loss,)

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """One training step on labelled images: draw what is given and what is noised, predict both parts."""
        assert batch.labels is not None
        self.process.to(batch.images.device)
        t = self.draw(random)
        image, mask = t.unbind(1)
        noise, x_image = self.noised(batch.images, image, random)
        _, x_mask = self.noised(mask_to_x_start(batch.labels, self.classes), mask, random)
        answer, logits = self.parts(network(x_image, x_mask, t).float())
        of_image = self.image_loss(answer, batch.images, noise, x_image, image)
        found, terms = segmentation_loss(logits, batch.labels, self.losses)
        proper, _ = segmentation_loss(logits, batch.labels, PROPER)
        of_mask = torch.where(image == CLEAN, found, proper) * (mask != CLEAN)
        value = (self.settings.image_weight * of_image + of_mask).mean()
        noised = of_image.detach()[image != CLEAN]
        return Loss(value, {"loss_image": noised, **logged(terms)})

    def pool_loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The loss of the image part on images of the pool, whose masks are missing; none of the mask part."""
        assert isinstance(batch, PooledBatch)
        images, _ = apply_changes(batch.changes, batch.pool, None)
        t = self.timestep(random)
        noise, x_image = self.noised(images, t, random)
        x_mask = random.normal((self.classes, *images.shape[2:]))
        both = torch.stack([t, torch.full_like(t, self.last)], dim=1)
        answer, _ = self.parts(network(x_image, x_mask, both).float())
        losses = self.image_loss(answer, images, noise, x_image, t)
        value = self.settings.image_weight * losses.mean()
        return Loss(value, {"pool": float(losses.detach().mean())})

    def timestep(self, random: StepRandom) -> Tensor:
        """A timestep for each image ``(B,)``, 0 to T - 1."""
        return random.share(self.timesteps.draw(random.total, random.generator)[0])

    def draw(self, random: StepRandom) -> Tensor:
        """Timesteps of image and mask ``(B, 2)``, ``CLEAN`` for a part that is given; at most one is."""
        settings, image, mask = self.settings, self.timestep(random), self.timestep(random)
        coin, other = random.uniform((2,)).unbind(1)
        given_image = coin < settings.given_image
        given_mask = coin >= 1 - settings.given_mask
        missing = given_image & (other < settings.missing)
        mask = mask.masked_fill(missing, self.last).masked_fill(given_mask, CLEAN)
        return torch.stack([image.masked_fill(given_image, CLEAN), mask], dim=1)

    def noised(self, x_start: Tensor, t: Tensor, random: StepRandom) -> tuple[Tensor, Tensor]:
        """The noise of a part ``(B, C, *S)``, and the part as the network sees it.

        It is ``x_start`` itself at ``CLEAN``, and the noise itself at the last timestep, where the schedule may leave
        something of ``x_start``: so the first step of sampling is one that was trained.
        """
        noise = random.normal(x_start.shape[1:])
        x_t = self.process.add_noise(x_start, noise, t.clamp(min=0))
        at = expand(t, x_t)
        x_t = torch.where(at == self.last, noise, x_t)
        return noise, torch.where(at == CLEAN, x_start, x_t)

    def image_loss(
        self, answer: Tensor, images: Tensor, noise: Tensor, x_t: Tensor, t: Tensor
    ) -> Tensor:
        """The loss of diffusion for each image ``(B,)``; 0 where it is given."""
        losses = self.process.training_loss(answer, images, noise, x_t, t.clamp(min=0))
        return losses * (t != CLEAN)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice over held-out images on the plan's grid, of masks drawn from fixed noise."""
        assert isinstance(network, JointDenoiser)
        sampler = MaskSampler(network, self.settings.process, self.settings.sampling)
        return drawn_dice(sampler, self.held_out, device, self.at_once)


def build(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> JointDenoising:
    """A joint denoiser with the U-Net of the settings, or with that of a pre-trained denoiser.

    Raises:
        InputError: The plan's size does not fit.
    """
    _verify_steps(settings)
    generator = torch.Generator().manual_seed(settings.training.seed)
    unet, steps = unet_for(settings, plan, start), settings.joint.process.num_train_timesteps
    if start is None:
        network = JointDenoiser.from_scratch(unet, timesteps=steps, generator=generator)
    else:
        classes = len(plan.classes)
        network = JointDenoiser.from_denoiser(
            start.denoiser, classes=classes, timesteps=steps, generator=generator
        )
    return JointDenoising(network, settings.joint, settings.loss, held_out)


def name_patients(run: Run, labelled: Labelled, settings: Fit) -> None:
    """Write the patients whose labels were learned from: drawn pairs descend from them, and from those of a pool.

    Those of the run to start from are among them, also where it learned from images alone.
    """
    prepared = labelled.batches.prepared
    patients = {prepared.cases[i].group for i in labelled.batches.indices}
    data: dict[str, Any] = run.data
    source = find_pretrained(settings.from_run) if settings.from_run else None
    before: dict[str, Any] = source.data if source else {}
    for key, own in (
        ("learned_patients", patients),
        ("unlabelled_patients", {*data.get("unlabelled_patients", ())}),
    ):
        if known := sorted(own.union(before.get(key, ()))):
            data[key] = known
    run.write_data(data)
    if source and before.keys().isdisjoint(("learned_patients", "unlabelled_patients")):
        issues = Issues()
        problem = "does not name the patients whose images it learned from, so no pair counts as drawn from them"
        remedy = (
            "Draw no pairs to learn from beside labels whose held-out patients may be among them"
        )
        issues.warning(source.folder, problem, remedy)
        say(issues)


def verify(settings: Fit) -> None:
    """Refuse settings that do not apply to image and mask together.

    Raises:
        InputError: Names the first of them.
    """
    joint, process = settings.joint, settings.joint.process
    if joint.given_image + joint.given_mask > 1:
        where = f"--joint.given-image {joint.given_image} --joint.given-mask {joint.given_mask}"
        raise InputError(where, "are more than all images", "Lower one of them")
    if process.variance != "fixed_small":
        where = f"--joint.process.variance {process.variance}"
        raise InputError(where, "does not apply: both parts step by the small one", "Leave it out")
    if process.timestep_sampling == "loss-aware":
        where = "--joint.process.timestep-sampling loss-aware"
        problem = "does not apply: a loss depends on two timesteps"
        raise InputError(where, problem, "Use uniform, low or logit-normal")
    if not settings.from_run:
        _verify_steps(settings)


def _verify_steps(settings: Fit) -> None:
    """Refuse more steps of sampling than there are timesteps."""
    total, steps = settings.joint.process.num_train_timesteps, settings.joint.sampling.steps
    if steps > total:
        problem = f"the process has {total} timesteps"
        raise InputError(
            f"--joint.sampling.steps {steps}", problem, "Use no more steps than timesteps"
        )
