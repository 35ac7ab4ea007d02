"""Reports on synthetic images: fidelity, and the search for copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..system.files import read_json
from .html import Report, format_mean
from .palette import SERIES, SOFT
from .parts import read_table
from .style import styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = {
    "frechet": "Fréchet distance",
    "kernel": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage")


def write_fidelity_report(folder: Path) -> Path:
    """Write ``report.html`` from ``fidelity.csv`` and ``warnings.json``.

    Raises:
        InputError: A file is missing or not readable.
    """
    table = read_table(
        folder / "fidelity.csv", ("part", "measure", "value", "low", "high", "network")
    )
    first = table.iloc[0]
    report = Report("Fidelity of synthetic images", f"Features: {first['network']}")
    report.facts(
        {
            "Real images": int(first["real"]),
            "Patients": int(first["patients"]),
            "Synthetic images": int(first["synthetic"]),
        }
    )
    if warnings := read_json(folder / "warnings.json"):
        report.section("Warnings")
        report.text(*warnings)
    report.section("Measures")
    report.table(
        _shown(table),
        "Mean and 95 % bootstrap interval over patients. Distances: lower is nearer. Precision, recall, density and "
        "coverage: higher is better. The interval of the Fréchet distance is that of the distance without the bias of "
        "small samples, which the value holds, and may lie below it. These numbers belong to this feature network and "
        "to these sample sizes.",
    )
    whole = table[table["part"] == "all"]
    if "floor" in whole and whole["floor"].notna().all():
        size = int(whole["floor_size"].iloc[0])
        report.section("Beside real images")
        report.figure(
            floor_figure(whole),
            f"{size} synthetic images against {size} real ones, and as many real images of other patients against the "
            "same ones: mean over random halvings by patient; the bar spans the halvings.",
        )
    return report.save(folder / "report.html")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        shown = {
            "images": row["part"],
            "n": int(row["synthetic"]),
            "measure": NAMES[row["measure"]],
            "value": format_mean(row["value"], row["low"], row["high"], 4),
        }
        if pd.notna(row.get("floor")):
            shown[f"at {int(row['floor_size'])} images"] = f"{row['at_floor_size']:.4f}"
            shown["real to real"] = f"{row['floor']:.4f}"
        rows.append(shown)
    return pd.DataFrame(rows).fillna("")


@styled
def floor_figure(table: pd.DataFrame) -> Figure:
    """A small panel per measure: synthetic against real, real against real.

    Args:
        table: Rows of ``fidelity.csv`` of all images.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 2.6))
    grid = figure.subplots(1, len(table))
    for axes, row in zip(grid, table.to_dict("records"), strict=True):
        better = "higher is better" if row["measure"] in HIGHER_IS_BETTER else "lower is nearer"
        axes.bar([0, 1], [row["at_floor_size"], row["floor"]], color=[SERIES[0], SERIES[5]])
        axes.plot([1, 1], [row["floor_low"], row["floor_high"]], color=SOFT)
        axes.set_xticks([0, 1], ["synthetic", "real"], fontsize=8)
        axes.set_title(f"{NAMES[row['measure']]}\n{better}", fontsize=8.5, weight="normal")
        axes.tick_params(axis="y", labelsize=7.5)
    return figure
