"""The report of the study of augmentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..evaluation.tables import read_table
from ..system.files import read_json
from .exports import save_figure, save_latex
from .figures import pool_curves
from .html import Report, format_mean
from .origin import origin_table
from .parts import of_folder

if TYPE_CHECKING:
    import pandas as pd

MEAN = "mean"


@of_folder
def write_augment_report(folder: Path) -> Path:
    """Write ``report.html``, ``summary.tex`` and the figure from ``summary.csv``, ``warnings.json`` and the runs.

    Raises:
        InputError: A file is missing or not readable.
    """
    summary = read_table(folder / "summary.csv", "pool", "arm", "class", "auroc", "low", "high")
    first = summary.iloc[0]
    report = Report("What synthetic films add to classification", f"{first['n']} test films")
    report.facts({"Test films": int(first["n"]), "Draws of each pool": int(first["draws"])})
    if warnings := read_json(folder / "warnings.json", list[str]):
        report.section("Warnings")
        report.text(*warnings)
    report.section("Mean AUROC")
    whole = summary[summary["class"] == MEAN]
    figure = pool_curves(whole)
    save_figure(figure, folder / "pools")
    report.figure(
        figure,
        "Mean over classes against the number of real films; 95 % intervals for new draws and patients.",
    )
    report.table(
        _shown(whole),
        "Gain: AUROC minus that of the same real films alone, paired by draw and patient; an interval that holds 0 "
        "decides nothing.",
    )
    report.section("By class")
    report.table(_shown(summary[summary["class"] != MEAN]), "Each class against the others.")
    save_latex(summary, folder / "summary.tex")
    report.section("How it was made")
    draws = {"draws of each pool": str(int(first["draws"]))}
    command = f"radiffuse augment --config augment.yaml --out {folder.name}"
    report.table(origin_table(folder, command, draws))
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
