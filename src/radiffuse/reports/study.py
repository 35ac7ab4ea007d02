"""The report of a study: scores by number of labels, with intervals, and which differences are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.class_names import ALL_CLASSES
from ..errors import InputError
from ..evaluation.statistics import BETTER, MARGIN, clustered_difference, holm, verdict
from ..evaluation.tables import distance_unit, over_classes, read_table, summarize
from . import parts
from .exports import save_figure, save_table
from .figures import class_bars, label_efficiency, paired_dots, step_curves
from .html import Report, format_interval, format_p
from .origin import cost_table, origin_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("method", "labels", "draw", "case", "group", "class", "dice", "iou", "hd95", "nsd")
"""Columns that ``results.csv`` must have."""
COMPARED = ("dice", "iou", "nsd")
"""Metrics that are compared between methods; more is better in each."""
PAIR = ["draw", "case", "group"]
HOW_COMPARED = (
    "Intervals and tests are for new patients and new draws of the labels: variance components of "
    "draw, patient and rest, Satterthwaite's degrees of freedom, Student's t. p is adjusted by "
    "Holm's method over the comparisons of a table. The verdict is better or worse where adjusted "
    f"p is below 0.05; no difference larger than {MARGIN:g} where the whole interval is nearer to 0 "
    "than that, a difference too small to matter in use; else it is not decided. One draw says "
    "nothing about other draws."
)


@dataclass(frozen=True)
class Comparisons:
    """What was compared.

    Attributes:
        against: One row per metric, budget and method against the reference.
        gaps: One row per metric and method: its lead with the fewest labels minus its lead with the
            most.
    """

    against: pd.DataFrame
    gaps: pd.DataFrame


@parts.of_folder
def write_study_report(folder: Path) -> Path:
    """Write the report of a study, its tables (CSV, LaTeX) and its figures (SVG, PDF).

    Read are ``results.csv`` (``COLUMNS``; one row per method, budget, draw, case and class), and,
    where present, ``study.yaml`` (settings; ``reference`` names the method that the others are
    compared with, else ``scratch``, else the first), ``data.json``, ``steps.csv`` and ``overlays.npz``.

    Args:
        folder: Folder of the study.

    Returns:
        Path of the report.

    Raises:
        InputError: A file is missing or damaged, or the report cannot be written.
    """
    settings = parts.read_optional(folder / "study.yaml")
    table = _read_results(folder / "results.csv")
    methods = list(dict.fromkeys(table["method"]))
    default = "scratch" if "scratch" in methods else methods[0]
    reference = str(settings.get("reference") or default)
    if reference not in methods:
        problem = f"the reference {reference} is not among the methods {', '.join(methods)}"
        raise InputError(folder / "study.yaml", problem, "Name one of them as reference")
    study = _Study(table, over_classes(table), reference)
    for name, rows in (
        ("summary", study.summary),
        ("comparisons", study.compared.against),
        ("gaps", study.compared.gaps),
    ):
        save_table(rows, folder / name)
    subtitle = (
        f"Label efficiency: {len(methods)} methods, {study.draws} draw{'s' * (study.draws != 1)} "
        f"of the labelled images, {study.number} test cases"
    )
    report = Report(folder.resolve().name, subtitle)
    report.fill(
        {
            "Label efficiency": lambda: _efficiency(report, study, folder),
            "Scores": lambda: _scores(report, study, folder),
            f"Against {reference}": lambda: _comparisons(report, study, folder),
            "Along the sampling": lambda: _steps(report, folder),
            "Cases": lambda: parts.overlays_section(report, folder / "overlays.npz", {}),
            "Data": lambda: parts.data_section(report, parts.read_optional(folder / "data.json")),
            "How it was made": lambda: _how(report, study, folder, settings),
            "Settings": lambda: parts.settings_section(report, folder),
        }
    )
    return report.save(folder / "report.html")


def compare(cases: pd.DataFrame, reference: str) -> Comparisons:
    """Every method against the reference: at each budget, and how its lead changes with labels.

    p-values are adjusted by Holm's method over all rows of a metric, in each of the two tables.

    Args:
        cases: One row per method, budget, draw and case (see ``over_classes``).
        reference: The method that the others are compared with.
    """
    import pandas as pd

    others = [name for name in dict.fromkeys(cases["method"]) if name != reference]
    budgets = sorted(set(cases["labels"]))
    fewest, most = budgets[0], budgets[-1]
    leads = {(m, n): _lead(cases, m, reference, n) for m in others for n in budgets}
    against, gaps = [], []
    for metric in COMPARED:
        a, b = f"{metric}_a", f"{metric}_b"
        against += _judged(
            [
                {"metric": metric, "labels": labels, "method": method, "reference": reference}
                | _test(lead, lead[a], lead[b])
                for labels in budgets
                for method in others
                if len(lead := leads[method, labels])
            ]
        )
        pairs = {
            method: leads[method, fewest].merge(leads[method, most], on=PAIR, suffixes=("0", "1"))
            for method in (others if len(budgets) > 1 else ())
        }
        gaps += _judged(
            [
                {"metric": metric, "method": method, "reference": reference, "fewest": fewest,
                 "most": most}
                | _test(pair, pair[f"{a}0"] - pair[f"{b}0"], pair[f"{a}1"] - pair[f"{b}1"])
                for method, pair in pairs.items()
                if len(pair)
            ]
        )  # fmt: skip
    return Comparisons(pd.DataFrame(against), pd.DataFrame(gaps))


# ------------------------------------------------------------------------------------------------ numbers


@dataclass(frozen=True)
class _Study:
    """Results, case by case and class by class, and what follows from them."""

    table: pd.DataFrame
    cases: pd.DataFrame
    reference: str

    @cached_property
    def summary(self) -> pd.DataFrame:
        return summarize(self.table, by=("method", "labels"))

    @cached_property
    def compared(self) -> Comparisons:
        return compare(self.cases, self.reference)

    @property
    def number(self) -> int:
        return int(self.cases["case"].nunique())

    @property
    def draws(self) -> int:
        return int(self.cases["draw"].nunique())


def _lead(cases: pd.DataFrame, method: str, reference: str, labels: float) -> pd.DataFrame:
    """Pairs of a method and the reference on the same draw and case."""
    at = cases[cases["labels"] == labels][["method", *PAIR, *COMPARED]]
    first, second = (at[at["method"] == m].drop(columns="method") for m in (method, reference))
    return first.merge(second, on=PAIR, suffixes=("_a", "_b"))


def _test(pairs: pd.DataFrame, a: pd.Series[float], b: pd.Series[float]) -> dict[str, object]:
    result = clustered_difference(
        a.to_numpy(dtype=np.float64), b.to_numpy(dtype=np.float64),
        draw=pairs["draw"].tolist(), group=pairs["group"].tolist(),
    )  # fmt: skip
    return {
        "difference": result.difference, "low": result.low, "high": result.high,
        "p_value": result.p_value, "n": result.n, "draws": result.draws,
        "note": result.note,
    }  # fmt: skip


def _judged(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Add Holm's adjusted p and the verdict to the rows of one metric."""
    adjusted = holm(float(str(row["p_value"])) for row in rows)
    for row, p in zip(rows, adjusted, strict=True):
        note = row.pop("note")
        low, high, draws = (float(str(row[name])) for name in ("low", "high", "draws"))
        found = verdict(low, high, float(p), draws=int(draws))
        row |= {"p_holm": float(p), "verdict": found, "note": note}
    return rows


def _read_results(path: Path) -> pd.DataFrame:
    table = read_table(path, *COLUMNS)
    if table.empty:
        raise InputError(path, "holds no rows", "Run the study first")
    table["group"] = table["group"].fillna(table["case"])
    return table


def _of_dice(rows: pd.DataFrame) -> pd.DataFrame:
    return rows if rows.empty else rows[rows["metric"] == "dice"]


# ------------------------------------------------------------------------------------------------ sections


def _efficiency(report: Report, study: _Study, folder: Path) -> None:
    dice, title = _of_dice(study.compared.against), None
    if not dice.empty:
        fewest = dice[dice["labels"] == dice["labels"].min()]
        title = _finding(fewest.sort_values("difference").iloc[-1], study.reference)
    figure, budgets = label_efficiency(study.cases, title=title), {*study.cases["labels"]}
    against = "against the number of labelled images"
    if len(budgets) == 1:
        against = f"with {_labels(*budgets)}"
    _figure(
        report,
        figure,
        folder / "label-efficiency",
        f"Mean Dice on the test cases {against}. Bars: 95% intervals "
        "over draws and patients. Faint dots: single draws.",
    )


def _finding(row: pd.Series[float], reference: str) -> str:
    labels = _labels(row["labels"])
    if not str(row["verdict"]).startswith(BETTER):
        return f"No method is shown to be above {reference} with {labels}"
    reach = str(row["verdict"]).removeprefix(BETTER)
    return (
        f"With {labels}, {row['method']} is {row['difference']:.3f} Dice above {reference}{reach}"
    )


def _labels(number: float) -> str:
    return f"{number:g} label" + ("" if number == 1 else "s")


def _scores(report: Report, study: _Study, folder: Path) -> None:
    summary, table = study.summary, study.table
    unit = distance_unit(table)
    overall = summary[summary["class"] == ALL_CLASSES]
    shown = parts.summary_table(overall, unit, by=("method", "labels")).drop(columns="class")
    report.table(
        shown.sort_values("labels", kind="stable"),
        f"Mean over {study.number} test cases and {study.draws} draw{'s' * (study.draws != 1)}, with 95% intervals",
    )
    if parts.scored_classes(table) > 1:
        most = summary[summary["labels"] == summary["labels"].max()]
        means = _of_dice(most[most["class"] == ALL_CLASSES])
        best = str(means.sort_values("mean")["method"].iloc[-1])
        caption = f"Mean Dice by class: {best}, {most['labels'].iloc[0]:g} labels"
        _figure(report, class_bars(most[most["method"] == best]), folder / "by-class", caption)
    report.text(parts.HOW_MEASURED)


def _comparisons(report: Report, study: _Study, folder: Path) -> None:
    reference = study.reference
    dice, gaps = _of_dice(study.compared.against), _of_dice(study.compared.gaps)
    if dice.empty:
        return
    report.table(
        _readable(dice, ["labels", "method"]),
        f"Dice minus that of {reference}, paired by draw and case",
    )
    if not gaps.empty:
        few, most = gaps["fewest"].iloc[0], gaps["most"].iloc[0]
        report.table(
            _readable(gaps, ["method"]).rename(columns={"difference": "shrinks by"}),
            f"Lead over {reference} with {_labels(few)}, minus that with {most:g}",
        )
    report.text(HOW_COMPARED)
    best = dice.sort_values("difference").iloc[-1]
    method, labels = str(best["method"]), float(best["labels"])
    pairs = _lead(study.cases, method, reference, labels)
    means = pairs.groupby("case")[["dice_a", "dice_b"]].mean().dropna()
    if len(means) > 1:
        figure = paired_dots(means["dice_a"], means["dice_b"], names=(method, reference))
        caption = (
            f"Every test case with {_labels(labels)}, mean over draws. All cases share the draws of the labels, so how "
            "many of them are above is no test; the table is"
        )
        _figure(report, figure, folder / "by-case", caption)


def _readable(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    shown = rows[[*names, "difference"]].copy()
    shown["95% interval"] = list(map(format_interval, rows["low"], rows["high"]))
    shown["p"] = rows["p_value"].map(format_p)
    shown["p, Holm"] = rows["p_holm"].map(format_p)
    shown["patients"] = rows["n"]
    shown["verdict"] = [
        f"{found} ({note})" if note else found
        for found, note in zip(rows["verdict"], rows["note"], strict=True)
    ]
    return shown


def _how(report: Report, study: _Study, folder: Path, settings: Mapping[str, Any]) -> None:
    """What repeats the study, and what it took."""
    unit = distance_unit(study.table)
    known = {
        "compared with": study.reference,
        "draws of the labels": ", ".join(f"{draw:g}" for draw in sorted(set(study.table["draw"]))),
        "tolerance of surface Dice": f"{settings['tolerance']:g} {unit}" if "tolerance" in settings else "",
        "unit of distances": unit,
    }  # fmt: skip
    command = f"radiffuse study --config study.yaml --out {folder.name}"
    report.table(origin_table(folder, command, known))
    for sentence in parts.read_optional(folder / "data.json").get("unused", ()):
        report.text(f"{sentence}.")
    if len(costs := cost_table(folder)):
        save_table(costs, folder / "costs")
        named = costs.rename(columns={"memory_gib": "memory, GiB"})
        report.table(named, "What a training took: means over the draws")


def _steps(report: Report, folder: Path) -> None:
    """Dice along the sampling steps at the largest budget, if the study has mask diffusion in it."""
    path = folder / "steps.csv"
    if not path.is_file():
        return
    table = read_table(path, "method", "labels", "draw", "case", "group", "step", "dice")
    most = table[table["labels"] == table["labels"].max()]
    caption = f"{parts.STEPS_CAPTION} {most['labels'].iloc[0]:g} labels."
    _figure(report, step_curves(most), folder / "sampling-steps", caption)


def _figure(report: Report, figure: Figure, path: Path, caption: str) -> None:
    """A figure in the page, and beside it as SVG and PDF."""
    save_figure(figure, path)
    report.figure(figure, caption)
