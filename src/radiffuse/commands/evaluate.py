"""``radiffuse evaluate``: scores of a folder of masks against a labelled data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from ..config import Evaluate
from ..data.cases import read_case_label
from ..data.dataset import Case
from ..data.fingerprint import find_classes
from ..data.layouts import open_dataset
from ..data.readers import read_label
from ..data.scan import Scan
from ..errors import InputError
from ..evaluation.matching import match_folder
from ..evaluation.scoring import score_masks
from ..evaluation.tables import ALL_CLASSES, read_scores, summarize
from ..reports.run import write_evaluation_report
from ..system.files import sweep, write_atomic

ENDINGS = (".png", ".nii.gz", ".nii")
"""Of masks, in order of preference."""


def evaluate(settings: Evaluate) -> Path:
    """Score a folder of masks against a labelled data set.

    Returns:
        The folder with ``cases.csv``, ``summary.csv``, ``overlays.npz``, ``report.html`` and, where classes were
        matched by name, ``classes.csv``.

    Raises:
        InputError: No mask belongs to a case, a mask does not fit its case, or the two share no class.
    """
    truth = open_dataset(Path(settings.truth), settings.reader).labelled
    masks, out = Path(settings.masks), Path(settings.out)
    sweep(out)
    files: dict[str, Path] = {}
    for case in truth:
        named = (masks / f"{case.name}{ending}" for ending in ENDINGS)
        if file := next((path for path in named if path.is_file()), None):
            files[case.name] = file
    if not files:
        problem = "holds no mask named like a case of the truth"
        raise InputError(masks, problem, "Give the folder of radiffuse predict")
    cases = truth.filter(lambda case: case.name in files)
    matching = match_folder(masks, cases, settings.prediction_classes, settings.truth_classes)

    def mask_of(case: Case, image: Scan, true: Scan) -> Scan:
        mask = read_label(files[case.name])
        return matching.translate(mask, str(files[case.name]), 0) if matching else mask

    def truth_of(case: Case) -> Scan:
        true = read_case_label(case)
        return matching.translate(true, case.name, 1) if matching else true

    classes = matching.classes if matching else find_classes(cases)
    scores = score_masks(cases, mask_of, classes, settings.tolerance, truth_of).write(out)
    if matching is None:
        (out / "classes.csv").unlink(missing_ok=True)  # of an evaluation before this one
    else:
        write_atomic(out / "classes.csv", pd.DataFrame(matching.rows()).to_csv(index=False))
    summary = summarize(read_scores(scores))
    write_atomic(out / "summary.csv", summary.to_csv(index=False))
    report = write_evaluation_report(out)

    console = Console()
    for row in summary[summary["class"] == ALL_CLASSES].itertuples():
        console.print(
            f"{row.metric:<5} {row.mean:.4f}  ({row.low:.4f} to {row.high:.4f}, n = {row.n})"
        )
    if missing := len(truth) - len(files):
        console.print(f"{missing} of {len(truth)} cases have no mask and were not scored")
    for line in matching.lines() if matching else ():
        console.print(line)
    console.print(f"report: {report}")
    return out
