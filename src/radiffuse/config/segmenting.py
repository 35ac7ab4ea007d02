"""Settings of learning to segment, of segmenting and of scoring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import FINETUNE_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Diffusion, Losses, Machine, Sampling, Training
from .network import Network
from .types import (
    POSITIONAL,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Strategy,
    Within,
    only_for,
)

Method = Literal["finetune", "scratch", "dynunet", "pixel", "probe", "diffusion"]
"""How ``fit`` learns to segment."""


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """What fine-tuning, and the same network from scratch, has to itself."""

    timestep: NonNegativeInt = 0
    """The fixed timestep, 0 to T - 1, at which the network sees the clean image. [related] the first."""


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What probing has to itself: which heads on which frozen features."""

    heads: tuple[Literal["linear", "nonlinear"], ...] = ("nonlinear", "linear")
    """Heads, trained side by side on the same features; the first is the one that segments unless told otherwise.
    [related: vox2vec] linear: a 1x1 convolution per level, summed; nonlinear: the same with residual 1x1 blocks."""
    timesteps: tuple[NonNegativeInt, ...] = (10,)
    """Timesteps whose features are joined by channel. [paper] 10 of 300. A network that was not trained on noise
    (restorative, contrastive) sees the clean image at timestep 0 instead."""
    levels: tuple[str, ...] = ()
    """Features of the pyramid: ``middle``, and decoder levels, 0 the finest. None given: all of them."""
    sweep: tuple[NonNegativeInt, ...] = ()
    """Further heads of each kind, in the same pass, on each of these timesteps alone."""
    sweep_levels: bool = False
    """Further heads of each kind, in the same pass, on each level alone."""
    noise_draws: PositiveInt = 1
    """Draws of noise that features are averaged over."""
    width: PositiveInt = 32
    """Channels of the nonlinear head."""


@dataclass(frozen=True, kw_only=True)
class MaskDiffusion:
    """What mask diffusion has to itself: how masks are noised in training, and how they are drawn."""

    strategy: Strategy = "recycle"
    """How training noises a mask (Fu et al. 2023): standard: the true mask; recycle: a mask predicted from noise;
    recycle-next: one predicted from the true mask at t + 1; self-condition (Chen et al. 2022) and self-condition-next
    (Watson et al. 2023): a prediction beside the noised mask; none: no diffusion, the same network supervised."""
    process: Diffusion = Diffusion(
        schedule="linear",
        num_train_timesteps=1001,
        prediction_type="x_start",
        timestep_sampling="loss-aware",
    )
    """[code] linear betas, T = 1001, loss-aware timesteps; the network always predicts the clean mask."""
    sampling: Sampling = Sampling()
    """How masks are drawn, in validation and, unless told otherwise, at prediction. [code] 5 steps."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Learn to segment from labelled images, from a pre-trained run or from scratch."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    method: Method | None = None
    """finetune: the whole pre-trained network (PTDR); scratch: the same network from random weights; dynunet: MONAI's
    DynUNet from random weights, in the shape that nnU-Net would give it; pixel: voters on frozen features (Baranchuk et
    al. 2022); probe: heads on frozen features (Li et al. 2025); diffusion: mask diffusion (Fu et al. 2023). None:
    finetune where ``--from`` is given, else scratch. Settings below that have other defaults for a method say so."""
    from_run: str | None = None
    """``--from``: pre-trained run, or the name of shipped weights (films-64). finetune, pixel and probe need one,
    diffusion may have one."""
    labels: PositiveInt | None = None
    """How many labelled cases to use; None: all of the training pool."""
    draw: NonNegativeInt = 0
    """Which random draw of the labelled cases."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to start from."""
    finetune: Finetuning = field(default=Finetuning(), metadata=only_for("finetune", "scratch"))
    """Settings of the methods finetune and scratch."""
    probe: Probing = field(default=Probing(), metadata=only_for("probe"))
    """Settings of the method probe."""
    diffusion: MaskDiffusion = field(default=MaskDiffusion(), metadata=only_for("diffusion"))
    """Settings of the method diffusion."""
    loss: Losses = Losses()
    """Cross-entropy [related]; probe: with Dice [related]; diffusion: Dice + 20 focal [code]. pixel: cross-entropy."""
    with_run: tuple[str, ...] = ()
    """``--with``: further folders of labelled images to learn from, such as synthetic ones that a network has labelled.
    They are no part of ``--labels``; images with a parent among validation or test patients are left out."""
    split: Split = Split()
    """How cases are divided into training pool, validation and test."""
    network: Network = Network()
    """The U-Net, when training from scratch; with ``--from`` the run's own network is used."""
    training: Training = Training(
        steps=300,
        batch_size=8,
        learning_rate=1e-3,
        optimizer="adam",
        weight_decay=1e-4,
        decay="cosine",
        warmup_steps=25,
        average_decay=0.99,
        validate_every=100,
        checkpoint_every=100,
    )
    """The optimization. [related] Adam, weight decay 1e-4, cosine; [ours] 1e-3 for small networks, warm-up. probe and
    diffusion have their own: see ``config.FIT``."""
    augmentation: Augmentation = FINETUNE_AUGMENTATION
    """Random changes of the training images; probe: none."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity, when training from scratch; with ``--from`` the run's plan is used."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


_PROBE = Fit(
    method="probe",
    loss=Losses(cross_entropy=1.0, dice=1.0),
    augmentation=Augmentation(),
    training=Training(
        steps=500,
        batch_size=8,
        learning_rate=3e-3,
        optimizer="adam",
        decay="cosine",
        gradient_clip=None,
        average_decay=0.99,
        validate_every=100,
        checkpoint_every=100,
    ),
)
"""[related] Adam, cross-entropy and Dice; [ours] 3e-3 with cosine decay for few steps (vox2vec: 3e-4, long). Gradients
are not clipped, so that heads do not touch each other."""

_DIFFUSION = Fit(
    method="diffusion",
    loss=Losses(cross_entropy=0.0, dice=1.0, focal=20.0),
    training=Training(
        steps=700,
        batch_size=16,
        learning_rate=8e-4,
        optimizer="adamw",
        weight_decay=1e-8,
        decay="cosine",
        final_learning_rate=5e-5,
        warmup_steps=100,
        average_decay=0.99,
        validate_every=100,
        checkpoint_every=100,
    ),
)
"""[code] AdamW, weight decay 1e-8, clip 1.0, 1e-5 to 8e-4 in 100 steps, cosine to 5e-5, Dice + 20 focal; [ours] steps,
batch size and averaged weights."""

FIT: dict[str | None, Fit] = {
    None: Fit(),
    "finetune": Fit(method="finetune"),
    "scratch": Fit(method="scratch"),
    "dynunet": Fit(method="dynunet"),
    "pixel": Fit(method="pixel"),
    "probe": _PROBE,
    "diffusion": _DIFFUSION,
}
"""The defaults of ``fit`` by method."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Segment scans with one or several trained runs and write masks in each scan's own geometry."""

    runs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    """Run folders of segmentation networks of any kind; several vote as an ensemble."""
    data: str = field(default="", metadata=POSITIONAL)
    """A scan, or a data set."""
    out: str = ""
    """Folder for the masks; finished masks are kept when the command is run again."""
    format: Literal["auto", "dicom-seg"] = "auto"
    """auto: PNG for films, NIfTI for volumes; dicom-seg: DICOM Segmentation, which refers to its DICOM images."""
    cases: Literal["all", "test", "validation", "train"] = "all"
    """Which cases of the data set, by the splits file of the run."""
    overlap: Annotated[float, Within(0, 0.9)] = 0.5
    """3D: share by which neighboring windows overlap, 0 to 0.9."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """Mask diffusion: reverse process; None: as the run was trained to be used."""
    steps: PositiveInt | None = None
    """Mask diffusion: inference steps; None: as the run was trained to be used."""
    legacy_timesteps: bool = False
    """Mask diffusion: tell the network the time as the released code of Fu et al. does; only for measuring that."""
    head: str | None = None
    """Probing: which head segments, such as linear; None: the first."""
    samples: PositiveInt = 1
    """Mask diffusion: masks drawn per scan, whose probabilities are averaged."""
    ensemble: Literal["probability", "vote"] = "probability"
    """How samples and runs become one mask: mean probability, or majority vote. Every run weighs the same."""
    seed: NonNegativeInt = 0
    """Seed of the noise; the same seed and scan give the same mask."""
    confidence: bool = False
    """Write the probability of the winning class beside the mask."""
    uncertainty: bool = False
    """Write maps of the mean probability of each class, of its variance over samples and runs, and of the entropy."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score masks against the truth: Dice, IoU, HD95, surface Dice, per case and class, with intervals."""

    masks: str = field(default="", metadata=POSITIONAL)
    """Folder of predicted masks, named as the cases."""
    truth: str = field(default="", metadata=POSITIONAL)
    """Labelled data set."""
    out: str = ""
    """Folder for cases.csv, summary.csv and report.html."""
    prediction_classes: str | None = None
    """What the values of the masks mean: btcv, flare22, amos22, totalsegmentator, totalsegmentator-v1, abdomen, a run,
    or a JSON file that names the classes. Classes are then matched by name. None: the classes.json beside the masks."""
    truth_classes: str | None = None
    """The same of the truth. None: what the data set declares; where it declares nothing, values are compared."""
    tolerance: NonNegativeFloat = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    reader: Data = Data()
    """How the path becomes cases."""
