"""Settings of the evaluation of synthetic images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import Data
from .learning import Machine
from .types import POSITIONAL, NonNegativeInt, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judge synthetic images: how close they come to real ones, and whether they copy the training images."""

    real: str = field(default="", metadata=POSITIONAL)
    """Real images. For fidelity: images that the generator was neither trained on nor given as references; for
    memorization: its training images, unless ``--trained`` names them."""
    fake: str = field(default="", metadata=POSITIONAL)
    """Synthetic images, such as a folder of radiffuse generate."""
    out: str | None = None
    """Folder for the tables and report.html; None: only print."""
    only: tuple[Literal["fidelity", "memorization"], ...] = ("fidelity", "memorization")
    """fidelity: Fréchet and kernel distance, precision, recall, density, coverage; memorization: how similar each
    synthetic image is to a training image, compared with how similar real images are to each other."""
    trained: str | None = None
    """memorization: the images that the generator was trained on; None: ``real``."""
    encoder: str = "films-64"
    """Feature network: a run of radiffuse pretrain or the name of shipped weights (features: the mean of the
    denoiser's bottleneck), or the folder or public name of a DINO of transformers (features: its global token). Results
    of different networks cannot be compared. For memorization, use another network than the generator's encoder."""
    draws: PositiveInt = 200
    """fidelity: bootstrap samples behind each interval."""
    seed: NonNegativeInt = 0
    """fidelity: seed of the resampling and of the random halves of the real images."""
    held_out: str | None = None
    """memorization: real images of patients that the generator has not seen; their distances to the training images set
    the threshold. None: distances between training images of different patients set it."""
    percentile: Annotated[float, Within(50, 100)] = 95.0
    """memorization: the threshold. An image is suspected where it is closer to a training image than this percentage of
    real images are to any image of another patient."""
    pairs: PositiveInt = 8
    """memorization: number of closest pairs in the figure."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""
