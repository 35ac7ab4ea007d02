"""What the reports share: reading a folder's files, and the sections on scores, cases and data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.scan import Array
from ..errors import InputError
from ..evaluation.calibration import expected_calibration_error
from ..evaluation.segmentation import score
from ..evaluation.tables import METRICS, summarize
from ..system.files import read_json
from ..system.files import read_yaml as _read_yaml
from .figures import METRIC_NAMES, class_bars, reliability, step_curves
from .html import Report, format_mean, format_value
from .pictures import OverlayCase, overlays

if TYPE_CHECKING:
    import pandas as pd

HOW_MEASURED = (
    "A class that is missing from both truth and prediction of a case is not counted. Where it is "
    "missing from only one of them, Dice, IoU and surface Dice are 0 and the distance is the "
    "diagonal of the image. Pixels marked as ignored belong to neither. Intervals are 95% "
    "bootstrap intervals."
)
"""The rule every table of scores needs beside it."""

STEPS_CAPTION = (
    "Mean Dice of the mask that each sampling step thought of; the last step is the result. Bars: 95% intervals over "
    "draws and patients."
)
CALIBRATION_CAPTION = (
    "How often the mask is right, by how sure the segmenter was, over pixels that the truth or the mask calls "
    "foreground. On the diagonal it is right as often as it says; the mean distance is the expected calibration error"
)

Pairs = list[tuple[str, Any]]


def read_data(path: Path) -> Mapping[str, Any]:
    """What ``data.json`` says of the data, empty where there is none.

    Raises:
        InputError: The file is no JSON object.
    """
    if not path.is_file():
        return {}
    values = read_json(path)
    if not isinstance(values, Mapping):
        raise InputError(path, "describes no data", "Remove it")
    return values


def read_yaml(path: Path) -> Mapping[str, Any]:
    """Settings of a YAML file, empty where there is none.

    Raises:
        InputError: The file is no YAML mapping.
    """
    return _read_yaml(path) if path.is_file() else {}


def read_table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV of scores; names stay text even where they look like numbers.

    Args:
        path: The CSV file.
        columns: Columns that must be there.

    Raises:
        InputError: The file is missing, no CSV, or lacks a column.
    """
    import pandas as pd

    try:
        names = dict.fromkeys(("case", "class", "group", "method"), str)
        table = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=["", "nan", "NaN"])
    except FileNotFoundError:
        raise InputError(path, "missing", "Run the command that writes it first") from None
    except (ValueError, OSError) as error:
        raise InputError(path, f"not readable as CSV ({error})", "Repair or remove it") from error
    missing = [column for column in columns if column not in table]
    if missing:
        problem = f"lacks the column {', '.join(missing)}"
        raise InputError(path, problem, f"It needs {', '.join(columns)}")
    return table


def data_section(report: Report, data: Mapping[str, Any]) -> None:
    """What the data was: where, how many, how it was split, and what was left out.

    Args:
        report: The page.
        data: Contents of ``data.json``: root, layout, cases, patients, split, skipped; all
            optional.
    """
    import pandas as pd

    report.section("Data")
    plain = ("root", "layout", "cases", "patients", "classes", "channels", "spacing", "size")
    rows: Pairs = [(name, _brief(data[name], name)) for name in plain if data.get(name) is not None]
    split = data.get("split")
    if isinstance(split, Mapping):
        rows += [(f"split: {name}", _brief(part, "cases")) for name, part in split.items()]
    report.table(pd.DataFrame([(n, str(v)) for n, v in rows], columns=["what", "value"]))
    skipped = list(data.get("skipped") or [])
    if skipped:
        report.text(f"{len(skipped)} unusable {_plural('file', len(skipped))} left out.")
        if all(isinstance(item, Mapping) for item in skipped):
            report.table(pd.DataFrame(skipped), "Files left out")
        else:
            lines = [
                item if isinstance(item, str) else ": ".join(map(str, item)) for item in skipped
            ]
            report.details("Files left out", "\n".join(lines))


def _brief(value: Any, name: str) -> str:
    if name in ("cases", "patients") and isinstance(value, list | tuple | Mapping):
        return str(len(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _plural(noun: str, number: int) -> str:
    return noun if number == 1 else f"{noun}s"


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
        row = rows.setdefault(tuple(item[name] for name in (*by, "class")), {})
        distance = item["metric"] == "hd95"
        name = f"HD95, {unit}" if distance else METRIC_NAMES.get(item["metric"], item["metric"])
        row[name] = format_mean(
            item["mean"], item["low"], item["high"], digits=1 if distance else 3
        )
        if item["metric"] == "dice":
            row["n"] = item["n"]
    records = [{**dict(zip((*by, "class"), key, strict=True)), **row} for key, row in rows.items()]
    return pd.DataFrame(records)


def case_dice(table: pd.DataFrame) -> dict[str, float]:
    """Dice of each case, the mean over its counted classes."""
    means = table.groupby("case", sort=False)["dice"].mean()
    return {str(name): float(value) for name, value in means.items()}


def scores_section(report: Report, folder: Path, title: str) -> None:
    """Scores of ``cases.csv`` and outlines of ``overlays.npz``, whichever the folder holds.

    Args:
        report: The page.
        folder: Where the two files are.
        title: Heading of the section.

    Raises:
        InputError: A file is damaged.
    """
    cases = folder / "cases.csv"
    if not cases.is_file() and not (folder / "overlays.npz").is_file():
        return
    report.section(title)
    dice: dict[str, float] = {}
    if cases.is_file():
        table = read_table(cases, ("case", "class", "dice"))
        metrics = [metric for metric in METRICS if metric in table]
        summary = summarize(table, metrics=metrics)
        unit = str(table["unit"].iloc[0]) if "unit" in table and len(table) else "px"
        caption = f"Mean over {table['case'].nunique()} cases, with 95% intervals"
        report.table(summary_table(summary, unit), caption)
        if table["class"].nunique() > 1:
            report.figure(class_bars(summary), "Mean Dice of each class, with 95% intervals")
        report.text(HOW_MEASURED)
        dice = case_dice(table)
    if (folder / "steps.csv").is_file():
        steps = read_table(folder / "steps.csv", ("case", "step", "dice"))
        report.figure(step_curves(steps.assign(method="", draw=0)), STEPS_CAPTION)
    if (folder / "calibration.csv").is_file():
        table = read_table(folder / "calibration.csv", ("pixels", "confidence", "accuracy"))
        error = expected_calibration_error(table)
        report.figure(reliability({"": table}), f"{CALIBRATION_CAPTION} ({format_value(error)}).")
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
    if not path.is_file():
        return
    cases = load_overlays(path, dice)
    if not cases:
        return
    ranked = sorted(cases, key=lambda case: -math.inf if math.isnan(case.dice) else case.dice)
    chosen = [
        ("best", ranked[-1]),
        ("median", ranked[(len(ranked) - 1) // 2]),
        ("worst", ranked[0]),
    ]
    if len(ranked) < 3:
        chosen = [("best", ranked[-1]), ("worst", ranked[0])][: len(ranked)]
    shown = [
        OverlayCase(heading, c.name, c.image, c.truth, c.prediction, c.dice)
        for heading, c in chosen
    ]
    caption = f"Chosen by Dice among {len(ranked)} cases. Outlines: truth solid, prediction dashed."
    report.figure(overlays(shown), caption)


def load_overlays(path: Path, dice: Mapping[str, float]) -> list[OverlayCase]:
    """Cases of ``overlays.npz``; those that ``dice`` lacks are scored on the arrays.

    Raises:
        InputError: The file is damaged or its arrays do not fit together.
    """
    remedy = "Remove it, or run the command that writes it again"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Array] = {
                k: file[k] for k in ("image", "truth", "prediction", "names")
            }
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(path, f"not readable ({error})", remedy) from error
    except Exception as error:  # zipfile and zlib raise their own kinds for damaged archives
        raise InputError(path, f"damaged ({error})", remedy) from error
    image, truth, prediction, names = arrays.values()
    if image.ndim != 3 or image.shape != truth.shape or image.shape != prediction.shape:
        raise InputError(
            path, f"arrays of shapes {image.shape}, {truth.shape}, {prediction.shape}", remedy
        )
    cases = []
    for one, true, predicted, name in zip(image, truth, prediction, names, strict=False):
        value = dice.get(str(name), math.nan)
        value = _dice(predicted, true) if math.isnan(value) else value
        cases.append(OverlayCase("", str(name), one, true, predicted, value))
    return cases


def _dice(prediction: Array, truth: Array) -> float:
    known = truth[truth != 255]
    number = int(max(prediction.max(), known.max(initial=0))) + 1
    values = [
        s.dice for s in score(prediction, truth, [str(i) for i in range(number)], None) if s.counted
    ]
    return float(np.mean(values)) if values else math.nan
