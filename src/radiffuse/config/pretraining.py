"""Settings of what learns from unlabelled images: pre-training and the regressor of coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import VIEWS_AUGMENTATION, Augmentation, Data, PlanSettings
from .learning import Contrast, Diffusion, Machine, Training
from .network import Network
from .types import FULL_NAMES, POSITIONAL, NonNegativeFloat, NonNegativeInt, PositiveInt, Within


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
    limit: PositiveInt | None = None
    """Use only this many images, drawn by seed; None: all."""
    objective: Literal["ddpm", "ddep", "restorative", "contrastive"] = "ddpm"
    """ddpm: denoising at all noise levels; ddep: at one, ``sigma`` (Brempong et al. 2022); restorative: undo shuffled
    pixels, bent intensities and painted windows (Models Genesis); contrastive: find the same voxel in another crop
    (vox2vec)."""
    sigma: NonNegativeFloat = 0.22
    """Standard deviation of the noise of ddep, in units of the [-1, 1] range [related]."""
    contrast: Contrast = field(default=Contrast(), metadata=FULL_NAMES)
    """Settings of the contrastive objective."""
    from_run: str | None = None
    """``--from``: pre-trained run to start from; ddep takes its encoder, frozen, and trains a fresh decoder."""
    with_run: tuple[str, ...] = ()
    """``--with``: further folders of images to learn from, such as synthetic ones of radiffuse generate. ``--limit``
    does not count them, and none is held out for validation."""
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
    crop: Annotated[float, Within(0.1, 1)] = 0.75
    """Size of a crop, as a share of the plan's size, rounded down to what the network can halve."""
    voxels: PositiveInt = 1024
    """Pairs of voxels per pair of crops and step."""
    agreement: NonNegativeFloat = 1.0
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
    limit: PositiveInt | None = None
    """Use only this many scans, drawn by seed; None: all."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draw images from a pre-trained run."""

    run: str = field(default="", metadata=POSITIONAL)
    """Pre-trained run, or the name of shipped weights."""
    out: str = ""
    """Folder for the images."""
    count: PositiveInt = 16
    """Number of images."""
    steps: PositiveInt = 50
    """Inference steps."""
    sampler: Literal["ddim", "ddpm"] = "ddpm"
    """Reverse process. With few steps and epsilon prediction DDPM was seen to correct errors that DDIM keeps."""
    seed: NonNegativeInt = 0
    """Seed of the noise."""
    machine: Machine = Machine()
    """Device and precision."""
