"""Every setting of every command: its unit, its legal values and where its default comes from.

The dataclasses below *are* the command line, the YAML files and the keyword arguments of the Python functions
(``settings.py`` reads them). Nothing heavy is imported here: no torch, no numpy.

Sources are named in brackets: [paper] the published article, [code] its authors' code, [related] the nearest
readable source, [ours] our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Floats = tuple[float, ...]
Ints = tuple[int, ...]


# ------------------------------------------------------------------------------------------------ network


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """A concrete U-Net of Dhariwal and Nichol 2021; what ``model/config.json`` of a run holds.

    Every value is settled: no presets, no None.
    """

    spatial_dims: int = 2
    """2 for films, 3 for volumes."""
    in_channels: int = 1
    """Channels of the input tensor."""
    out_channels: int = 1
    """Channels of the output tensor (twice the image's for learned variance; K for K classes)."""
    width: int = 128
    """Channels of the first level ("base width")."""
    multipliers: Ints = (1, 1, 2, 2, 4, 4)
    """Channels of each level in units of ``width``; each level after the first halves the resolution."""
    blocks: int = 2
    """Residual blocks per level on the way down (one more on the way up)."""
    attention_factors: Ints = (8, 16, 32)
    """Down-sampling factors at which self-attention stands (8 is 32 px of a 256 px image)."""
    head_channels: int = 64
    """Channels per attention head; levels narrower than this use one head."""
    dropout: float = 0.0
    """Dropout in the residual blocks, 0 to 1."""
    scale_shift_norm: bool = True
    """Time enters as scale and shift of the second norm (else it is added)."""
    residual_updown: bool = True
    """Resolution changes inside residual blocks (else by a strided convolution and interpolation)."""
    num_groups: int = 32
    """Groups of the group norms; the largest divisor of the channels up to this number is used."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which U-Net to build: a preset by size, and overrides of single values."""

    preset: Literal["tiny", "small", "base", "paper"] = "tiny"
    """tiny: 3.0 M parameters, for 48 to 96 px on a CPU; small: 17 M, 64 to 128 px; base: 128 to 256 px on one GPU;
    paper: the U-Net of Dhariwal and Nichol at 256 px, base width 128, 138 M parameters [paper, related]."""
    width: int | None = None
    """Base width; None takes the preset's."""
    multipliers: Ints | None = None
    """Channel multipliers by level; None takes the preset's."""
    blocks: int | None = None
    """Residual blocks per level; None takes the preset's."""
    attention_factors: Ints | None = None
    """Down-sampling factors with self-attention; None takes the preset's."""
    head_channels: int | None = None
    """Channels per attention head; None takes the preset's."""
    dropout: float | None = None
    """Dropout, 0 to 1; None takes the preset's."""


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "width": 16,
        "multipliers": (1, 2, 4, 8),
        "blocks": 1,
        "attention_factors": (8,),
        "head_channels": 32,
    },
    "small": {
        "width": 32,
        "multipliers": (1, 2, 4, 8),
        "blocks": 2,
        "attention_factors": (8,),
        "head_channels": 32,
    },
    "base": {
        "width": 64,
        "multipliers": (1, 2, 3, 4, 4),
        "blocks": 2,
        "attention_factors": (8, 16),
        "head_channels": 64,
    },
    "paper": {
        "width": 128,
        "multipliers": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attention_factors": (8, 16, 32),
        "head_channels": 64,
    },
}
"""[ours] but for ``paper``: tiny was chosen by speed, about 35 images/s at 64 px on two CPU cores."""


def resolve_network(
    network: Network, *, spatial_dims: int, in_channels: int, out_channels: int
) -> UNetConfig:
    """The concrete network that a preset and its overrides name.

    Args:
        network: Preset and overrides.
        spatial_dims: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """
    values = dict(PRESETS[network.preset])
    for name in ("width", "multipliers", "blocks", "attention_factors", "head_channels", "dropout"):
        given = getattr(network, name)
        if given is not None:
            values[name] = given
    return UNetConfig(
        spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **values
    )


# ---------------------------------------------------------------------------------------------- diffusion


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """The noising process and what the network learns of it."""

    schedule: Literal["linear", "cosine", "scaled-linear"] = "cosine"
    """linear: betas 1e-4 to 0.02 for any T, as published for T = 1000 (Ho et al. 2020); cosine: Nichol and
    Dhariwal 2021, eq. 17; scaled-linear: Stable Diffusion's, linear in the square root of beta, .00085 to .012."""
    num_train_timesteps: int = 1000
    """T, the number of timesteps; timesteps are 0 to T - 1."""
    prediction_type: Literal["epsilon", "x_start", "v"] = "epsilon"
    """What the network's output means: the noise, the clean image, or the velocity (Salimans and Ho 2022)."""
    variance: Literal["fixed_small", "fixed_large", "learned"] = "fixed_small"
    """Variance of the reverse step; learned doubles the output channels and adds the variational bound to the loss
    (Nichol and Dhariwal 2021, hybrid objective)."""
    loss: Literal["mse", "smooth-l1"] = "mse"
    """Distance between output and target."""
    min_snr_gamma: float | None = None
    """Clamp of the signal-to-noise loss weight (Hang et al. 2023, 5 is usual); None weighs timesteps equally."""
    timestep_sampling: Literal["uniform", "loss-aware"] = "uniform"
    """How training timesteps are drawn; loss-aware: Nichol and Dhariwal 2021, section 3.3, unbiased weights."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that the last timestep is pure noise (Lin et al. 2024); needs x_start or v."""


# ----------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class Training:
    """One optimization run."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 16
    """Images or patches per step, over all devices."""
    micro_batch: int | None = None
    """Images per forward pass; a smaller number accumulates gradients over several passes. None: the whole batch."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adamw decouples weight decay; adam adds it to the gradient."""
    learning_rate: float = 1e-4
    """Highest learning rate."""
    warmup_steps: int = 0
    """Steps of linear warm-up from ``start_learning_rate``."""
    start_learning_rate: float = 1e-5
    """Learning rate at step 0, where there is a warm-up."""
    decay: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate after the warm-up."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of the cosine."""
    decay_steps: int | None = None
    """Step, counted from 0, at which the cosine ends; None: the last step."""
    weight_decay: float = 0.0
    """Weight decay."""
    gradient_clip: float | None = 1.0
    """Largest norm of the gradient; None does not clip."""
    average_decay: float = 0.9999
    """Decay of the exponential moving average of the weights, warmed up as (1 + n) / (10 + n); 0 turns it off."""
    validate_every: int = 500
    """Steps between validations; 0 turns them off."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 25
    """Steps between lines of ``log.jsonl``."""
    seed: int = 0
    """Seed of weights, order of cases, augmentation and noise."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How a run uses the machine. None of these changes what is learned, beyond rounding."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    devices: int = 1
    """Devices per node; more than one needs torchrun or SLURM, or lets lightning-fabric start the processes."""
    num_nodes: int = 1
    """Nodes of a distributed run."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic; auto takes bf16-mixed where the machine has fast bfloat16 (recent GPUs, CPUs with AMX)."""
    compile: bool = False
    """Compile the network with torch.compile: about a minute at the start, then faster steps."""
    channels_last: bool = True
    """Keep activations in channels-last order, which is faster for 2D convolutions on CPUs and recent GPUs."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    workers: int | None = None
    """Threads that read and prepare files; None: one per core."""
    threads: int | None = None
    """Threads for arithmetic; None: torch's default. Part of bit-exactness: keep it the same when resuming."""


# --------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True, kw_only=True)
class Data:
    """How a path becomes cases."""

    layout: Literal[
        "auto", "images", "pairs", "classes", "nnunet", "msd", "dicom", "table", "coco"
    ] = "auto"
    """How the folder is organized; auto looks. See docs/reference/layouts.md."""
    group: str | None = None
    """Regular expression, searched in each image's path below the data folder; its first group names the patient.
    None: the column ``patient`` of a table (``patients.csv`` or the data table), else the patient numbers of well
    known file names, else each case is its own patient."""
    skip_bad: bool = False
    """Leave unusable files out, with a line in the report, instead of stopping."""
    cache: str | None = None
    """Folder for prepared arrays; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Overrides of what the fingerprint decides; None leaves it to the fingerprint."""

    size: Ints | None = None
    """2D: size of the whole image, in pixels (rows, columns), one number for a square. 3D: size of a patch."""
    spacing: Floats | None = None
    """3D: target spacing in mm, in the order of the axes after orientation (right, anterior, superior)."""
    resize: Literal["stretch", "fit"] | None = None
    """2D: stretch to ``size``, or fit inside it and pad."""
    window: Floats | None = None
    """Intensity window (low, high), in HU for CT, which is mapped to [-1, 1]."""
    percentiles: Floats | None = None
    """Intensity percentiles (low, high) of each image, which are mapped to [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images. Each draw is a function of (seed, step, position in the batch)."""

    flip: Ints = ()
    """Spatial axes (0 rows, 1 columns; 3D: 0 right, 1 anterior, 2 superior) that are flipped half the time."""
    probability: float = 1.0
    """How often the affine and the intensity change are applied, 0 to 1 each."""
    rotate: float = 0.0
    """Largest rotation, in degrees, either way."""
    scale: float = 0.0
    """Largest change of scale, as a fraction, either way."""
    shear: float = 0.0
    """Largest shear, as a fraction, either way."""
    translate: float = 0.0
    """Largest shift, as a fraction of the extent, either way."""
    brightness: float = 0.0
    """Largest shift of intensity, in units of the [-1, 1] range, either way."""
    contrast: float = 0.0
    """Largest change of contrast, as a fraction, either way."""
    gamma: float = 0.0
    """Largest change of gamma, as a power of two, either way."""
    noise: float = 0.0
    """Largest standard deviation of added Gaussian noise, in units of the [-1, 1] range."""


FINETUNE_AUGMENTATION = Augmentation(
    flip=(),
    rotate=10.0,
    scale=0.1,
    shear=0.05,
    translate=0.05,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    noise=0.05,
)
"""[related] flips, affine, crops; [ours] magnitudes, and no flip: left and right differ in a body."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How labelled cases are parted, by patient. Splits that the data set brings along win."""

    file: str | None = None
    """Splits file to use, written if it is missing; None: one file per data set in the cache folder."""
    test: float = 0.5
    """Share of the patients kept for the test, 0 to 1. Nothing is ever chosen or tuned on them."""
    validation: float = 0.1
    """Share of the patients kept for validation."""
    seed: int = 0
    """Seed of the split and of the draws."""


# ----------------------------------------------------------------------------------------------- commands

POSITIONAL = {"positional": True}


@dataclass(frozen=True, kw_only=True)
class Check:
    """Say what is in a data set and what is wrong with it, file by file."""

    data: str = field(default="", metadata=POSITIONAL)
    """Data set: a folder of images, pairs, classes, nnU-Net, MSD, a DICOM tree, a table or COCO JSON."""
    reader: Data = Data()
    """How the path becomes cases."""
    header_only: bool = False
    """Read headers alone: faster, but damage inside the files goes unseen."""


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pre-train a denoising network on unlabelled images (DDPM objective)."""

    data: str = field(default="", metadata=POSITIONAL)
    """Unlabelled images; labels, if any, are not read."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    network: Network = Network()
    """The U-Net."""
    diffusion: Diffusion = Diffusion()
    """The noising process."""
    training: Training = Training(steps=10_000, average_decay=0.9999)
    """The optimization."""
    augmentation: Augmentation = Augmentation(flip=(1,))
    """[related] random flips; here left to right only."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""
    limit: int | None = None
    """Use only this many images, drawn by seed; None: all."""
    objective: Literal["ddpm", "ddep"] = "ddpm"
    """ddpm: all noise levels; ddep: one noise level, ``sigma`` (Brempong et al. 2022)."""
    sigma: float = 0.22
    """Standard deviation of the noise of ddep, in units of the [-1, 1] range [related]."""
    from_run: str | None = None
    """``--from``: pre-trained run to start from; ddep takes its encoder, frozen, and trains a fresh decoder."""


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a segmentation network on labelled images, from a pre-trained run or from scratch."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    from_run: str | None = None
    """``--from``: pre-trained run, or the name of shipped weights (films-64); None: from scratch."""
    method: Literal["finetune", "pixel"] = "finetune"
    """finetune: the whole network (PTDR); pixel: voters on frozen features (Baranchuk et al. 2022)."""
    labels: int | None = None
    """How many labelled cases to use; None: all of the training pool."""
    draw: int = 0
    """Which random draw of the labelled cases."""
    timestep: int = 0
    """The fixed timestep, 0 to T - 1, at which the network sees the clean image. [related] the first."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to start from."""
    loss: Literal["ce", "ce+dice"] = "ce"
    """Cross-entropy [related], or with Dice loss beside it."""
    split: Split = Split()
    """How cases are parted into training pool, validation and test."""
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
    """The optimization. [related] Adam, weight decay 1e-4, cosine; [ours] 1e-3 for small networks, warm-up."""
    augmentation: Augmentation = FINETUNE_AUGMENTATION
    """Random changes of the training images."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity, when training from scratch; with ``--from`` the run's plan is used."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Segment scans with a trained run and write masks in each scan's own geometry."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder of a segmentation network."""
    data: str = field(default="", metadata=POSITIONAL)
    """A scan, or a data set."""
    out: str = ""
    """Folder for the masks; finished masks are kept when the command is run again."""
    cases: Literal["all", "test", "validation", "train"] = "all"
    """Which cases of the data set, by the splits file of the run."""
    overlap: float = 0.5
    """3D: share by which neighboring windows overlap, 0 to 0.9."""
    confidence: bool = False
    """Write the probability of the winning class beside the mask."""
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
    tolerance: float = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    reader: Data = Data()
    """How the path becomes cases."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare methods at several label budgets on the same splits, network and budget of training."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Study folder. The same command again goes on where it stopped."""
    unlabelled: str | None = None
    """Images to pre-train on; not needed with ``--from``."""
    from_run: str | None = None
    """``--from``: a pre-trained run, or the name of shipped weights, instead of pre-training here."""
    methods: tuple[str, ...] = ("scratch", "finetune")
    """Any of scratch, finetune, pixel, ddep, generated."""
    labels: Ints = (1, 2, 5, 10)
    """Label budgets."""
    draws: int = 3
    """Random draws of the labelled cases per budget; the draw is the seed of the training too."""
    reference: str = "scratch"
    """The method that the others are compared with."""
    timesteps: Ints = (0,)
    """Fixed timesteps to try with finetune; more than one adds methods named finetune@t=100."""
    weights: tuple[str, ...] = ("average",)
    """Pre-trained weights to try: average, raw, or both."""
    generated: int = 200
    """Images that the method ``generated`` draws and labels for each budget and draw; 10 % are dropped."""
    pretrain: Pretrain = Pretrain()
    """Settings of the pre-training; its data and out are set by the study."""
    finetune: Finetune = Finetune()
    """Settings of every fine-tuning; data, out, from_run, labels and draw are set by the study."""
    tolerance: float = 2.0
    """Tolerance of the surface Dice, in mm (in pixels where the spacing is unknown)."""
    parts: tuple[str, ...] = ("test",)
    """Which cases to score: test, or validation while tuning."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Write procedural images with exact labels: bitewings, chest films or abdomen CT."""

    kind: Literal["bitewing", "chest", "abdomen"] = field(default="bitewing", metadata=POSITIONAL)
    """What to draw."""
    out: str = ""
    """Folder for the data set."""
    count: int = 100
    """Number of cases."""
    labelled: bool = True
    """Write label maps beside the images."""
    size: Ints = (64, 64)
    """Pixels or voxels along each axis."""
    seed: int = 0
    """Seed; the same seed, count and size give the same files."""
    start: int = 0
    """Number of the first case: other numbers are other patients."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a pre-trained run."""

    run: str = field(default="", metadata=POSITIONAL)
    """Pre-trained run, or the name of shipped weights."""
    out: str = ""
    """Folder for the images."""
    count: int = 16
    """Number of images."""
    steps: int = 50
    """Inference steps."""
    sampler: Literal["ddim", "ddpm"] = "ddpm"
    """Reverse process. With few steps and epsilon prediction DDPM was seen to correct errors that DDIM keeps."""
    seed: int = 0
    """Seed of the noise."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html of a run or study again."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run or study folder."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """Say in one screen what a run is: method, network, data, progress, scores."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder."""
