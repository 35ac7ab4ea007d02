"""The settings of classification, and of the study of what synthetic images add to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .data import FINETUNE_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Machine, Training
from .synthesis import Drawing
from .types import POSITIONAL, NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Train a standard network to tell the class of whole films, with synthetic images or without."""

    data: str = field(default="", metadata=POSITIONAL)
    """Real films with classes: class folders, or a table with a column class."""
    out: str = ""
    """Run folder. The same command again resumes an interrupted run."""
    network: Literal["resnet-small", "resnet18", "densenet121"] = "resnet-small"
    """Networks of MONAI. resnet-small: 0.3 M parameters, for small films on a CPU; resnet18; densenet121."""
    labels: PositiveInt | None = None
    """How many real films to use; None: all of the training pool."""
    draw: NonNegativeInt = 0
    """Which random draw of the real films; also the seed of the training."""
    with_run: tuple[str, ...] = ()
    """``--with``: folders of synthetic films with classes, such as those of radiffuse generate."""
    ratio: NonNegativeFloat = 0.0
    """Synthetic films per real one, of each class."""
    real: bool = True
    """Train on the real films too; false: on the synthetic ones alone."""
    split: Split = Split(test=0.3)
    """How patients are divided into training pool, validation and test."""
    training: Training = Training(
        steps=600,
        batch_size=32,
        learning_rate=1e-3,
        optimizer="adamw",
        weight_decay=1e-2,
        warmup_steps=25,
        decay="cosine",
        average_decay=0.99,
        validate_every=200,
        checkpoint_every=200,
    )
    """The optimization, the same number of steps with and without synthetic films. [ours]"""
    augmentation: Augmentation = FINETUNE_AUGMENTATION
    """Random changes of the training films."""
    plan: PlanSettings = PlanSettings()
    """Size and intensity."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Study what synthetic films add to classification: pools of real films x synthetic per real x draws."""

    data: str = field(default="", metadata=POSITIONAL)
    """Real films with classes."""
    out: str = ""
    """Study folder. The same command again goes on where it stopped."""
    with_run: tuple[str, ...] = ()
    """``--with``: a run of radiffuse synthesize, which then draws from each pool's own films; or folders of synthetic
    films with classes."""
    ratios: tuple[NonNegativeFloat, ...] = (0.0, 1.0, 5.0, 10.0)
    """Synthetic films per real one; 0 is always done. The highest is also done without real films."""
    pools: tuple[PositiveInt, ...] = (50, 200, 1000)
    """Numbers of real films."""
    draws: PositiveInt = 3
    """Random draws of each pool; the draw is the seed of the training too."""
    drawing: Drawing = Drawing(strategy=("interpolate",))
    """How a run of synthesize draws, see radiffuse generate."""
    samples: PositiveInt = 500
    """Bootstrap samples of the intervals."""
    classify: Classify = Classify()
    """Settings of every training; data, out, labels, draw, with, ratio and real are set by the study."""
