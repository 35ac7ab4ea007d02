"""Settings of training for segmentation, of prediction and of scoring."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from .data import FINETUNE_AUGMENTATION, FIT_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Diffusion, Losses, Machine, Sampling, Training
from .network import Network
from .pooling import Pool
from .types import (
    FULL_NAMES,
    POSITIONAL,
    Fraction,
    Hours,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Strategy,
    Timestep,
    Within,
    before,
    only_for,
)

MethodName = Literal[
    "auto",
    "finetune",
    "scratch",
    "dynunet",
    "imagenet",
    "dino",
    "pixel",
    "probe",
    "diffusion",
    "joint",
]
"""The methods of ``fit``."""
POOLED = ("auto", "finetune", "scratch", "dynunet", "imagenet", "dino")
"""Those that can learn from a pool beside the labels: plain networks of a single pass, whose average can teach; auto
tries with and without it."""

NO_COORDINATES = "no-coordinates"
"""In the name of a head: it sees no coordinates, where the others do."""


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """Settings of fine-tuning, and of training the same network from scratch."""

    timestep: NonNegativeInt = 0
    """The fixed timestep, 0 to T - 1, that goes with the clean image. [related] the first."""


@dataclass(frozen=True, kw_only=True)
class Probing:
    """Settings of probing: which heads are trained on which frozen features."""

    heads: tuple[Literal["linear", "nonlinear"], ...] = ("nonlinear", "linear")
    """Heads, trained side by side on the same features; the first one segments by default. [related: vox2vec]
    linear: a 1x1 convolution per level, summed; nonlinear: the same with residual 1x1 blocks."""
    timesteps: tuple[Timestep, ...] = ("clean", 10)
    """Timesteps whose features are concatenated, each for a pass of the network; clean: the image without noise, at
    timestep 0, which hides no detail [ours]. [paper] 10 of 300. A network that was not trained on noise (restorative,
    contrastive, masked, clean-features) gets the clean image alone, and any other timesteps are refused."""
    levels: tuple[str, ...] = ()
    """Levels that give features: ``middle``, decoder levels, 0 being the finest, and ``fine`` where the network folds
    pixels. Empty: all."""
    sweep: tuple[Timestep, ...] = ()
    """Also train heads of each kind on each of these timesteps alone, in the same pass."""
    sweep_levels: bool = False
    """Also train heads of each kind on each level alone, in the same pass."""
    noise_draws: PositiveInt = 1
    """Noise samples that features are averaged over."""
    width: PositiveInt = 32
    """Channels of the non-linear head."""
    coordinates: bool = field(default=True, metadata=before(False))
    """Heads also see body coordinates, beside their finest features: a head on single voxels knows the place of one
    from nothing else, unless the features kept it [ours]. They are those of a guided network, or of ``regressor``;
    without either there are none."""
    regressor: str | None = None
    """Run of the objective coordinates, of the same plan, whose coordinates heads on an unguided network see, so that
    they know as much of the place as those on a guided one, which has its own."""
    sweep_coordinates: bool = False
    """Also train heads of each kind that see no coordinates, in the same pass."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Settings of the decoder on a frozen DINO encoder."""

    blocks: tuple[NonNegativeInt, ...] = ()
    """Blocks of the encoder whose tokens are joined, 0 being the first. Empty: four, evenly spread up to the last, such
    as 2, 5, 8 and 11 of 12 [related: MedDINOv3]."""
    width: Annotated[int, Within(16)] = 128
    """Channels at the grid of the patches, a multiple of 8; every doubling halves them, down to 16 [ours]."""


@dataclass(frozen=True, kw_only=True)
class MaskDiffusion:
    """Settings of mask diffusion: how masks are noised in training, and how they are sampled."""

    strategy: Strategy = "recycle"
    """Which mask is noised in training (Fu et al. 2023). standard: the true mask; recycle: a mask predicted from noise;
    recycle-next: a mask predicted from the true one at t + 1; self-condition (Chen et al. 2022) and self-condition-next
    (Watson et al. 2023): the true mask, with a prediction as further input; none: no diffusion, the same network with
    plain supervision."""
    first_pass: Literal["noise", "true-mask"] = field(default="noise", metadata=before("true-mask"))
    """recycle: what the first pass begins with. noise: pure noise, as sampling does [paper]; true-mask: the true mask,
    noised to the last timestep, where it still weighs .006 by the linear schedule and T = 1001, .068 by scaled-linear,
    .22 by the linear one with T = 300 [code]."""
    feed_back: Literal["probabilities", "classes"] = "probabilities"
    """What a first pass hands on in training. probabilities: as sampling does [code]; classes: the most probable class
    of each voxel, one-hot [ours]."""
    image_share: Annotated[float, Within(0.01, 0.99)] | None = None
    """Share of the image in the squared weights of the first layer at the start of a training from scratch [ours].
    None: every input channel the same [code], so beside 14 classes the image has 1/15."""
    process: Diffusion = Diffusion(
        schedule="linear",
        num_train_timesteps=1001,
        prediction_type="x_start",
        timestep_sampling="loss-aware",
    )
    """[code] linear betas, T = 1001, loss-aware timesteps (active after about 23,000 losses, as the run says); the
    network always predicts the clean mask."""
    sampling: Sampling = Sampling()
    """How masks are sampled in validation and, by default, at prediction. [code] 5 steps."""


@dataclass(frozen=True, kw_only=True)
class Joint:
    """Settings of image and mask together: what is given and what is noised in training, and how masks are sampled."""

    given_image: Fraction = 0.5
    """Fraction of the labelled images that are given as they are, their masks to be found [ours]."""
    given_mask: Fraction = 0.1
    """Fraction whose masks are given, the images to be drawn. Of all others both parts are noised, each to a timestep
    of its own [paper: UniDiffuser, Bao et al. 2023, of all]."""
    missing: Fraction = 0.5
    """Of the images that are given, the fraction whose masks are pure noise, as where sampling starts [ours]."""
    image_weight: NonNegativeFloat = 1.0
    """Weight of the loss of images beside that of masks."""
    process: Diffusion = Diffusion()
    """The noising process of both parts, and what the network predicts of the image; it always predicts the clean mask.
    With ``--from``, schedule, timesteps and prediction are those of the run."""
    sampling: Sampling = Sampling()
    """How masks of given images are sampled in validation and, by default, at prediction."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train a segmentation network on labelled images, by a named method or one chosen by cross-validation."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. Repeat the command to resume an interrupted run."""
    method: MethodName | None = None
    """auto: cross-validate finetune, imagenet, dino (with ``--encoder``), scratch and probe over patients, as many as
    ``--hours`` allow; then train the first that suits the data, or one shown to be better, or an ensemble, on all
    labels. Without ``--split.test`` no patients are kept for a test. finetune: the whole pre-trained network (PTDR);
    scratch: the same network from random weights; dynunet: MONAI's DynUNet from random weights, shaped by nnU-Net's
    rules; imagenet: for films, a U-Net on an encoder trained on ImageNet (EfficientNet-Lite0); dino: for films, a light
    decoder on several blocks of a frozen DINO, ``--encoder``; pixel: an ensemble of pixel classifiers on frozen
    features (Baranchuk et al. 2022); probe: heads on frozen features (Li et al. 2025); diffusion: mask diffusion (Fu et
    al. 2023); joint: a denoiser of image and mask together, which can also generate pairs (radiffuse generate). None:
    auto. Some defaults below depend on the method."""
    from_run: str | None = None
    """``--from``: pre-trained run, or the name of included weights (films, which suits any grid; films-64). Needed by
    finetune, pixel and probe, optional for auto, diffusion and joint. For finetune and auto also a run of finetune,
    scratch or imagenet, which is trained further, head and all, at any size; its classes must be the same [ours]."""
    encoder: str | None = field(default=None, metadata=only_for("auto", "dino"))
    """DINO encoder of the method dino: a folder with config.json and model.safetensors (DINOv2, DINOv3 or DINO of
    transformers), a run of radiffuse synthesize, or a public name such as facebook/dinov2-base."""
    labels: PositiveInt | None = None
    """Label budget: the number of labelled cases to use; None: all training cases."""
    draw: NonNegativeInt = 0
    """Number of the random draw of labelled cases."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to start from."""
    finetune: Finetuning = field(default=Finetuning(), metadata=only_for("finetune", "scratch"))
    """Settings of the methods finetune and scratch."""
    probe: Probing = field(default=Probing(), metadata=only_for("probe"))
    """Settings of the method probe."""
    dino: Decoding = field(default=Decoding(), metadata=FULL_NAMES | only_for("dino"))
    """Settings of the method dino."""
    diffusion: MaskDiffusion = field(default=MaskDiffusion(), metadata=only_for("diffusion"))
    """Settings of the method diffusion."""
    joint: Joint = field(default=Joint(), metadata=only_for("joint"))
    """Settings of the method joint."""
    loss: Losses = Losses(cross_entropy=1.0, dice=1.0)
    """Cross-entropy and Dice [related: nnU-Net]; diffusion: Dice + 20 focal [code]. pixel: cross-entropy. joint:
    of masks of given images; else cross-entropy."""
    with_run: tuple[str, ...] = ()
    """``--with``: more folders of labelled images to train on, such as synthetic ones labelled by a network. They do
    not count towards ``--labels``; images of validation or test patients, copies of them in any format, and images made
    from them are left out."""
    unlabelled: tuple[str, ...] = field(default=(), metadata=only_for(*POOLED, "joint"))
    """Folders of unlabelled images, the pool, to train on together with the labelled ones. Images of validation or test
    patients, copies of them, and synthetic images made from them are left out, with a message. Labelled training images
    may be in the pool too; a pool of nothing else is refused."""
    pool: Pool = field(default=Pool(), metadata=FULL_NAMES | only_for(*POOLED))
    """How the pool is learned from."""
    split: Split = Split()
    """How cases are split into training pool, validation and test."""
    network: Network = Network()
    """The U-Net, when training from scratch; with ``--from`` it is that of the run, and another is refused."""
    hours: Hours | None = None
    """Hours for everything, including reading, planning, preparation, validation and, with auto, all methods tried.
    What planning leaves of them sets the number of steps, once. None: a number of passes over the images, in an hour at
    most."""
    training: Training = Training(
        learning_rate=1e-3,
        optimizer="adamw",
        weight_decay=1e-2,
        decay="cosine",
        warmup_steps=25,
        average_decay=0.99,
        validate_every=100,
        checkpoint_every=100,
    )
    """The optimization. [ours] AdamW, 1e-3 for small networks, warm-up; [related] cosine. probe and diffusion have
    their own: see ``config.FIT``."""
    augmentation: Augmentation = FIT_AUGMENTATION
    """Augmentation of the training images; diffusion: milder; probe: none."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity, when training from scratch; with ``--from`` they are those of the run; others are
    refused."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""

    @property
    def automatic(self) -> bool:
        """Whether the method is chosen by trying."""
        return self.method in (None, "auto")


_PROBE = Fit(
    method="probe",
    augmentation=Augmentation(),
    training=Training(
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
are not clipped, because the norm of all heads together would couple them."""

_DIFFUSION = Fit(
    method="diffusion",
    augmentation=FINETUNE_AUGMENTATION,
    loss=Losses(cross_entropy=0.0, dice=1.0, focal=20.0),
    training=Training(
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

_JOINT = Fit(
    method="joint",
    augmentation=FINETUNE_AUGMENTATION,
    training=replace(_DIFFUSION.training, weight_decay=1e-2),
)
"""[ours] the optimization of mask diffusion, with the weight decay and the loss of the other methods."""

FIT: dict[str | None, Fit] = {
    None: Fit(),
    "auto": Fit(method="auto", split=Split(test=0.0, validation=0.0)),
    "finetune": Fit(method="finetune"),
    "scratch": Fit(method="scratch"),
    "dynunet": Fit(method="dynunet"),
    "imagenet": Fit(method="imagenet"),
    "dino": Fit(method="dino"),
    "pixel": Fit(method="pixel"),
    "probe": _PROBE,
    "diffusion": _DIFFUSION,
    "joint": _JOINT,
}
"""The defaults of ``fit`` by method."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Segment scans with one or several trained runs; each mask is on the grid of its scan."""

    runs: tuple[str, ...] = field(default=(), metadata=POSITIONAL)
    """Run folders of segmentation networks of any method; several form an ensemble."""
    data: str = field(default="", metadata=POSITIONAL)
    """A scan, or a data set."""
    out: str = ""
    """Folder for the masks. Repeating the command keeps masks made by these runs and settings from unchanged scans.
    Anything else in the folder is refused."""
    format: Literal["auto", "dicom-seg"] = "auto"
    """auto: PNG for films, NIfTI for volumes; dicom-seg: DICOM Segmentation that refers to the DICOM images."""
    cases: Literal["all", "test", "validation", "train"] = "all"
    """Which cases to segment, by the splits file of the run."""
    overlap: Annotated[float, Within(0, 0.9)] = 0.5
    """Overlap of neighboring windows as a fraction of their size, for volumes and for films that the network sees in
    patches. For films enlarged by ``tta scale`` it is at least .75."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """Mask diffusion: reverse process; None: that of the run's settings."""
    steps: PositiveInt | None = None
    """Mask diffusion: inference steps; None: those of the run's settings."""
    legacy_timesteps: bool = False
    """Mask diffusion: give the network the time of the released code of Fu et al. Only for measuring the effect."""
    head: str | None = None
    """Probing: the head to use, such as linear; None: the first."""
    samples: PositiveInt = 1
    """Mask diffusion: masks sampled per scan; their probabilities are averaged."""
    ensemble: Literal["probability", "vote"] = "probability"
    """How samples and runs are combined: by mean probability or majority vote. Every run has the same weight."""
    tta: tuple[Literal["none", "mirror", "scale"], ...] | None = None
    """Test-time augmentation: the probabilities of several views of a scan are averaged. mirror: also mirrored along
    the axes that the plan permits; scale: also at .8 and 1.25 of its size; mirror,scale: all combinations, six times
    the work; none: the scan as it is. None: the run's automatic choice, else none."""
    seed: Seed = 0
    """Seed of the noise; the same seed gives the same mask of a scan."""
    confidence: bool = False
    """Also write the probability of the predicted class."""
    uncertainty: bool = False
    """Also write maps of each class's mean probability, of its variance over samples, views and runs, and of the
    entropy."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score masks against the ground truth: Dice, IoU, HD95 and surface Dice per case and class, with intervals."""

    masks: str = field(default="", metadata=POSITIONAL)
    """Folder of predicted masks, named after the cases."""
    truth: str = field(default="", metadata=POSITIONAL)
    """Labelled data set: the ground truth."""
    out: str = ""
    """Folder for cases.csv, summary.csv and report.html."""
    prediction_classes: str | None = None
    """What the values of the masks mean: btcv, flare22, amos22, totalsegmentator, totalsegmentator-v1, abdomen, a run,
    or a JSON file that names the classes. Classes are matched by name. None: classes.json in the folder of masks."""
    truth_classes: str | None = None
    """The same for the ground truth. None: what the data set declares; if it declares nothing, values are compared."""
    tolerance: PositiveFloat = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    reader: Data = Data()
    """How the path becomes cases."""
