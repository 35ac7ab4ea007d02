"""The report of a study: scores by number of labels, with intervals, and which differences hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..evaluation.statistics import PairedTest, clustered_difference, holm, verdict
from ..evaluation.tables import ALL_CLASSES, METRICS, over_classes, summarize
from ..system.files import write_atomic
from . import parts
from .figures import class_bars, label_efficiency, paired_dots, step_curves
from .html import Report, format_interval, format_p

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("method", "labels", "draw", "case", "group", "class", "dice", "iou", "hd95", "nsd")
"""Columns that ``results.csv`` must have."""

COMPARED = ("dice", "iou", "nsd")
"""Metrics that are compared between methods; more is better in each."""

PAIR = ["draw", "case", "group"]


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


def write_study_report(folder: Path) -> Path:
    """Write the report of a study and its tables ``summary``, ``comparisons`` and ``gaps`` (CSV).

    Read are ``results.csv`` (``COLUMNS``; one row per method, budget, draw, case and class), and,
    where present, ``study.yaml`` (settings; ``reference`` names the method that the others are
    compared with, else ``scratch``, else the first), ``data.json`` and ``overlays.npz``.

    Args:
        folder: Folder of the study.

    Returns:
        Path of the report.

    Raises:
        InputError: A file is missing or damaged, or the report cannot be written.
    """
    settings = parts.read_yaml(folder / "study.yaml")
    table = _read_results(folder / "results.csv")
    methods = list(dict.fromkeys(table["method"]))
    reference = str(
        settings.get("reference") or ("scratch" if "scratch" in methods else methods[0])
    )
    if reference not in methods:
        problem = f"the reference {reference} is not among the methods {', '.join(methods)}"
        raise InputError(folder / "study.yaml", problem, "Name one of them as reference")
    cases = over_classes(table)
    summary = summarize(table, by=("method", "labels"))
    compared = compare(cases, reference)
    for name, rows in (
        ("summary.csv", summary),
        ("comparisons.csv", compared.against),
        ("gaps.csv", compared.gaps),
    ):
        write_atomic(
            folder / name, rows.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        )
    number = cases["case"].nunique()
    draws = cases["draw"].nunique()
    subtitle = (
        f"Label efficiency: {len(methods)} methods, {draws} draws of the labeled images, "
        f"{number} test cases"
    )
    report = Report(folder.resolve().name, subtitle)
    _efficiency(report, cases, methods, compared, reference)
    _means(report, table, summary, number, draws)
    if not compared.against.empty:
        _comparisons(report, cases, compared, reference)
    _steps(report, folder / "steps.csv")
    if (folder / "overlays.npz").is_file():
        report.section("Cases")
        parts.overlays_section(report, folder / "overlays.npz", {})
    data = parts.read_data(folder / "data.json")
    if data:
        parts.data_section(report, data)
    if settings:
        report.section("Settings")
        text = (folder / "study.yaml").read_text(encoding="utf-8", errors="replace")
        report.details("Settings (study.yaml)", text)
    return report.save(folder / "report.html")


def _steps(report: Report, path: Path) -> None:
    """Dice along the sampling steps at the largest budget, if the study has mask diffusion in it."""
    if not path.is_file():
        return
    table = parts.read_table(path, ("method", "labels", "draw", "case", "group", "step", "dice"))
    most = table[table["labels"] == table["labels"].max()]
    report.section("Along the sampling")
    report.figure(step_curves(most), f"{parts.STEPS_CAPTION} {most['labels'].iloc[0]:g} labels.")


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
    leads = {(m, n): _lead(cases, m, reference, n) for m in others for n in budgets}
    against, gaps = [], []
    for metric in COMPARED:
        rows = []
        for labels in budgets:
            for method in others:
                lead = leads[method, labels]
                if len(lead):
                    names = {
                        "metric": metric,
                        "labels": labels,
                        "method": method,
                        "reference": reference,
                    }
                    rows.append(names | _test(lead, lead[f"{metric}_a"], lead[f"{metric}_b"]))
        against += _judge(rows)
        rows = []
        for method in others if len(budgets) > 1 else []:
            pair = leads[method, budgets[0]].merge(
                leads[method, budgets[-1]], on=PAIR, suffixes=("0", "1")
            )
            if len(pair):
                first = pair[f"{metric}_a0"] - pair[f"{metric}_b0"]
                last = pair[f"{metric}_a1"] - pair[f"{metric}_b1"]
                names = {"metric": metric, "method": method, "reference": reference,
                         "fewest": budgets[0], "most": budgets[-1]}  # fmt: skip
                rows.append(names | _test(pair, first, last))
        gaps += _judge(rows)
    return Comparisons(pd.DataFrame(against), pd.DataFrame(gaps))


def _lead(cases: pd.DataFrame, method: str, reference: str, labels: float) -> pd.DataFrame:
    """Pairs of a method and the reference on the same draw and case."""
    at = cases[cases["labels"] == labels]
    first, second = (at[at["method"] == name] for name in (method, reference))
    return first[[*PAIR, *COMPARED]].merge(
        second[[*PAIR, *COMPARED]], on=PAIR, suffixes=("_a", "_b")
    )


def _test(pairs: pd.DataFrame, a: pd.Series[float], b: pd.Series[float]) -> dict[str, object]:
    result: PairedTest = clustered_difference(
        a.to_numpy(dtype=np.float64), b.to_numpy(dtype=np.float64),
        draw=pairs["draw"].tolist(), group=pairs["group"].tolist(),
    )  # fmt: skip
    return {
        "difference": result.difference, "low": result.low, "high": result.high,
        "p_value": result.p_value, "n": result.n, "draws": pairs["draw"].nunique(),
        "note": result.note,
    }  # fmt: skip


def _judge(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """Add Holm's adjusted p and the verdict to the rows of one metric."""
    adjusted = holm(float(str(row["p_value"])) for row in rows)
    for row, p in zip(rows, adjusted, strict=True):
        note = row.pop("note")
        low, high = float(str(row["low"])), float(str(row["high"]))
        row |= {"p_holm": float(p), "verdict": verdict(low, high, float(p)), "note": note}
    return rows


def _read_results(path: Path) -> pd.DataFrame:
    import pandas as pd

    table = parts.read_table(path, COLUMNS)
    if table.empty:
        raise InputError(path, "holds no rows", "Run the study first")
    for column in ("labels", *METRICS):
        try:
            table[column] = pd.to_numeric(table[column])
        except (ValueError, TypeError) as error:
            raise InputError(
                path, f"column {column} holds text ({error})", "Write numbers"
            ) from error
    table["group"] = table["group"].fillna(table["case"])
    return table


def _efficiency(
    report: Report, cases: pd.DataFrame, methods: list[str], compared: Comparisons, reference: str
) -> None:
    rows = compared.against
    title = "Dice by number of labels"
    if not rows.empty:
        dice = rows[rows["metric"] == "dice"]
        fewest = dice[dice["labels"] == dice["labels"].min()]
        best = fewest.sort_values("difference").iloc[-1]
        title = _finding(best, reference)
    report.section("Label efficiency")
    report.figure(
        label_efficiency(cases, methods=methods, title=title),
        "Mean Dice on the test cases against the number of labeled images. Bars: 95% intervals "
        "over draws and patients. Faint dots: single draws.",
    )


def _finding(row: pd.Series[float], reference: str) -> str:
    labels = _labels(row["labels"])
    if str(row["verdict"]) != "holds":
        return f"No method is shown to be above {reference} with {labels}"
    return f"With {labels}, {row['method']} is {row['difference']:.3f} Dice above {reference}"


def _labels(number: float) -> str:
    return f"{number:g} label" + ("" if number == 1 else "s")


def _means(
    report: Report, table: pd.DataFrame, summary: pd.DataFrame, number: int, draws: int
) -> None:
    unit = str(table["unit"].iloc[0]) if "unit" in table else "mm"
    overall = summary[summary["class"] == ALL_CLASSES]
    shown = parts.summary_table(overall, unit, by=("method", "labels")).drop(columns="class")
    report.section("Scores")
    report.table(
        shown.sort_values("labels", kind="stable"),
        f"Mean over {number} test cases and {draws} draws, with 95% intervals",
    )
    if table["class"].nunique() > 1:
        most = summary[summary["labels"] == summary["labels"].max()]
        means = most[(most["class"] == ALL_CLASSES) & (most["metric"] == "dice")]
        best = str(means.sort_values("mean")["method"].iloc[-1])
        caption = f"Mean Dice by class: {best}, {most['labels'].iloc[0]:g} labels"
        report.figure(class_bars(most[most["method"] == best]), caption)
    report.text(parts.HOW_MEASURED)


def _comparisons(
    report: Report, cases: pd.DataFrame, compared: Comparisons, reference: str
) -> None:
    report.section(f"Against {reference}")
    dice = compared.against[compared.against["metric"] == "dice"]
    report.table(
        _readable(dice, ["labels", "method"]),
        f"Dice minus that of {reference}, paired by draw and case",
    )
    gaps = compared.gaps
    if not gaps.empty:
        gaps = gaps[gaps["metric"] == "dice"]
        few, most = gaps["fewest"].iloc[0], gaps["most"].iloc[0]
        report.table(
            _readable(gaps, ["method"]).rename(columns={"difference": "shrinks by"}),
            f"Lead over {reference} with {_labels(few)}, minus that with {most:g}",
        )
    report.text(
        "Intervals resample draws and patients (pigeonhole bootstrap). The test is Wilcoxon's "
        "signed-rank test on one mean difference per patient; p is adjusted by Holm's method over "
        "the comparisons of a table. A difference holds where the interval lies above 0 and "
        "adjusted p is below 0.05; it does not hold where the interval lies below 0 with such a p; "
        "else it is not decided."
    )
    best = dice.sort_values("difference").iloc[-1]
    pairs = _lead(cases, str(best["method"]), reference, float(best["labels"]))
    means = pairs.groupby("case")[["dice_a", "dice_b"]].mean().dropna()
    if len(means) > 1:
        labels = _labels(best["labels"])
        figure = paired_dots(
            means["dice_a"], means["dice_b"], names=(str(best["method"]), reference)
        )
        report.figure(figure, f"Every test case with {labels}, mean over draws")


def _readable(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    shown = rows[[*names, "difference"]].copy()
    shown["95% interval"] = [
        format_interval(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)
    ]
    shown["p"] = [format_p(p) for p in rows["p_value"]]
    shown["p, Holm"] = [format_p(p) for p in rows["p_holm"]]
    shown["patients"] = rows["n"]
    shown["verdict"] = [
        f"{v} ({note})" if note and not math.isfinite(p) else v
        for v, note, p in zip(rows["verdict"], rows["note"], rows["p_value"], strict=True)
    ]
    return shown
