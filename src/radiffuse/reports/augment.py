"""The report of the study of augmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import read_json
from .html import Report, format_mean
from .palette import MARKERS, SERIES
from .parts import read_table
from .style import styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MEAN = "mean"


def write_augment_report(folder: Path) -> Path:
    """Write ``report.html`` from ``summary.csv`` and ``warnings.json``.

    Raises:
        InputError: A file is missing or not readable.
    """
    summary = read_table(folder / "summary.csv", ("pool", "arm", "class", "auroc", "low", "high"))
    first = summary.iloc[0]
    report = Report("What synthetic films add to classification", f"{first['n']} test films")
    report.facts({"Test films": int(first["n"]), "Draws of each pool": int(first["draws"])})
    if warnings := read_json(folder / "warnings.json"):
        report.section("Warnings")
        report.text(*warnings)
    report.section("Mean AUROC")
    whole = summary[summary["class"] == MEAN]
    report.figure(
        pool_curves(whole),
        "Mean over classes against the number of real films; 95 % bootstrap intervals over draws and patients.",
    )
    report.table(
        _shown(whole),
        "Gain: AUROC minus that of the same real films alone, paired by draw and patient; an interval that holds 0 "
        "decides nothing.",
    )
    report.section("By class")
    report.table(_shown(summary[summary["class"] != MEAN]), "Each class against the others.")
    return report.save(folder / "report.html")


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for row in summary.to_dict("records"):
        shown = {"real films": int(row["pool"]), "trained on": row["arm"], "class": row["class"]}
        shown["AUROC"] = format_mean(row["auroc"], row["low"], row["high"])
        gain = float(row.get("gain", math.nan))
        known = not math.isnan(gain)
        shown["gain"] = format_mean(gain, row["gain_low"], row["gain_high"]) if known else ""
        rows.append(shown)
    return pd.DataFrame(rows)


@styled
def pool_curves(summary: pd.DataFrame) -> Figure:
    """AUROC against the number of real films, a line per arm.

    Args:
        summary: Rows of one class.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.2))
    axes = figure.subplots()
    axes.set_xscale("log")
    names = list(dict.fromkeys(summary["arm"]))
    for i, name in enumerate(names):
        rows = summary[summary["arm"] == name].sort_values("pool")
        shift = 1 + 0.03 * (i - len(names) / 2)  # intervals side by side
        x = [pool * shift for pool in rows["pool"]]
        color, marker = SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]
        axes.plot(x, rows["auroc"], color=color, marker=marker, markersize=5, label=name)
        axes.vlines(x, rows["low"], rows["high"], color=color, linewidth=1.2)
    pools = sorted(set(summary["pool"]))
    axes.set_xticks(pools, [str(pool) for pool in pools])
    axes.minorticks_off()
    axes.set_xlabel("real films")
    axes.set_ylabel("AUROC")
    axes.legend(frameon=False, fontsize=9)
    return figure
