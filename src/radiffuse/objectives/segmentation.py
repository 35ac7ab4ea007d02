"""Supervised segmentation: fine-tuning (Rousseau et al. 2023, arXiv 2307.14066), and training from scratch.

The denoiser becomes a segmenter by replacing its last convolution; its input is the clean image at a fixed timestep,
and all weights are trained. Without a pre-trained run the same network, or DynUNet, starts from random weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Fit, Losses
from ..core.losses import segmentation_loss
from ..data.batches import Batch
from ..data.plan import Plan
from ..errors import InputError
from ..nets.dino_segmenter import DinoSegmenter, new_dino_segmenter
from ..nets.dynunet import new_dynunet
from ..nets.encoder import encoder_folder, load_encoder
from ..nets.imagenet import ImageNetDenoiser, new_imagenet_unet, published_weights
from ..nets.segmenter import SegmentingUNet
from ..train.labelled import HeldOut, verify_films
from ..train.random import StepRandom
from ..train.segmenting import SegmentationTask, logged
from ..train.start import Pretrained, Segmenter, Start, unet_for, verify_coarse
from ..train.task import Loss

TRAIN_ONE = "train one on images of yours with radiffuse synthesize, and give its run"
"""Where no encoder is found."""


class Segmentation(SegmentationTask):
    """The task: segment clean images."""

    def __init__(self, network: nn.Module, losses: Losses, held_out: HeldOut | None = None) -> None:
        super().__init__(network, held_out)
        self.losses = losses

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The segmentation loss of the settings."""
        assert batch.labels is not None
        logits = network(batch.images).float()
        losses, terms = segmentation_loss(logits, batch.labels, self.losses)
        return Loss(losses.mean(), logged(terms))


NEARLY = "nearly the same result, since the loss gives one number for all images of a pass"


class CustomSegmentation(SegmentationTask):
    """The same with a loss of the user.

    Args:
        network: The segmenter at its start.
        function: Logits ``(B, K, *S)`` float32 and labels ``(B, *S)`` int64, 255 where they are ignored, to a loss: a
            scalar, or ``(B,)``. With ``--micro-batch``, also where memory runs out, a step learns from the mean over
            its passes: one number per image gives what one pass would, a mean over labelled voxels only nearly so.
        held_out: Labelled images for validation.
    """

    def __init__(
        self,
        network: nn.Module,
        function: Callable[[Tensor, Tensor], Tensor],
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__(network, held_out)
        self.function = function
        self.in_passes = "the same result if the loss gives one number per image, else nearly so"

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The mean of the function.

        Raises:
            InputError: It gives something else than a scalar or a number per image that depends on the logits.
        """
        assert batch.labels is not None
        value = self.function(network(batch.images).float(), batch.labels)
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape not in ((), (len(batch.images),)):
            problem = f"gave {shape} for {len(batch.images)} images"
            raise InputError("the loss", problem, "Return a scalar tensor, or one number per image")
        if torch.is_grad_enabled() and not value.requires_grad:
            remedy = "Compute it of the logits, without detach, argmax or numpy"
            raise InputError("the loss", "does not depend on the network", remedy)
        self.in_passes = "the same result" if value.ndim else NEARLY
        return Loss(value.mean())


def build(settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None) -> Segmentation:
    """Fine-tuning of a pre-trained denoiser, or the same network from random weights.

    Raises:
        InputError: The denoiser does not know the timestep, or the plan's size does not fit.
    """
    network = new_segmenter(settings, plan, start)
    verify_half(settings, plan, network)
    return Segmentation(network, settings.loss, held_out)


def verify_half(settings: Fit, plan: Plan, network: nn.Module) -> None:
    """Raise InputError if the first steps see half of a size that cannot be halved, or of which no U-Net takes half."""
    multiple = (1,) * len(plan.size)
    if isinstance(network, SegmentingUNet):
        multiple = network.unet.size_multiple
    verify_coarse(settings.training, plan.size, multiple)


def new_segmenter(settings: Fit, plan: Plan, start: Start | None) -> Segmenter:
    """The U-Net at its start; see ``build``."""
    if start is not None and not isinstance(start.network, Pretrained):
        return _further(settings, plan, start, start.network)
    generator = torch.Generator().manual_seed(settings.training.seed)
    timestep = settings.finetune.timestep
    if start is None:
        unet = unet_for(settings, plan)
        return SegmentingUNet.from_scratch(unet, timestep=timestep, generator=generator)
    if isinstance(start.network, ImageNetDenoiser):
        return start.network.segmenter(len(plan.classes), generator)
    last = start.diffusion.num_train_timesteps - 1
    if not 0 <= timestep <= last:
        problem = f"the pre-trained network knows timesteps 0 to {last}"
        raise InputError(f"--timestep {timestep}", problem, "Choose one of them")
    unet_for(settings, plan, start)  # refuses what does not fit
    return SegmentingUNet.from_denoiser(
        start.denoiser, classes=len(plan.classes), timestep=timestep, generator=generator
    )


def _further(settings: Fit, plan: Plan, start: Start, network: Segmenter) -> Segmenter:
    """A copy of a segmenter, head and all.

    Raises:
        InputError: It tells other classes apart, or the plan's size does not fit it.
    """
    if plan.classes != start.plan.classes:
        theirs, ours = (", ".join(one.classes[1:]) for one in (start.plan, plan))
        problem = f"segments {theirs}, and the labels have {ours}"
        raise InputError(f"--from {settings.from_run}", problem, "Give a run of the same classes")
    if start.unet is not None:
        unet_for(settings, plan, start)  # refuses what does not fit
    return copy.deepcopy(network).train()


def build_dynunet(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> Segmentation:
    """MONAI's DynUNet, shaped by nnU-Net's rules, from random weights.

    Raises:
        InputError: The plan's size is too small.
    """
    channels, classes = len(plan.channels), len(plan.classes)
    try:
        network = new_dynunet(channels, classes, plan.size, plan.spacing, settings.training.seed)
    except ValueError as error:
        size = "x".join(map(str, plan.size))
        raise InputError(f"size {size}", str(error), "Choose a larger --size") from None
    reduced = [math.prod(along) for along in zip(*network.strides, strict=True)]
    verify_coarse(settings.training, plan.size, reduced)
    return Segmentation(network, settings.loss, held_out)


def find_weights(settings: Fit) -> None:
    """Raise InputError if the weights that the method starts from are not there, or cannot be fetched."""
    if settings.method == "imagenet":
        published_weights("--method imagenet")
    elif settings.encoder is not None:
        encoder_folder(settings.encoder, TRAIN_ONE)


def build_imagenet(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> Segmentation:
    """A U-Net on an encoder that was trained on ImageNet.

    Raises:
        InputError: The images are volumes, or the encoder's weights are not installed.
    """
    verify_films("imagenet", plan.spatial_dims)
    verify_coarse(settings.training, plan.size, (1, 1))
    network = new_imagenet_unet(len(plan.channels), len(plan.classes), settings.training.seed)
    return Segmentation(network, settings.loss, held_out)


def build_dino(
    settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None
) -> Segmentation:
    """A light decoder on a frozen DINO encoder.

    Raises:
        InputError: The images are volumes, there is no such encoder, or it does not fit them or the settings.
    """
    verify_films("dino", plan.spatial_dims)
    network = dino_network(settings, len(plan.channels), len(plan.classes))
    return Segmentation(network, settings.loss, held_out)


def dino_network(settings: Fit, channels: int, classes: int) -> DinoSegmenter:
    """The network of the method dino at its start; see ``build_dino``."""
    assert settings.encoder is not None
    encoder = load_encoder(settings.encoder, TRAIN_ONE)
    wanted = settings.dino
    try:
        return new_dino_segmenter(
            encoder,
            channels,
            classes,
            blocks=wanted.blocks,
            width=wanted.width,
            seed=settings.training.seed,
        )
    except ValueError as error:
        problem = f"with the encoder {settings.encoder}: {error}"
        raise InputError("--method dino", problem, "See radiffuse fit --help") from None


def verify_loss(settings: Fit) -> None:
    """Raise InputError if no term of the loss has a weight: then nothing could be learned."""
    loss = settings.loss
    if not (loss.cross_entropy or loss.dice or loss.focal):
        remedy = "Give one a weight above 0, such as --loss.dice 1"
        raise InputError("--loss", "has no term", remedy)


def verify_encoder(settings: Fit) -> None:
    """Raise InputError if the method dino has no encoder to decode."""
    if settings.encoder is None:
        remedy = (
            "Give one with --encoder: a folder, a run of radiffuse synthesize, or a public name"
        )
        raise InputError("--method dino", "needs a DINO encoder", remedy)
