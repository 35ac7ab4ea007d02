"""The sweep of a probing run: Dice of every head, and its course over timesteps by size of the structures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..evaluation.tables import SIZES
from . import parts
from .html import Report
from .palette import MARKERS, PAPER, SERIES
from .style import label_ends, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = ("head", "kind", "timesteps", "levels", "case", "class", "size", "dice")


def sweep_section(report: Report, path: Path) -> None:
    """A table of the heads, and the timestep curve where timesteps were swept over.

    Args:
        report: Where to.
        path: ``sweep.csv``; an absent one adds nothing.

    Raises:
        InputError: The file is damaged.
    """
    if not path.is_file():
        return
    table = parts.read_table(path, COLUMNS)
    report.section("Heads")
    wide = table.pivot_table(index="head", columns="size", values="dice", sort=False)
    wide = wide[[name for name in SIZES if name in wide]]
    wide.insert(0, "all", table.groupby("head", sort=False)["dice"].mean())
    report.table(
        wide.reset_index().rename_axis(columns=None),
        "Mean validation Dice of each head, over all structures and by their size",
    )
    single = sweep_rows(table)
    if len(single):
        kind = single["kind"].iloc[0]
        report.figure(
            timestep_curves(single[single["kind"] == kind]),
            f"Dice of the {kind} head on the features of one timestep alone, by size of the structures",
        )


def sweep_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of heads that a sweep over timesteps added, with their one timestep as ``timestep``."""
    rows = table[table["head"].str.contains("@t=", regex=False)].copy()
    rows["timestep"] = rows["timesteps"].astype(int) if len(rows) else []
    return rows


@styled
def timestep_curves(
    table: pd.DataFrame, *, title: str = "Which timestep's features segment best"
) -> Figure:
    """Mean Dice by timestep, one line per size group, at equal distances along the axis.

    Args:
        table: Columns timestep, size and dice.
        title: Heading, best the finding.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4))
    axes = figure.subplots()
    timesteps = sorted(set(table["timestep"]))
    ends = []
    for i, name in enumerate(g for g in SIZES if g in set(table["size"])):
        means = table[table["size"] == name].groupby("timestep")["dice"].mean()
        y = [float(means.get(t, np.nan)) for t in timesteps]
        color = SERIES[i % len(SERIES)]
        axes.plot(
            range(len(y)), y, color=color, marker=MARKERS[i % len(MARKERS)],
            markeredgecolor=PAPER, markeredgewidth=0.8,
        )  # fmt: skip
        ends.append((y[-1], name, color))
    axes.set_xticks(range(len(timesteps)), [str(t) for t in timesteps])
    axes.set_xlabel("timestep")
    axes.set_ylabel("Dice")
    axes.set_title(title)
    figure.draw_without_rendering()
    label_ends(axes, ends)
    return figure
