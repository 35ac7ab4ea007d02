"""The report of synthetic images: how near they come to real ones, and whether they are copies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.arrays import read_arrays
from ..data.scan import Array
from ..evaluation.tables import read_table
from ..system.files import read_json
from .html import Report, format_mean
from .parts import of_folder
from .style import INK, SERIES, SOFT, styled

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


@of_folder
def write_judge_report(folder: Path) -> Path:
    """Write ``report.html`` from the files that radiffuse judge left.

    Raises:
        InputError: A file is missing or not readable.
    """
    facts: dict[str, Any] = read_json(folder / "judge.json", dict[str, Any])
    report = Report("Synthetic images, judged", f"Features: {facts['network']}")
    if facts["warnings"]:
        report.section("Warnings")
        report.text(*facts["warnings"])
    if facts["fidelity"]:
        _fidelity(report, folder)
    if facts["copies"]:
        _copies(report, folder, facts["copies"])
    return report.save(folder / "report.html")


# ------------------------------------------------------------------------------------------------ fidelity


def _fidelity(report: Report, folder: Path) -> None:
    table = read_table(
        folder / "fidelity.csv", "part", "measure", "value", "low", "high", "network"
    )
    first = table.iloc[0]
    report.section("Fidelity")
    shown = {"Real images": "real", "Patients": "patients", "Synthetic images": "synthetic"}
    report.facts({title: int(first[name]) for title, name in shown.items()})
    report.table(
        _measures(table),
        "Value and 95 % interval over patients. Distances: lower is nearer. Precision, recall, density and "
        "coverage: higher is better. The Fréchet distance is without the bias of small samples, which the uncorrected "
        "one holds, and so do those at equal numbers of images. These numbers belong to this feature network and "
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


def _measures(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for row in table.to_dict("records"):
        shown = {
            "images": row["part"],
            "n": int(row["synthetic"]),
            "measure": NAMES[row["measure"]],
            "value": format_mean(row["value"], row["low"], row["high"], 4),
        }
        if pd.notna(row.get("uncorrected")):
            shown["uncorrected"] = f"{row['uncorrected']:.4f}"
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


# ------------------------------------------------------------------------------------------------ copies


def _copies(report: Report, folder: Path, facts: Mapping[str, Any]) -> None:
    nearest = read_table(folder / "nearest.csv", "image", "strategy", "nearest", "distance")
    real = read_table(folder / "real.csv", "image", "distance")
    summary = read_table(folder / "summary.csv", "strategy", "images", "suspected")
    expected = 100 - float(facts["percentile"])
    report.section("Copies of training images")
    report.facts(
        {
            "Synthetic images": len(nearest),
            "Suspected": f"{float(summary['suspected'].iloc[0]):.1%}",
            "Suspected of new real images": f"{expected:g}%",
            "Training images": facts["real"],
            "Patients": facts["patients"],
        }
    )
    report.figure(
        distance_histogram(nearest, real, float(facts["threshold"])),
        "Synthetic images to the nearest real image, beside real images to the nearest one of another patient. "
        "An image left of the line is suspected to be a copy.",
    )
    report.table(
        _by_strategy(summary),
        f"Share nearer to a real image than all but {expected:g} % of real images are to another patient's, with its "
        f"95 % interval. A share of about {expected:g} % is what new patients would show.",
    )
    pictures, names = _pairs(folder / "pairs.npz")
    report.section("Closest pairs")
    report.images(
        pictures, "Each synthetic image before its nearest real image, closest pair first", names
    )


def _by_strategy(summary: pd.DataFrame) -> pd.DataFrame:
    shown = summary[["strategy", "images"]].copy()
    shown["suspected"] = [
        f"{row.suspected:.1%} [{row.low:.1%}, {row.high:.1%}]" for row in summary.itertuples()
    ]
    shown["smallest distance"], shown["median distance"] = summary["smallest"], summary["median"]
    return shown


def _pairs(path: Path) -> tuple[list[Array], list[str]]:
    """Pictures and their names, synthetic and real in turn."""
    names = ("fake", "real", "fake_names", "real_names", "distance")
    arrays = read_arrays(path, *names)
    columns = [arrays[name] for name in names]
    pictures, titles = [], []
    for fake, real, fake_name, real_name, distance in zip(*columns, strict=True):
        pictures += [fake, real]
        titles += [f"synthetic {fake_name}", f"real {real_name}, distance {distance:.3f}"]
    return pictures, titles


@styled
def distance_histogram(nearest: pd.DataFrame, real: pd.DataFrame, threshold: float) -> Figure:
    """Distances of synthetic images, by strategy where there are several, beside those of real ones.

    Args:
        nearest: Columns strategy and distance.
        real: Column distance.
        threshold: Where suspicion begins.
    """
    from matplotlib.figure import Figure

    top = max(float(nearest["distance"].max()), float(real["distance"].max()), 1e-9)
    edges = [top * i / 40 for i in range(41)]
    figure = Figure(figsize=(8.2, 3.6))
    axes = figure.subplots()
    axes.hist(
        real["distance"], edges, density=True, color=SERIES[5], alpha=0.45, label="real to real"
    )
    groups = list(nearest.groupby(nearest["strategy"].fillna("")))
    for i, (name, rows) in enumerate(groups):
        axes.hist(
            rows["distance"], edges, density=True, histtype="step", color=SERIES[i % 5],
            label=f"synthetic, {name}" if name and len(groups) > 1 else "synthetic", linewidth=1.6,
        )  # fmt: skip
    axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="distance to the nearest real image of another patient", ylabel="density")
    axes.legend(frameon=False, fontsize=9)
    return figure
