"""The settings of every command, one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .data import FINETUNE_AUGMENTATION, VIEWS_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Contrast, Diffusion, Losses, Machine, Sampling, Training
from .network import Network
from .types import FULL_NAMES, POSITIONAL, Ints, Strategy


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
    """Pre-train a network on unlabelled images: by denoising, or by one of its rivals."""

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
    objective: Literal["ddpm", "ddep", "restorative", "contrastive"] = "ddpm"
    """ddpm: denoising at all noise levels; ddep: at one, ``sigma`` (Brempong et al. 2022); restorative: undo shuffled
    pixels, bent intensities and painted windows (Models Genesis); contrastive: find the same voxel in another crop
    (vox2vec)."""
    sigma: float = 0.22
    """Standard deviation of the noise of ddep, in units of the [-1, 1] range [related]."""
    contrast: Contrast = field(default=Contrast(), metadata=FULL_NAMES)
    """Settings of the contrastive objective."""
    from_run: str | None = None
    """``--from``: pre-trained run to start from; ddep takes its encoder, frozen, and trains a fresh decoder."""
    coordinates: str | None = None
    """Run of radiffuse coordinates: the network sees body coordinates of the clean image beside the noised one (Li et
    al. 2025); its plan is taken over. None: not guided."""


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Train the body-part regressor: body coordinates for every voxel, from the patch around it alone."""

    data: str = field(default="", metadata=POSITIONAL)
    """Unlabelled scans, all in the same pose; labels, if any, are not read."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    network: Network = Network()
    """The U-Net; its decoder ends at a quarter of the resolution."""
    training: Training = Training(
        steps=2000,
        batch_size=8,
        learning_rate=3e-4,
        warmup_steps=50,
        decay="cosine",
        average_decay=0.99,
        validate_every=250,
        checkpoint_every=250,
    )
    """The optimization. [related] AdamW 3e-4; the rest [ours]."""
    crop: float = 0.75
    """Size of a crop, as a share of the plan's size, rounded down to what the network can halve."""
    voxels: int = 1024
    """Pairs of voxels per pair of crops and step."""
    agreement: float = 1.0
    """Weight of the loss that a voxel has the same coordinates in both crops."""
    augmentation: Augmentation = VIEWS_AUGMENTATION
    """Changes of intensity, drawn for each crop on its own."""
    landmarks: str | None = None
    """Labelled scans: at the end the centers of their classes are carried from scan to scan, and the errors written to
    landmarks.csv."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""
    limit: int | None = None
    """Use only this many scans, drawn by seed; None: all."""


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Train a segmentation network on labelled images, from a pre-trained run or from scratch."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    from_run: str | None = None
    """``--from``: pre-trained run, or the name of shipped weights (films-64); None: from scratch."""
    method: Literal["finetune", "pixel", "dynunet"] = "finetune"
    """finetune: the whole network (PTDR); pixel: voters on frozen features (Baranchuk et al. 2022); dynunet: another
    network from scratch, MONAI's DynUNet in the shape that nnU-Net would give it, instead of ``network``."""
    labels: int | None = None
    """How many labelled cases to use; None: all of the training pool."""
    draw: int = 0
    """Which random draw of the labelled cases."""
    timestep: int = 0
    """The fixed timestep, 0 to T - 1, at which the network sees the clean image. [related] the first."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to start from."""
    loss: Losses = Losses()
    """Cross-entropy [related]; Dice beside it as an option."""
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
class Probe:
    """Train small heads on the frozen features of a pre-trained network: linear and non-linear probing."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    from_run: str = ""
    """``--from``: pre-trained run, or the name of shipped weights (films-64)."""
    heads: tuple[Literal["linear", "nonlinear"], ...] = ("nonlinear", "linear")
    """Heads, trained side by side on the same features; the first is the one that segments unless told otherwise.
    [related: vox2vec] linear: a 1x1 convolution per level, summed; nonlinear: the same with residual 1x1 blocks."""
    timesteps: Ints = (10,)
    """Timesteps whose features are joined by channel. [paper] 10 of 300. A network that was not trained on noise
    (restorative, contrastive) sees the clean image at timestep 0 instead."""
    levels: tuple[str, ...] = ()
    """Features of the pyramid: ``middle``, and decoder levels, 0 the finest. None given: all of them."""
    sweep: Ints = ()
    """Further heads of each kind, in the same pass, on each of these timesteps alone."""
    sweep_levels: bool = False
    """Further heads of each kind, in the same pass, on each level alone."""
    noise_draws: int = 1
    """Draws of noise that features are averaged over."""
    width: int = 32
    """Channels of the non-linear head."""
    labels: int | None = None
    """How many labelled cases to use; None: all of the training pool."""
    draw: int = 0
    """Which random draw of the labelled cases."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to freeze."""
    loss: Losses = Losses(cross_entropy=1.0, dice=1.0)
    """[related] cross-entropy and Dice."""
    split: Split = Split()
    """How cases are parted into training pool, validation and test."""
    training: Training = Training(
        steps=500,
        batch_size=8,
        learning_rate=3e-3,
        optimizer="adam",
        decay="cosine",
        gradient_clip=None,
        average_decay=0.99,
        validate_every=100,
        checkpoint_every=100,
    )
    """The optimization of the heads. [related] Adam; [ours] 3e-3 with cosine decay for few steps (vox2vec: 3e-4, long).
    Gradients are not clipped, so that heads do not touch each other."""
    augmentation: Augmentation = Augmentation()
    """Random changes of the training images."""
    plan: PlanSettings = PlanSettings()
    """Only ``postprocess`` has an effect; else the run's plan is used."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class DiffSeg:
    """Train segmentation by mask diffusion: with recycling, its rivals, or the plain supervised reference."""

    data: str = field(default="", metadata=POSITIONAL)
    """Labelled images."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    strategy: Strategy = "recycle"
    """How training noises a mask (Fu et al. 2023): standard: the true mask; recycle: a mask predicted from noise;
    recycle-next: one predicted from the true mask at t + 1; self-condition (Chen et al. 2022) and self-condition-next
    (Watson et al. 2023): a prediction beside the noised mask; none: no diffusion, the same network supervised."""
    from_run: str | None = None
    """``--from``: pre-trained run, or the name of shipped weights (films-64); None: from scratch."""
    labels: int | None = None
    """How many labelled cases to use; None: all of the training pool."""
    draw: int = 0
    """Which random draw of the labelled cases."""
    weights: Literal["average", "raw"] = "average"
    """Which weights of the pre-trained run to start from."""
    diffusion: Diffusion = Diffusion(
        schedule="linear",
        num_train_timesteps=1001,
        prediction_type="x_start",
        timestep_sampling="loss-aware",
    )
    """[code] linear betas, T = 1001, loss-aware timesteps; the network always predicts the clean mask."""
    loss: Losses = Losses(cross_entropy=0.0, dice=1.0, focal=20.0)
    """[code] Dice + 20 focal."""
    sampling: Sampling = Sampling()
    """How masks are drawn, in validation and, unless told otherwise, at prediction. [code] 5 steps."""
    split: Split = Split()
    """How cases are parted into training pool, validation and test."""
    network: Network = Network()
    """The U-Net, when training from scratch; with ``--from`` the run's own network is used."""
    training: Training = Training(
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
    )
    """The optimization. [code] AdamW, weight decay 1e-8, clip 1.0, 1e-5 to 8e-4 in 100 steps, cosine to 5e-5; [ours]
    steps, batch size and averaged weights."""
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
    overlap: float = 0.5
    """3D: share by which neighboring windows overlap, 0 to 0.9."""
    sampler: Literal["ddpm", "ddim"] | None = None
    """Mask diffusion: reverse process; None: as the run was trained to be used."""
    steps: int | None = None
    """Mask diffusion: inference steps; None: as the run was trained to be used."""
    legacy_timesteps: bool = False
    """Mask diffusion: tell the network the time as the released code of Fu et al. does; only for measuring that."""
    head: str | None = None
    """Probing: which head segments, such as linear; None: the first."""
    samples: int = 1
    """Mask diffusion: masks drawn per scan, whose probabilities are averaged."""
    ensemble: Literal["probability", "vote"] = "probability"
    """How samples and runs become one mask: mean probability, or majority vote. Every run weighs the same."""
    seed: int = 0
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
class Convert:
    """Make a pre-trained run of a denoiser of diffusers, MONAI or guided-diffusion, where the networks are the same."""

    weights: str = field(default="", metadata=POSITIONAL)
    """Folder with config.json and safetensors: a UNet2DModel or its pipeline, the arguments and weights of a
    DiffusionModelUNet; or a safetensors file of guided-diffusion. Pickled weights are refused."""
    out: str = ""
    """Run folder; every command takes it with ``--from``."""
    kind: Literal["auto", "diffusers", "monai", "guided-diffusion"] = "auto"
    """Whose network it is; auto looks at config.json, which guided-diffusion does not have."""
    head_channels: int = 64
    """guided-diffusion: channels per attention head, which its weights do not tell."""
    diffusion: Diffusion = Diffusion(schedule="linear")
    """The process it was trained on; the scheduler of a pipeline goes first."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity of the images it was trained on; volumes need a spacing."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run in the form that another program reads: published folder, ONNX, torch.export, MONAI, nnU-Net."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, or the name of shipped weights."""
    out: str = ""
    """Folder for the result."""
    format: Literal["pretrained", "onnx", "torch-export", "monai-bundle", "nnunet-encoder"] = (
        "pretrained"
    )
    """pretrained: a run without log, state and names of cases, for others to use; onnx and torch-export: the network of
    a segmenter as a program; monai-bundle: a segmenter with its pre- and postprocessing for monai.bundle;
    nnunet-encoder: the network as an architecture of nnU-Net, with its weights."""
    head: str | None = None
    """Probing: which head; None: the first."""
    licence: str | None = None
    """Licence of the weights for the model card, as the hub spells it, such as apache-2.0."""
    data_licence: str | None = None
    """Licence of the training data for the model card; None: what the data set states."""
    push: str | None = None
    """pretrained: upload the folder to this repository of the Hugging Face hub too, OWNER/NAME."""


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
    """Any of scratch, dynunet, finetune, pixel, ddep, generated; diffusion, guided, restorative, contrastive: ways of
    pre-training, put to use as ``probe`` says; the strategies of diffseg, from scratch or, as in recycle+pretrained,
    from the pre-trained run; ensemble."""
    probe: tuple[str, ...] = ()
    """How ways of pre-training are put to use: linear or nonlinear probing, or finetune, which is done where none is
    given. Several add methods named guided@linear."""
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
    pools: Ints = ()
    """Numbers of unlabelled images, beside all of them, to pre-train on; adds methods named finetune@n=500."""
    samplers: tuple[str, ...] = ("ddpm",)
    """Reverse processes to try with mask diffusion; more than one adds methods named recycle@ddim."""
    ensemble: tuple[str, ...] = ("none", "recycle")
    """Methods whose probabilities the method ``ensemble`` averages."""
    generated: int = 200
    """Images that the method ``generated`` draws and labels for each budget and draw; 10 % are dropped."""
    pretrain: Pretrain = Pretrain()
    """Settings of the pre-training; its data and out are set by the study."""
    coordinates: Coordinates = Coordinates()
    """Settings of the regressor that guides; its data, out and plan are set by the study."""
    probing: Probe = Probe()
    """Settings of every probing; its ``sweep`` adds methods named guided@t=30."""
    finetune: Finetune = Finetune()
    """Settings of every fine-tuning; data, out, from_run, labels and draw are set by the study."""
    diffseg: DiffSeg = DiffSeg()
    """Settings of every mask diffusion; data, out, from_run, labels, draw, strategy and split are set by the study."""
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
    """Say in one screen what a run, a folder of weights or a plan is: data, network, steps, scores, licence."""

    run: str = field(default="", metadata=POSITIONAL)
    """Run folder, folder of weights (``config.json`` with safetensors), or plan file."""
