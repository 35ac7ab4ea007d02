"""``radiffuse evaluate``: scores of a folder of masks against a labelled data set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import config
from ..errors import InputError
from ..system.files import sweep, write_atomic

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..evaluation.matching import Matching


def evaluate(settings: config.Evaluate) -> Path:
    """Score a folder of masks against a labelled data set.

    Returns:
        The folder with ``cases.csv``, ``summary.csv``, ``overlays.npz``, ``report.html`` and, where classes were
        matched by name, ``classes.csv``.

    Raises:
        InputError: No mask belongs to a case, a mask does not fit its case, or the two share no class.
    """
    import pandas as pd
    from rich.console import Console

    from ..data.fingerprint import find_classes
    from ..data.layouts import open_dataset
    from ..data.scan import Scan
    from ..evaluation.folders import ALL_CLASSES, summarize
    from ..evaluation.writing import write_evaluation
    from ..reports.run import write_evaluation_report

    truth = open_dataset(Path(settings.truth), settings.reader).labelled
    masks, out = Path(settings.masks), Path(settings.out)
    sweep(out)
    found = {case.name: path for case in truth if (path := _mask_of(masks, case.name))}
    if not found:
        raise InputError(
            masks,
            "holds no mask named like a case of the truth",
            "Give the folder of radiffuse predict",
        )
    cases = truth.filter(lambda case: case.name in found)
    matching = _matching(settings, cases)

    def quadruples() -> Iterator[tuple[str, Scan, Scan, Scan]]:
        from ..data.cases import read_case_image, read_case_label
        from ..data.readers import read_label

        for case in cases:
            image = read_case_image(case)
            mask, true = read_label(found[case.name]), read_case_label(case)
            if matching is not None:
                mask = matching.translate(mask, str(found[case.name]), 0)
                true = matching.translate(true, case.name, 1)
            yield case.name, image, mask, true

    groups = {case.name: case.group for case in cases}
    classes = matching.classes if matching else find_classes(cases)
    path = write_evaluation(quadruples(), classes, out, tolerance=settings.tolerance, groups=groups)
    if matching is None:
        (out / "classes.csv").unlink(missing_ok=True)  # of an evaluation before this one
    else:
        table = pd.DataFrame(matching.rows())
        write_atomic(out / "classes.csv", table.to_csv(index=False))
    summary = summarize(pd.read_csv(path, dtype={"case": str, "group": str, "class": str}))
    write_atomic(out / "summary.csv", summary.to_csv(index=False))
    write_evaluation_report(out)
    overall = summary[summary["class"] == ALL_CLASSES]
    console = Console()
    for row in overall.itertuples():
        console.print(
            f"{row.metric:<5} {row.mean:.4f}  ({row.low:.4f} to {row.high:.4f}, n = {row.n})"
        )
    missing = len(truth) - len(found)
    if missing:
        console.print(f"{missing} of {len(truth)} cases have no mask and were not scored")
    if matching is not None:
        for line in matching.lines():
            console.print(line)
    console.print(f"report: {out / 'report.html'}")
    return out


def _matching(settings: config.Evaluate, truth: Dataset) -> Matching | None:
    """How the classes of masks and truth belong together by name; None where they are compared by value."""
    from ..data.class_names import numbered, read_classes
    from ..evaluation.matching import match

    masks = Path(settings.masks) / "classes.json"
    true = numbered(truth.classes)
    predicted = read_classes(str(masks)) if masks.is_file() else {}
    if all(re.fullmatch(r"class-\d+", name) for value, name in predicted.items() if value):
        predicted = {}  # names that were never given
    if settings.truth_classes is not None:
        true = read_classes(settings.truth_classes)
    if settings.prediction_classes is not None:
        predicted = read_classes(settings.prediction_classes)
    if true and predicted:
        found = match(predicted, true)
        return None if found.same else found
    for side, names, other in (
        ("prediction", predicted, settings.truth_classes),
        ("truth", true, settings.prediction_classes),
    ):
        if other is not None and not names:
            where = settings.masks if side == "prediction" else settings.truth
            problem = "does not say what its classes are called"
            raise InputError(where, problem, f"Say so with --{side}-classes")
    return None


def _mask_of(masks: Path, name: str) -> Path | None:
    for suffix in (".png", ".nii.gz", ".nii"):
        path = masks / f"{name}{suffix}"
        if path.is_file():
            return path
    return None
