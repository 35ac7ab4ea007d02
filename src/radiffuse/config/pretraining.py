"""Settings of pre-training on unlabelled images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import VIEWS_AUGMENTATION, Augmentation, Data, PlanSettings
from .learning import Contrast, Diffusion, Machine, Training
from .network import Network
from .types import (
    FULL_NAMES,
    POSITIONAL,
    Hours,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Ramp,
    Within,
    before,
    only_for,
)

ObjectiveName = Literal[
    "ddpm", "ddep", "restorative", "contrastive", "masked", "clean-features", "coordinates"
]
"""The tasks that ``pretrain`` can train on."""
TIMELESS = ("ddep", "restorative", "masked")
"""Those that a network without timesteps can learn."""


@dataclass(frozen=True, kw_only=True)
class Regressor:
    """Settings of the objective coordinates alone."""

    crop: Annotated[float, Within(0.1, 1)] = 0.75
    """Size of a crop as a fraction of the plan's size, rounded down to what the network can halve."""
    voxels: PositiveInt = 1024
    """Pairs of voxels per pair of crops, in each step."""
    agreement: NonNegativeFloat = 1.0
    """Weight of the loss term that gives a voxel the same coordinates in both crops."""
    ramp: Ramp = field(default="none", metadata=before("none"))
    """The place of a voxel in its patch, as a linear ramp along each axis [ours]. none: the network finds places by the
    image alone; input: it sees the ramp as further channels; output: the ramp is added to what it says, so that it has
    to learn only how the patch lies in the body. Neither found landmarks better (results/landmarks-ramp.csv)."""
    landmarks: str | None = None
    """Labelled scans for a final test: the centers of their classes are carried from scan to scan by coordinates, and
    the errors are written to landmarks.csv."""


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Pre-train a network on unlabelled images, by denoising or by another objective."""

    data: str = field(default="", metadata=POSITIONAL)
    """Unlabelled images; any labels are ignored."""
    out: str = ""
    """Run folder. Repeat the command to resume an interrupted run."""
    objective: ObjectiveName = "ddpm"
    """ddpm: denoise at all noise levels; ddep: denoise at the single level ``sigma``, the decoder alone where the
    encoder was trained before, by ``--from`` or on ImageNet (Brempong et al. 2022);
    restorative: undo shuffled pixels, bent intensities and in- and out-painting (Models Genesis); contrastive: find the
    same voxel in another crop (vox2vec); masked: restore masked blocks (masked autoencoding); clean-features:
    a copy of the denoiser of ``--from`` learns to give its features of noised images on clean ones (CleanDIFT);
    coordinates: predict the body coordinates of every voxel, which can then guide ddpm (Li et al. 2025)."""
    network: Network = Network()
    """The network; for coordinates, its decoder stops at a quarter of the resolution."""
    diffusion: Diffusion = Diffusion()
    """The noising process."""
    hours: Hours | None = None
    """Hours for everything, including reading, planning, preparation and validation. What planning leaves of them sets
    the number of steps, once. None: a number of passes over the images, in three hours at most."""
    training: Training = Training()
    """The optimization."""
    augmentation: Augmentation = Augmentation(flip=None)
    """Augmentation of the images. [related] random flips; here left to right only, also of volumes. coordinates:
    intensity changes, drawn separately for each crop."""
    plan: PlanSettings = PlanSettings()
    """Size, spacing and intensity."""
    reader: Data = Data()
    """How the path becomes cases."""
    machine: Machine = Machine()
    """Device and precision."""
    for_run: str | None = None
    """``--for``: labelled images that will be segmented later. They decide the grid, and the window of CT."""
    limit: PositiveInt | None = None
    """Use only this many images, drawn by seed; None: all."""
    sigma: NonNegativeFloat = field(default=0.22, metadata=only_for("ddep"))
    """Standard deviation of the noise, in units of the [-1, 1] range [related]."""
    mask_ratio: Annotated[float, Within(0.05, 0.95)] = field(
        default=0.75, metadata=only_for("masked")
    )
    """Share of the blocks that are masked [code: nnssl]; a block is a voxel of the network's coarsest level."""
    feature_timesteps: tuple[NonNegativeInt, ...] = field(
        default=(), metadata=only_for("clean-features")
    )
    """Timesteps of the denoiser whose features are learned. Empty: at 1, 3, 10 and 30 % of its timesteps [ours]."""
    contrast: Contrast = field(default=Contrast(), metadata=FULL_NAMES | only_for("contrastive"))
    """Settings of the contrastive objective."""
    regressor: Regressor = field(default=Regressor(), metadata=FULL_NAMES | only_for("coordinates"))
    """Settings of the objective coordinates."""
    from_run: str | None = None
    """``--from``: pre-trained run to start from; ddep freezes its encoder and trains a new decoder; clean-features
    needs a run of ddpm, whose plan and network it has."""
    with_run: tuple[str, ...] = ()
    """``--with``: more folders of images to learn from, such as synthetic ones of radiffuse generate. They do not count
    towards ``--limit``, and none is held out for validation."""
    zoom: Annotated[float, Within(1)] | None = field(
        default=None, metadata=only_for("ddpm", "ddep", "restorative", "masked", "clean-features")
    )
    """For a network that sees patches: they are cut at up to this many times its size and downsampled to it, uniformly
    in the logarithm, so that it learns both anatomy and edges, and suits segmentation on any grid. 1: always the grid's
    own pixels. None: up to the whole image; with ``--coordinates``, which have a single scale, 1."""
    coordinates: str | None = field(default=None, metadata=only_for("ddpm"))
    """Run of the objective coordinates that guides this one: the network also sees the body coordinates of the clean
    image (Li et al. 2025). The plan of that run is used. None: no guidance."""


PRETRAIN: dict[str, Pretrain] = {
    "ddpm": Pretrain(),
    "ddep": Pretrain(objective="ddep"),
    "restorative": Pretrain(objective="restorative"),
    "contrastive": Pretrain(objective="contrastive"),
    "masked": Pretrain(objective="masked"),
    "clean-features": Pretrain(objective="clean-features"),
    "coordinates": Pretrain(
        objective="coordinates",
        augmentation=VIEWS_AUGMENTATION,
        training=Training(
            learning_rate=3e-4,
            warmup_steps=50,
            decay="cosine",
            average_decay=0.99,
            validate_every=250,
            checkpoint_every=250,
        ),
    ),
}
"""The defaults of ``pretrain`` by objective. coordinates: [related] AdamW 3e-4; the rest [ours]."""
