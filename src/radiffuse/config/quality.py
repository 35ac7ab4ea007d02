"""The settings of judging synthetic images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import Data
from .learning import Machine
from .types import POSITIONAL, NonNegativeInt, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judge synthetic images: how near they come to real ones, and whether they are copies of the training images."""

    real: str = field(default="", metadata=POSITIONAL)
    """Real images. For fidelity: some that the generator was neither trained on nor given as references; for
    memorization: those that it was trained on, unless ``--trained`` names them."""
    fake: str = field(default="", metadata=POSITIONAL)
    """Synthetic images, such as a folder of radiffuse generate."""
    out: str | None = None
    """Folder for the tables and report.html; None: print only."""
    only: tuple[Literal["fidelity", "memorization"], ...] = ("fidelity", "memorization")
    """fidelity: Fréchet and kernel distance, precision, recall, density, coverage; memorization: how similar each
    synthetic image is to a real one, beside how similar real ones are to each other."""
    trained: str | None = None
    """The real images that the generator was trained on, for memorization; None: ``real``."""
    encoder: str = "films-64"
    """Feature network: a run of radiffuse pretrain or the name of shipped weights (the mean of the bottleneck of the
    denoiser), or a DINO of transformers by folder or public name (its global token). Numbers of different networks are
    not comparable. For memorization take another one than the generator was conditioned on."""
    draws: PositiveInt = 200
    """fidelity: bootstrap samples of the intervals."""
    seed: NonNegativeInt = 0
    """fidelity: seed of the resampling and of the real halves."""
    held_out: str | None = None
    """memorization: real images of patients that the generator did not see, whose similarities to the training images
    give the threshold; None: those of each training image to the other patients'."""
    percentile: Annotated[float, Within(50, 100)] = 95.0
    """memorization: the threshold; so many percent of the real images are less similar to any image of another
    patient."""
    pairs: PositiveInt = 8
    """memorization: closest pairs in the figure."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""
