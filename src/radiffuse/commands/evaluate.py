"""``radiffuse evaluate``: scores of a folder of masks against a labelled data set."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..config import Evaluate
from ..data.cases import read_case_label
from ..data.class_names import ALL_CLASSES
from ..data.dataset import Case, Dataset
from ..data.fingerprint import find_classes
from ..data.issues import some
from ..data.layouts import existing, open_dataset
from ..data.layouts.listing import named_file
from ..data.readers import read_label
from ..data.scan import Scan
from ..errors import InputError, printable
from ..evaluation.matching import Matching, match_folder
from ..evaluation.scoring import say_skipped, score_masks
from ..evaluation.tables import (
    METRIC_NAMES,
    distance_unit,
    in_no_mask,
    never_predicted,
    read_scores,
    summarize,
)
from ..inference.expecting import kept
from ..inference.records import Record, doubts
from ..reports.run import write_evaluation_report
from ..system.cells import csv_text
from ..system.files import refuse_foreign, write_atomic, write_json
from ..system.leftovers import sweep

ENDINGS = (".png", ".nii.gz", ".nii")
"""Of masks, in order of preference."""


def evaluate(settings: Evaluate) -> Path:
    """Score a folder of masks against a labelled data set.

    Where the masks have a record (see ``inference.records``), each must be of the scan that its truth belongs to.

    Returns:
        The folder with ``cases.csv``, ``summary.csv``, ``evaluation.json`` (what was scored), ``overlays.npz``,
        ``report.html`` and, where classes were matched by name, ``classes.csv``.

    Raises:
        InputError: No mask belongs to a case, a mask does not fit its case or was made from another scan, the two
            share no class, or the folder holds other files. With ``--skip-bad`` a bad case is named and left out,
            unless all are such.
    """
    found, out = open_masks(settings), Path(settings.out)
    sweep(out)
    cases, matching, skipped = found.cases, found.matching, list[str]()

    def skip(case: Case, error: InputError) -> None:
        skipped.append(case.name)
        say_skipped(case, error)

    classes = matching.classes if matching else find_classes(cases)
    leave_out = skip if settings.reader.skip_bad else None
    scored = score_masks(
        cases, found.mask_of, classes, settings.tolerance, found.truth_of, leave_out
    )
    for name in ("summary.csv", "classes.csv", "evaluation.json", "report.html"):
        (out / name).unlink(missing_ok=True)  # of an evaluation before this one
    scores = scored.write(out)
    if matching is not None:
        write_atomic(out / "classes.csv", csv_text(pd.DataFrame(matching.rows())))
    table = read_scores(scores)
    summary = summarize(table)
    write_atomic(out / "summary.csv", csv_text(summary))
    expected = _expected(found.record, found.files, table)
    lost = never_predicted(table)
    notes = _write_notes(settings, found.record, found.files, skipped, expected, lost)
    if sentence := in_no_mask(lost, table["case"].nunique()):
        notes.append(f"{sentence}, though label maps show it")
    write_evaluation_report(out)
    unit = distance_unit(table)
    units = {"hd95": f" {unit}", "nsd": f" within {settings.tolerance:g} {unit}"}
    lines = (*(matching.lines() if matching else ()), expected)
    _print(summary, units, [line for line in lines if line], notes)
    return out


@dataclass(frozen=True)
class Found:
    """What is to be scored.

    Attributes:
        cases: Those that have a mask.
        files: The masks by name of case.
        record: Of the masks, if they have one.
        matching: Of classes by their names; None where values are compared.
    """

    cases: Dataset
    files: dict[str, Path]
    record: Record | None
    matching: Matching | None

    def mask_of(self, case: Case, image: Scan, true: Scan) -> Scan:
        """The mask of a case, in the common classes."""
        if self.record:
            self.record.verify_scan(case, image)
        mask = read_label(self.files[case.name])
        return (
            self.matching.translate(mask, str(self.files[case.name]), 0) if self.matching else mask
        )

    def truth_of(self, case: Case, image: Scan) -> Scan:
        """The truth of a case, in the common classes."""
        true = read_case_label(case, image)
        return self.matching.translate(true, case.name, 1) if self.matching else true


def open_masks(settings: Evaluate) -> Found:
    """Open the truth and the masks; nothing is written, and no pixel is read.

    Raises:
        InputError: The truth has no label, no mask belongs to a case, the two share no class, or the folder holds
            other files.
    """
    truth = open_dataset(Path(settings.truth), settings.reader).labelled
    if not truth.cases:
        remedy = (
            "Give the folder that holds the scans and their labels, such as images/ and labels/"
        )
        raise InputError(settings.truth, "holds no scan with a label map", remedy)
    masks = Path(settings.masks)
    record = Record.read(masks)
    if record and settings.prediction_classes is None:
        record.classes()  # refuses a classes.json of other masks
    refuse_foreign(Path(settings.out), "evaluation.json", "overlays.npz")
    files = _masks_of(truth, masks)
    cases = truth.filter(lambda case: case.name in files)
    matching = match_folder(masks, cases, settings.prediction_classes, settings.truth_classes)
    return Found(cases, files, record, matching)


# ------------------------------------------------------------------------------------------------ internal


def _print(
    summary: pd.DataFrame, units: Mapping[str, str], lines: Sequence[str], notes: Sequence[str]
) -> None:
    rows = summary[summary["class"] == ALL_CLASSES]
    most = int(rows["n"].max())
    over = f"means over {most} cases, with 95 % intervals"
    print("scores of one case" if most == 1 else over)
    for row in rows.to_dict("records"):
        digits = 1 if row["metric"] == "hd95" else 3
        mean, low, high = (f"{row[key]:.{digits}f}" for key in ("mean", "low", "high"))
        few = f", {row['n']} case{'s' * (row['n'] != 1)}" * (row["n"] < most)
        name, unit = METRIC_NAMES.get(row["metric"], row["metric"]), units.get(row["metric"], "")
        interval = f"{low} to {high}" if math.isfinite(row["low"]) else "no interval"
        print(f"  {name:<12} {mean}{unit}  ({interval}{few})")
    for line in lines:
        print(line)
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)


def _expected(record: Record | None, files: Mapping[str, Path], scores: pd.DataFrame) -> str:
    """Whether the Dice of masks was as ``predict`` expected; of those that are as it wrote them, of unseen cases."""
    entries = record.entries if record else {}
    own = {
        name: entry
        for name, entry in entries.items()
        if record
        and name in files
        and not entry.get("trained")
        and not record.altered(files[name], name)
    }
    return kept(own, scores)


def _masks_of(truth: Dataset, masks: Path) -> dict[str, Path]:
    """The mask of each case that has one, by name; says how many have none."""
    files: dict[str, Path] = {}
    for case in truth:
        if file := named_file(masks, case.name, ENDINGS):
            files[case.name] = file
    if not files:
        problem, remedy = _unnamed(truth, masks)
        raise InputError(masks, problem, remedy)
    if missing := len(truth) - len(files):
        print(f"{missing} of {len(truth)} cases have no mask and were not scored")
    return files


def _unnamed(truth: Dataset, masks: Path) -> tuple[str, str]:
    """Why no file is the mask of a case, and what helps."""
    existing(masks)
    names = [case.name for case in truth]
    if any(named_file(masks, name, (".dcm",)) for name in names):
        return "holds DICOM-SEG, which is not read", "Predict without --format into another folder"
    problem = "holds no mask named like a case of the truth"
    held = min((path.name for path in masks.rglob("*") if path.name.endswith(ENDINGS)), default="")
    if not held:
        return problem, "Give the folder of radiffuse predict"
    problem += f": {printable(held)} for one, where a case is {printable(names[0])}"
    return problem, "Give masks that radiffuse predict made of the truth's own images"


def _write_notes(
    settings: Evaluate,
    record: Record | None,
    files: dict[str, Path],
    skipped: list[str],
    expected: str,
    lost: Sequence[str],
) -> list[str]:
    """Write ``evaluation.json``, which says what was scored; returns what a reader of the scores must know."""
    from .. import __version__

    notes = [f"{len(skipped)} cases were left out: {some(skipped)}"] if skipped else []
    if record:
        scored = [name for name in files if name not in skipped]
        trained = [n for n in scored if record.entries.get(n, {}).get("trained")]
        others = [name for name in scored if record.altered(files[name], name)]
        if trained:
            notes.append(
                f"{len(trained)} of {len(scored)} cases are of patients of the training set, so their scores are not "
                f"those of new ones: {some(trained)}"
            )
        notes += doubts([record.entries[name] for name in scored if name in record.entries])
        if others:
            notes.append(f"{len(others)} masks are not as radiffuse wrote them: {some(others)}")
    content: dict[str, Any] = {"radiffuse": __version__, "masks": settings.masks}
    models = record.described() if record else []
    content |= {"truth": settings.truth} | ({"expected": expected} if expected else {})
    content |= {"never_predicted": lost} if lost else {}
    write_json(Path(settings.out) / "evaluation.json", content | {"models": models, "notes": notes})
    return notes
