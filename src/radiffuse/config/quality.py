"""The settings of what judges synthetic images: fidelity and memorization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from .data import Data
from .learning import Machine
from .types import POSITIONAL, NonNegativeInt, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """Measure how near synthetic images come to real ones: Fréchet, kernel, precision, recall, density, coverage."""

    real: str = field(default="", metadata=POSITIONAL)
    """Real images that the generator was neither trained on nor given as references."""
    fake: str = field(default="", metadata=POSITIONAL)
    """Synthetic images, such as a folder of radiffuse generate."""
    encoder: str = "films-64"
    """Feature network: a run of radiffuse pretrain or the name of shipped weights (the mean of the bottleneck of the
    denoiser), or a DINO of transformers by folder or public name (its global token). Numbers of different networks are
    not comparable."""
    out: str | None = None
    """Folder for fidelity.csv and report.html; None: print only."""
    draws: PositiveInt = 200
    """Bootstrap samples of the intervals."""
    seed: NonNegativeInt = 0
    """Seed of the resampling and of the real halves."""
    reader: Data = Data()
    """How both paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """Look for copies: how near each synthetic image is to a real one, beside how near real ones are to each other."""

    real: str = field(default="", metadata=POSITIONAL)
    """The real images that the generator was trained on."""
    fake: str = field(default="", metadata=POSITIONAL)
    """Synthetic images, such as a folder of radiffuse generate."""
    out: str = ""
    """Folder for nearest.csv, summary.csv and report.html."""
    encoder: str = "films-64"
    """Feature network, as in radiffuse fidelity; another one than the generator was conditioned on."""
    held_out: str | None = None
    """Real images of patients that the generator did not see, whose distances to ``real`` give the threshold; None:
    each image of ``real`` to those of the other patients."""
    percentile: Annotated[float, Within(50, 100)] = 95.0
    """The threshold: so many percent of the real images are less similar to any image of another patient."""
    pairs: PositiveInt = 8
    """Closest pairs in the figure."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""
