"""Settings of the study of label efficiency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .pretraining import PRETRAIN, Pretrain
from .segmenting import FIT, Fit
from .types import POSITIONAL, NonNegativeFloat, NonNegativeInt, PositiveInt, used_for


@dataclass(frozen=True, kw_only=True)
class NNUNet:
    """nnU-Net 2 as an external program."""

    python: str | None = None
    """Python interpreter of an environment with nnunetv2, such as NN/bin/python; needed by the method nnunet."""
    trainer: str = "nnUNetTrainer"
    """Trainer; the default runs 1000 epochs of 250 steps, nnUNetTrainer_5epochs gives a quick look."""
    configuration: Literal["auto", "2d", "3d_fullres"] = "auto"
    """Configuration; auto: 2d for films, 3d_fullres for volumes."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare methods at several label budgets, with the same splits, network and number of training steps."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Study folder. Repeat the command to continue an interrupted study."""
    unlabelled: str | None = None
    """Images to pre-train on; not needed with ``--from``."""
    synthetic: tuple[str, ...] = ()
    """Folders of synthetic images, for the methods synthetic-unlabelled and synthetic-labelled."""
    from_run: str | None = None
    """``--from``: a pre-trained run, or the name of shipped weights, to use instead of pre-training."""
    methods: tuple[str, ...] = ("scratch", "finetune")
    """Any of: scratch; finetune; pixel; ddep; dynunet (MONAI's); nnunet (nnU-Net 2 with its own choices); pseudo-labels
    (trained on images that the denoiser draws and the fine-tuned network of the same draw labels);
    synthetic-unlabelled (pre-trained on ``--synthetic`` as well); synthetic-labelled (fine-tuned on ``--synthetic`` as
    well, with labels of the fine-tuned network of the same draw); the ways of pre-training diffusion, guided,
    restorative and contrastive, used as ``transfer`` says; the strategies of mask diffusion, from scratch or, as in
    recycle+pretrained, from the pre-trained run; ensemble."""
    transfer: tuple[Literal["linear", "nonlinear", "finetune"], ...] = ()
    """How the ways of pre-training are used: linear or nonlinear (probing), or finetune (the default). With several,
    methods get names such as guided@linear."""
    labels: tuple[PositiveInt, ...] = (1, 2, 5, 10)
    """Label budgets."""
    draws: PositiveInt = 3
    """Random draws of labelled cases per budget; the number of the draw is also the seed of the training."""
    reference: str = "scratch"
    """The method that all others are compared with."""
    timesteps: tuple[NonNegativeInt, ...] = (0,)
    """Fixed timesteps to try with finetune; each one after the first adds a method such as finetune@t=100."""
    weights: tuple[Literal["average", "raw"], ...] = ("average",)
    """Pre-trained weights to try: average, raw, or both."""
    pools: tuple[PositiveInt, ...] = ()
    """Smaller numbers of unlabelled images to pre-train on as well; each adds a method such as finetune@n=500."""
    samplers: tuple[Literal["ddpm", "ddim"], ...] = ("ddpm",)
    """Reverse processes to try with mask diffusion; each one after the first adds methods such as recycle@ddim."""
    ensemble: tuple[str, ...] = ("none", "recycle")
    """Methods whose probabilities are averaged by the method ``ensemble``."""
    pseudo_labels: PositiveInt = 200
    """Images that the method pseudo-labels draws and labels per budget and draw; the least certain 10 % are dropped."""
    pretrain: Pretrain = field(
        default=Pretrain(), metadata=used_for("ddpm", "ddep", "restorative", "contrastive")
    )
    """Settings of pre-training; the study sets data and out."""
    regressor: Pretrain = field(default=PRETRAIN["coordinates"], metadata=used_for("coordinates"))
    """Settings of the regressor for guidance; the study sets data, out and plan."""
    finetune: Fit = field(
        default=FIT[None], metadata=used_for("finetune", "scratch", "dynunet", "pixel")
    )
    """Settings of fine-tuning; the study sets data, out, method, from_run, labels and draw."""
    probing: Fit = field(default=FIT["probe"], metadata=used_for("probe"))
    """Settings of probing; its ``probe.sweep`` adds methods such as guided@t=30."""
    diffusion: Fit = field(default=FIT["diffusion"], metadata=used_for("diffusion"))
    """Settings of mask diffusion; the study sets data, out, method, from_run, labels, draw, strategy and split."""
    nnunet: NNUNet = NNUNet()
    """Settings of the method nnunet."""
    tolerance: NonNegativeFloat = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    parts: tuple[Literal["test", "validation"], ...] = ("test",)
    """Cases to score: test, or validation while tuning."""
