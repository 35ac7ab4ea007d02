"""Body coordinates as colors: one map per axis, in three planes of a volume or on the whole film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import parts
from .html import Report
from .style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AXES_3D = ("right", "anterior", "superior")
AXES_2D = ("rows", "columns")
PLANES = ("axial", "coronal", "sagittal")


def landmarks_table(report: Report, path: Path) -> None:
    """How far off the centers of classes land that are carried from scan to scan.

    Args:
        report: Where to.
        path: ``landmarks.csv``; an absent one adds nothing.

    Raises:
        InputError: The file is damaged.
    """
    if not path.is_file():
        return
    table = parts.read_table(path, ("class", "error", "same_place"))
    medians = table.groupby("class", sort=False)[["error", "same_place"]].median()
    medians.loc["all"] = table[["error", "same_place"]].median()
    report.table(
        medians.reset_index(),
        "Median error of class centers carried to another scan by their coordinates, and of the same place in the "
        "scan's extent (mm; films: pixels)",
    )


@styled
def coordinate_figure(path: Path) -> Figure:
    """The first scan of the file: the image and a color map per axis, a row per plane.

    Args:
        path: From ``inference.coordinates.write_coordinate_maps``.
    """
    from matplotlib.figure import Figure

    with np.load(path, allow_pickle=False) as file:
        planes = {k.removeprefix("0-"): file[k] for k in file.files if k.startswith("0-")}
    names = AXES_2D if "film" in planes else AXES_3D
    figure = Figure(figsize=(2.3 * (len(names) + 1), 2.3 * len(planes)))
    grid = figure.subplots(len(planes), len(names) + 1, squeeze=False)
    whole = np.concatenate(
        [values[1:].reshape(len(names), -1) for values in planes.values()], axis=1
    )
    limits = np.quantile(whole, (0.02, 0.98), axis=1).T
    for row, (plane, values) in enumerate(planes.items()):
        for column, axes in enumerate(grid[row]):
            axes.set_axis_off()
            if column == 0:
                axes.imshow(values[0], cmap="gray", vmin=-1, vmax=1)
                axes.set_title(plane)
                continue
            low, high = limits[column - 1]
            shown = np.where(values[0] > -0.98, values[column], np.nan)
            axes.imshow(values[0], cmap="gray", vmin=-1, vmax=1)
            axes.imshow(shown, cmap="viridis", vmin=low, vmax=high, alpha=0.75)
            if row == 0:
                axes.set_title(names[column - 1])
    return figure
