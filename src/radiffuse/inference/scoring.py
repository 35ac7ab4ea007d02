"""Segment held-out cases at their own resolution and score them.

cases.csv         scores of each case and class; written last
overlays.npz      small pictures of some cases with both masks
calibration.csv   accuracy of the segmenter by its confidence
steps.csv         Dice by case and step of the sampling, for a sampler
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config import Fit
from ..core.losses import dice_scores
from ..data.dataset import Case, Dataset
from ..data.scan import Scan
from ..evaluation.calibration import Calibration
from ..evaluation.scoring import say_skipped, score_masks
from ..evaluation.tables import in_no_mask, never_predicted, read_scores
from ..system.cells import csv_text
from ..system.files import write_atomic
from ..system.saying import say
from ..train.labelled import Labelled
from ..train.run import Run
from .predictor import Predictor


def score_validation(run: Run, labelled: Labelled, settings: Fit) -> None:
    """Score the validation cases, unless validation is off."""
    names = labelled.splits.validation
    if names and settings.training.validate_every:
        predictor = Predictor.open([run], settings.machine)
        out, skip_bad = run.folder / "validation", settings.reader.skip_bad
        path = score_cases(predictor, labelled.dataset, names, out, skip_bad=skip_bad)
        table = read_scores(path)
        if lost := in_no_mask(never_predicted(table), table["case"].nunique()):
            say(f"{lost} of the validation cases")


def score_cases(
    predictor: Predictor,
    dataset: Dataset,
    names: Sequence[str],
    out: Path,
    tolerance: float = 2.0,
    *,
    skip_bad: bool = False,
) -> Path:
    """Segment the named cases, score them, and write the files of this module; returns the path of ``cases.csv``.

    ``tolerance`` is that of the surface Dice, in mm; with ``skip_bad`` a bad case is named and left out.
    """
    import pandas as pd

    wanted, classes = set(names), predictor.plan.classes
    calibrations: dict[str, Calibration] = {}
    steps: list[dict[str, Any]] = []

    def segment(case: Case, image: Scan, truth: Scan) -> Scan:
        if predictor.timesteps:
            masks = predictor.every_step(image, case.name)
            true = torch.from_numpy(truth.array.astype("int64"))
            for number, (one, t) in enumerate(
                zip(masks, predictor.timesteps, strict=True), start=1
            ):
                mask = torch.from_numpy(one.mask.astype("int64"))[None]
                row = {"case": case.name, "group": case.group, "step": number, "timestep": t}
                steps.append(row | {"dice": dice_scores(mask, true, len(classes))[0]})
        else:
            masks = [predictor(image, case.name)]
        result = masks[-1]
        calibrations[case.name] = Calibration()
        calibrations[case.name].add(result.confidence, result.mask, truth.array[0])
        return image.with_array(result.mask[None])

    cases = dataset.filter(lambda case: case.name in wanted)
    scored = score_masks(cases, segment, classes, tolerance, skip=say_skipped if skip_bad else None)
    counted = list(scored.table["case"].unique())  # a case may prove bad after it was segmented
    calibration = Calibration.sum(calibrations[name] for name in counted)
    write_atomic(out / "calibration.csv", csv_text(calibration.table()))
    if steps:
        table = pd.DataFrame(row for row in steps if row["case"] in counted)
        write_atomic(out / "steps.csv", csv_text(table, "%.6g"))
    return scored.write(out)
