"""Settings of the study of label efficiency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .pretraining import PRETRAIN, Pretrain
from .segmenting import FIT, Fit
from .tools import NNUNet
from .types import POSITIONAL, NonNegativeFloat, NonNegativeInt, PositiveInt, used_for


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare methods at several label budgets on the same splits, network and budget of training."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Study folder. The same command again goes on where it stopped."""
    unlabelled: str | None = None
    """Images to pre-train on; not needed with ``--from``."""
    synthetic: tuple[str, ...] = ()
    """Folders of synthetic images, for the methods synthetic-unlabelled and synthetic-labelled."""
    from_run: str | None = None
    """``--from``: a pre-trained run, or the name of shipped weights, instead of pre-training here."""
    methods: tuple[str, ...] = ("scratch", "finetune")
    """Any of scratch, finetune, pixel, ddep; dynunet: MONAI's; nnunet: nnU-Net 2 with all that it decides by itself;
    pseudo-labels: trained on images that the denoiser draws and the fine-tuned network of the draw labels;
    synthetic-unlabelled: pre-trained on ``--synthetic`` as well; synthetic-labelled: fine-tuned also on those, as the
    fine-tuned network of the draw labels them; diffusion, guided, restorative, contrastive: ways of pre-training, used
    as ``transfer`` says; the strategies of mask diffusion, from scratch or, as in recycle+pretrained, from the
    pre-trained run; ensemble."""
    transfer: tuple[Literal["linear", "nonlinear", "finetune"], ...] = ()
    """How ways of pre-training are used: linear or nonlinear probing, or finetune, which is done where none is given.
    Several add methods named guided@linear."""
    labels: tuple[PositiveInt, ...] = (1, 2, 5, 10)
    """Label budgets."""
    draws: PositiveInt = 3
    """Random draws of the labelled cases per budget; the draw is the seed of the training too."""
    reference: str = "scratch"
    """The method that the others are compared with."""
    timesteps: tuple[NonNegativeInt, ...] = (0,)
    """Fixed timesteps to try with finetune; more than one adds methods named finetune@t=100."""
    weights: tuple[Literal["average", "raw"], ...] = ("average",)
    """Pre-trained weights to try: average, raw, or both."""
    pools: tuple[PositiveInt, ...] = ()
    """Numbers of unlabelled images, beside all of them, to pre-train on; adds methods named finetune@n=500."""
    samplers: tuple[Literal["ddpm", "ddim"], ...] = ("ddpm",)
    """Reverse processes to try with mask diffusion; more than one adds methods named recycle@ddim."""
    ensemble: tuple[str, ...] = ("none", "recycle")
    """Methods whose probabilities the method ``ensemble`` averages."""
    pseudo_labels: PositiveInt = 200
    """Images that the method pseudo-labels draws and labels for each budget and draw; 10 % are dropped."""
    pretrain: Pretrain = field(
        default=Pretrain(), metadata=used_for("ddpm", "ddep", "restorative", "contrastive")
    )
    """Settings of the pre-training; its data and out are set by the study."""
    regressor: Pretrain = field(default=PRETRAIN["coordinates"], metadata=used_for("coordinates"))
    """Settings of the regressor that guides; its data, out and plan are set by the study."""
    finetune: Fit = field(
        default=FIT[None], metadata=used_for("finetune", "scratch", "dynunet", "pixel")
    )
    """Settings of every fine-tuning; data, out, method, from_run, labels and draw are set by the study."""
    probing: Fit = field(default=FIT["probe"], metadata=used_for("probe"))
    """Settings of every probing; its ``probe.sweep`` adds methods named guided@t=30."""
    diffusion: Fit = field(default=FIT["diffusion"], metadata=used_for("diffusion"))
    """Settings of every mask diffusion; data, out, method, from_run, labels, draw, strategy and split are set by the
    study."""
    nnunet: NNUNet = NNUNet()
    """nnU-Net, for the method nnunet."""
    tolerance: NonNegativeFloat = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    parts: tuple[Literal["test", "validation"], ...] = ("test",)
    """Which cases to score: test, or validation while tuning."""
