"""Segment cases and score them: by class, by step of the sampling, and by how sure the segmenter was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from ..core.losses import dice_scores
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.plan import Plan
from ..data.scan import Array, Scan
from ..system.files import write_atomic
from .calibration import Calibration
from .writing import write_evaluation


class Answer(Protocol):
    """A segmented scan."""

    @property
    def mask(self) -> Array:
        """Labels ``(*spatial)``."""

    @property
    def confidence(self) -> Array:
        """Probability of the winning class ``(*spatial)``."""


class Answers(Protocol):
    """What segments: a ``Predictor``."""

    @property
    def plan(self) -> Plan:
        """How scans are treated, with the classes."""

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Of the steps that can be scored one by one; () where there is a result alone."""

    def __call__(self, scan: Scan, name: str = "") -> Answer:
        """Segment a scan."""

    def every_step(self, scan: Scan, name: str = "") -> Sequence[Answer]:
        """What each step thought, the result last."""


def score_with(
    answers: Answers, dataset: Dataset, names: Sequence[str], out: Path, tolerance: float = 2.0
) -> Path:
    """Segment the named cases at their own resolution and score them.

    Args:
        answers: What segments.
        dataset: Where the cases are.
        names: Which cases.
        out: Folder for ``cases.csv``, ``overlays.npz``, ``calibration.csv`` and, for a sampler, ``steps.csv`` (Dice
            by case and step).
        tolerance: Of the surface Dice, in mm.

    Returns:
        The path of ``cases.csv``, which is written last.
    """
    wanted = set(names)
    chosen = dataset.filter(lambda case: case.name in wanted)
    calibration = Calibration()
    steps: list[dict[str, Any]] = []

    def quadruples() -> Iterator[tuple[str, Scan, Scan, Scan]]:
        for case in chosen:
            scan, truth = read_case_image(case), read_case_label(case)
            if answers.timesteps:
                found = answers.every_step(scan, case.name)
                steps.extend(_steps(case, found, answers, truth))
            else:
                found = [answers(scan, case.name)]
            mask = found[-1].mask
            calibration.add(found[-1].confidence, mask, truth.array[0])
            yield case.name, scan, scan.with_array(mask[None]), truth
        # Here, so that cases.csv, which marks the scores as complete, is written after them.
        write_atomic(out / "calibration.csv", calibration.table().to_csv(index=False))
        if steps:
            write_atomic(out / "steps.csv", _csv(steps))

    groups = {case.name: case.group for case in chosen}
    return write_evaluation(
        quadruples(), answers.plan.classes, out, tolerance=tolerance, groups=groups
    )


def _steps(
    case: Case, found: Sequence[Answer], answers: Answers, truth: Scan
) -> Iterator[dict[str, Any]]:
    true = torch.from_numpy(truth.array.astype("int64"))
    for number, (answer, t) in enumerate(zip(found, answers.timesteps, strict=True), start=1):
        mask = torch.from_numpy(answer.mask.astype("int64"))[None]
        dice = dice_scores(mask, true, len(answers.plan.classes))[0]
        yield {"case": case.name, "group": case.group, "step": number, "timestep": t, "dice": dice}


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    text: str = pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")
    return text
