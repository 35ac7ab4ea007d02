"""The report of the search for copies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..system.files import read_json
from .html import Report
from .palette import INK, SERIES
from .parts import read_table
from .style import styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_memorization_report(folder: Path) -> Path:
    """Write ``report.html`` from the files that radiffuse memorization left.

    Raises:
        InputError: A file is missing or not readable.
    """
    facts: dict[str, Any] = read_json(folder / "memorization.json")
    nearest = read_table(folder / "nearest.csv", ("image", "strategy", "nearest", "distance"))
    real = read_table(folder / "real.csv", ("image", "distance"))
    summary = read_table(folder / "summary.csv", ("strategy", "images", "suspected"))
    expected = 100 - float(facts["percentile"])
    report = Report("Are synthetic images copies?", f"Features: {facts['network']}")
    report.facts(
        {
            "Synthetic images": len(nearest),
            "Suspected": f"{float(summary['suspected'].iloc[0]):.1%}",
            "Suspected of new real images": f"{expected:g}%",
            "Real images": facts["real"],
            "Patients": facts["patients"],
        }
    )
    if facts["warnings"]:
        report.section("Warnings")
        report.text(*facts["warnings"])
    report.section("Distance to the nearest real image")
    report.figure(
        distance_histogram(nearest, real, float(facts["threshold"])),
        "Synthetic images to the nearest real image, beside real images to the nearest one of another patient. "
        "An image left of the line is suspected to be a copy.",
    )
    report.section("By strategy")
    report.table(
        _shown(summary),
        f"Share nearer to a real image than all but {expected:g} % of real images are to another patient's, with its "
        f"95 % bootstrap interval. A share of about {expected:g} % is what new patients would show.",
    )
    report.section("Closest pairs")
    pictures, names = _pairs(folder / "pairs.npz")
    report.images(
        pictures, "Each synthetic image before its nearest real image, closest pair first", names
    )
    return report.save(folder / "report.html")


def _shown(summary: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "strategy": summary["strategy"],
            "images": summary["images"],
            "suspected": [
                f"{row.suspected:.1%} [{row.low:.1%}, {row.high:.1%}]"
                for row in summary.itertuples()
            ],
            "smallest distance": summary["smallest"],
            "median distance": summary["median"],
        }
    )


def _pairs(path: Path) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        pictures, names = [], []
        for i in range(len(arrays["fake"])):
            pictures += [arrays["fake"][i], arrays["real"][i]]
            names += [
                f"synthetic {arrays['fake_names'][i]}",
                f"real {arrays['real_names'][i]}, distance {arrays['distance'][i]:.3f}",
            ]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            path, f"not readable ({error})", "Run radiffuse memorization again"
        ) from None
    return pictures, names


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
    strategies = nearest["strategy"].fillna("")
    groups = {name: nearest["distance"][strategies == name] for name in sorted(set(strategies))}
    axes.hist(
        real["distance"], edges, density=True, color=SERIES[5], alpha=0.45, label="real to real"
    )
    for i, (name, distances) in enumerate(groups.items()):
        label = f"synthetic, {name}" if name and len(groups) > 1 else "synthetic"
        axes.hist(
            distances,
            edges,
            density=True,
            histtype="step",
            color=SERIES[i % 5],
            label=label,
            linewidth=1.6,
        )
    axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
    axes.set_xlabel("distance to the nearest real image of another patient")
    axes.set_ylabel("density")
    axes.legend(frameon=False, fontsize=9)
    return figure
