"""What the reports share: reading a folder's files, and the sections on scores, cases, data and settings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.arrays import read_arrays
from ..data.dataset import counted_patients
from ..data.scan import Array
from ..errors import InputError, damaged
from ..evaluation.calibration import expected_calibration_error
from ..evaluation.segmentation import score
from ..evaluation.tables import (
    METRIC_NAMES,
    METRICS,
    distance_unit,
    in_no_mask,
    never_predicted,
    read_table,
    summarize,
)
from ..system.files import read_json, read_yaml
from .figures import class_bars, reliability, step_curves
from .html import Report, format_mean, format_value
from .pictures import OverlayCase, overlays

if TYPE_CHECKING:
    import pandas as pd

HOW_MEASURED = (
    "A class that is missing from both truth and prediction of a case is not counted. Where it is "
    "missing from only one of them, Dice, IoU and surface Dice are 0 and the distance is the "
    "diagonal of the image. Pixels marked as ignored belong to neither. Intervals are "
    "for new patients and, where there are several, new draws: 95%, by Student's t and "
    "Satterthwaite's degrees of freedom."
)
"""The rule every table of scores needs beside it."""
STEPS_CAPTION = (
    "Mean Dice of the mask that each sampling step predicts; the last step is the result. Bars: 95% intervals over "
    "draws and patients."
)
CALIBRATION_CAPTION = (
    "How often the mask is right, by how sure the segmenter was, over pixels that the truth or the mask calls "
    "foreground. On the diagonal it is right as often as it says; the mean distance is the expected calibration error"
)
SETTINGS_FILES = {
    "config.yaml": "Settings",
    "study.yaml": "Settings",
    "plan.json": "Plan of the data",
}


# ------------------------------------------------------------------------------------------------ files


def of_folder(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """A report whose files may hold anything: what cannot be shown of them is one line that names the folder."""

    @functools.wraps(write)
    def guarded(folder: Path) -> Path:
        with damaged(folder):
            return write(folder)

    return guarded


def read_optional(path: Path) -> Mapping[str, Any]:
    """A mapping from JSON or YAML, empty where the file is missing.

    Raises:
        InputError: The file is no JSON object or YAML mapping.
    """
    if not path.is_file():
        return {}
    values = read_yaml(path) if path.suffix == ".yaml" else read_json(path)
    if not isinstance(values, Mapping):
        raise InputError(path, "is no JSON object", "Remove it")
    return values


# ------------------------------------------------------------------------------------------------ sections


def data_section(report: Report, data: Mapping[str, Any]) -> None:
    """What the data was: where, how many, how it was split, and what was left out.

    Args:
        report: The page.
        data: Contents of ``data.json``: root, layout, cases, patients, split, skipped; all
            optional.
    """
    import pandas as pd

    if not data:
        return
    plain = ("root", "layout", "cases", "patients", "classes", "channels", "spacing", "size")
    known = {name: data[name] for name in plain if data.get(name) is not None}
    if "patients" in known:
        known["patients"] = counted_patients(data)
    rows = [(name, _brief(value, name)) for name, value in known.items()]
    split = data.get("split")
    if isinstance(split, Mapping):
        rows += [(f"split: {name}", _brief(part, "cases")) for name, part in split.items()]
    report.table(pd.DataFrame(rows, columns=["what", "value"]))
    if skipped := list(data.get("skipped") or []):
        files = "file" if len(skipped) == 1 else "files"
        report.text(f"{len(skipped)} unusable {files} left out.")
        if all(isinstance(item, Mapping) for item in skipped):
            report.table(pd.DataFrame(skipped), "Files left out")
        else:
            lines = [i if isinstance(i, str) else ": ".join(map(str, i)) for i in skipped]
            report.details("Files left out", "\n".join(lines))


def _brief(value: object, name: str) -> str:
    if name == "cases" and isinstance(value, list | tuple | Mapping):
        return str(len(value))
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def settings_section(report: Report, folder: Path) -> None:
    """The files that say what ran, as they are."""
    for name, title in SETTINGS_FILES.items():
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8", errors="replace")
            report.details(f"{title} ({name})", text)


def plan_section(report: Report, folder: Path) -> None:
    """What was decided and why, what it took, and what grids allow; nothing where no plan decided."""
    import pandas as pd

    from ..data.plan import read_plan
    from ..train.planning.plan_text import CEILING, STRUCTURES, grids, rows, structures

    path = folder / "plan.json"
    if not path.is_file() or not ((plan := read_plan(path)).reasons or plan.colored):
        return
    decided = pd.DataFrame(rows(plan), columns=["", "plan", "why"])
    cost = read_optional(folder / "cost.json")
    for row, name in (("time", "minutes"), ("memory", "memory_gib")):
        if name in (took := cost.get("measured", {})):
            unit = "min" if name == "minutes" else "GiB"
            decided.loc[decided[""] == row, "why"] += f"; it took {took[name]:.1f} {unit}"
    report.table(decided, "What was decided for these images, this machine and the time")
    if plan.structures is not None:
        title, held = structures(plan.structures)
        report.table(pd.DataFrame(held, columns=list(STRUCTURES)), title.capitalize())
    if plan.ceilings:
        names, limits = grids(plan)
        table = pd.DataFrame(limits, columns=["class", *names])
        report.table(table, CEILING[0].upper() + CEILING[1:])


def summary_table(summary: pd.DataFrame, unit: str, by: tuple[str, ...] = ()) -> pd.DataFrame:
    """The summary as a reader wants it: a row per class, mean and interval per metric.

    Args:
        summary: Result of ``summarize``.
        unit: Unit of distances.
        by: Columns before the class.
    """
    import pandas as pd

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in summary.to_dict("records"):
        keys = {name: item[name] for name in (*by, "class")}
        row = rows.setdefault(tuple(keys.values()), keys)
        metric = item["metric"]
        name, digits = METRIC_NAMES.get(metric, metric), 3
        if metric == "hd95":
            name, digits = f"HD95, {unit}", 1
        row[name] = format_mean(item["mean"], item["low"], item["high"], digits=digits)
        if metric == "dice":
            row["n"] = item["n"]
    return pd.DataFrame(list(rows.values()))


def scored_classes(table: pd.DataFrame) -> int:
    """How many classes have a Dice: none has where neither truths nor masks show any."""
    return int(table.loc[table["dice"].notna(), "class"].nunique())


def scores_section(report: Report, folder: Path) -> None:
    """Scores, sampling steps, calibration and outlines of cases, whichever the folder holds.

    Args:
        report: The page.
        folder: Where ``cases.csv``, ``steps.csv``, ``calibration.csv`` and ``overlays.npz`` are.

    Raises:
        InputError: A file is damaged.
    """
    dice: dict[str, float] = {}
    if (folder / "cases.csv").is_file():
        table = read_table(folder / "cases.csv", "case", "class", "dice")
        summary = summarize(table, metrics=[metric for metric in METRICS if metric in table])
        unit = distance_unit(table)
        caption = f"Mean over {table['case'].nunique()} cases, with 95% intervals"
        report.table(summary_table(summary, unit), caption)
        if scored_classes(table) > 1:
            report.figure(class_bars(summary), "Mean Dice of each class, with 95% intervals")
        report.text(HOW_MEASURED)
        if lost := in_no_mask(never_predicted(table), table["case"].nunique()):
            report.text(f"Warning: {lost}, though label maps show it.")
        means = table.groupby("case", sort=False)["dice"].mean()
        dice = {str(name): float(value) for name, value in means.items()}
    if (folder / "steps.csv").is_file():
        steps = read_table(folder / "steps.csv", "case", "step", "dice")
        report.figure(step_curves(steps.assign(method="", draw=0)), STEPS_CAPTION)
    if (folder / "calibration.csv").is_file():
        table = read_table(folder / "calibration.csv", "pixels", "confidence", "accuracy")
        error = format_value(expected_calibration_error(table))
        report.figure(reliability(table), f"{CALIBRATION_CAPTION} ({error}).")
    overlays_section(report, folder / "overlays.npz", dice)


def overlays_section(report: Report, path: Path, dice: Mapping[str, float]) -> None:
    """Best, median and worst of the cases in ``overlays.npz``, if the file is there.

    Args:
        report: The page.
        path: Arrays image ``(N, H, W)``, truth, prediction and names ``(N,)``.
        dice: Dice by name; a case without one is scored on the arrays.

    Raises:
        InputError: The file is damaged or its arrays do not fit together.
    """
    cases = load_overlays(path, dice) if path.is_file() else []
    if not cases:
        return
    ranked = sorted(cases, key=lambda case: -math.inf if math.isnan(case.dice) else case.dice)
    places = {"best": -1, "median": (len(ranked) - 1) // 2, "worst": 0}
    if len(ranked) < 3:
        places = {"best": -1, "worst": 0} if len(ranked) == 2 else {"best": -1}
    shown = [replace(ranked[place], heading=heading) for heading, place in places.items()]
    caption = f"Chosen by Dice among {len(ranked)} cases. Outlines: truth solid, prediction dashed."
    report.figure(overlays(shown), caption)


def load_overlays(path: Path, dice: Mapping[str, float]) -> list[OverlayCase]:
    """Cases of ``overlays.npz``; those that ``dice`` lacks are scored on the arrays.

    Raises:
        InputError: The file is damaged or its arrays do not fit together.
    """
    columns = ("image", "truth", "prediction", "names")
    image, truth, prediction, names = map(read_arrays(path, *columns).__getitem__, columns)
    if image.ndim != 3 or image.shape != truth.shape or image.shape != prediction.shape:
        problem = f"arrays of shapes {image.shape}, {truth.shape}, {prediction.shape}"
        raise InputError(path, problem, "Remove it, or run the command that writes it again")
    cases = []
    for one, true, predicted, name in zip(image, truth, prediction, names, strict=False):
        value = dice.get(str(name), math.nan)
        value = _dice(predicted, true) if math.isnan(value) else value
        cases.append(OverlayCase("", str(name), one, true, predicted, value))
    return cases


def _dice(prediction: Array, truth: Array) -> float:
    known = truth[truth != 255]
    number = int(max(prediction.max(), known.max(initial=0))) + 1
    scores = score(prediction, truth, [str(i) for i in range(number)], None)
    values = [one.dice for one in scores if one.counted]
    return float(np.mean(values)) if values else math.nan
