"""Settings of classification, and of the study of what synthetic images add to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from .data import FINETUNE_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Machine, Training
from .synthesis import Drawing
from .types import POSITIONAL, NonNegativeFloat, NonNegativeInt, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class Classify:
    """Train a standard network to classify whole films, with or without synthetic images."""

    data: str = field(default="", metadata=POSITIONAL)
    """Real films with classes: one folder per class, or a table with a column ``class``."""
    out: str = ""
    """Run folder. Repeat the command to resume an interrupted run."""
    network: Literal["resnet-small", "resnet18", "densenet121"] = "resnet-small"
    """A network of MONAI. resnet-small has 0.3 M parameters and suits small films on a CPU."""
    labels: PositiveInt | None = None
    """Number of real films to train on; None: the whole training pool."""
    draw: NonNegativeInt = 0
    """Number of the random draw of real films; also the seed of the training."""
    with_run: tuple[str, ...] = ()
    """``--with``: folders of synthetic films with classes, such as radiffuse generate writes."""
    ratio: NonNegativeFloat = 0.0
    """Synthetic films per real film, in each class."""
    real: bool = True
    """Train on the real films as well; false: on synthetic films alone."""
    judge: str | None = None
    """A run of radiffuse classify on the same films, which chooses among the synthetic ones; see ``likely``. None of
    today's test and validation films may be among those that it was trained on."""
    likely: Annotated[float, Within(0.01, 1)] = 1.0
    """Share of the synthetic films of each class that may serve: those that ``judge`` finds most probable. [ours]
    Left out first are near copies: films nearer to a real training film, in the judge's features, than 95 % of real
    training films are to one of another patient."""
    split: Split = Split(test=0.3)
    """How patients are split into training pool, validation and test."""
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
    """The optimization; the number of steps is the same with and without synthetic films. [ours]"""
    augmentation: Augmentation = FINETUNE_AUGMENTATION
    """Augmentation of the training films."""
    plan: PlanSettings = PlanSettings()
    """Size and intensity."""
    reader: Data = Data()
    """How the paths become cases."""
    machine: Machine = Machine()
    """Device and precision."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Measure what synthetic films add to classification, for several pools of real films, ratios and draws."""

    data: str = field(default="", metadata=POSITIONAL)
    """Real films with classes."""
    out: str = ""
    """Study folder. Repeat the command to continue an interrupted study."""
    with_run: tuple[str, ...] = ()
    """``--with``: a run of radiffuse synthesize, which draws from the films of each pool; or folders of synthetic films
    with classes."""
    ratios: tuple[NonNegativeFloat, ...] = (0.0, 1.0, 5.0, 10.0)
    """Synthetic films per real film. 0 is always included; the highest is also trained without real films."""
    pools: tuple[PositiveInt, ...] = (50, 200, 1000)
    """Sizes of the pools of real films."""
    draws: PositiveInt = 3
    """Random draws of each pool; the number of the draw is also the seed of the training."""
    likely: Annotated[float, Within(0.01, 1)] = 1.0
    """Share of the synthetic films that may serve: those that the classifier of the same real films finds most probable
    for their class, without near copies; see radiffuse classify."""
    drawing: Drawing = Drawing(strategy=("interpolate",))
    """How a run of synthesize draws images; see radiffuse generate."""
    classify: Classify = Classify()
    """Settings of every training; the study sets data, out, labels, draw, with, ratio, real, judge and
    likely."""
