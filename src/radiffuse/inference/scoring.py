"""Segment held-out cases at their own resolution and score them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import Fit, Machine
from ..data.dataset import Dataset
from ..evaluation.scoring import score_with
from ..train.labelled import Labelled
from ..train.run import Run
from .members import Overrides
from .predictor import Predictor


def score_validation(run: Run, labelled: Labelled, settings: Fit) -> None:
    """Score the validation cases at their own resolution, unless validation is off."""
    if labelled.splits.validation and settings.training.validate_every:
        score_cases(
            run,
            labelled.dataset,
            labelled.splits.validation,
            run.folder / "validation",
            settings.machine,
        )


def score_cases(
    run: Run,
    dataset: Dataset,
    names: Sequence[str],
    out: Path,
    machine: Machine,
    tolerance: float = 2.0,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
) -> Path:
    """Segment the named cases at their own resolution and leave the tables of ``evaluation.scoring``.

    Args:
        run: A finished segmentation run.
        dataset: Where the cases are.
        names: Which cases.
        out: Folder to write to.
        machine: Device and precision.
        tolerance: Of the surface Dice, in mm.
        overrides: How the run is to segment.
    """
    return score_with(Predictor.open([run], machine, overrides), dataset, names, out, tolerance)
