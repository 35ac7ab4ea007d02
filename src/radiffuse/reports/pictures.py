"""Figures of images: masks over scans, grids of samples, and body coordinates as colors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import IGNORE
from ..data.arrays import read_arrays
from ..data.scan import Array
from .style import PREDICTION, TRUTH, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES_3D = ("right", "anterior", "superior")
AXES_2D = ("rows", "columns")


@dataclass(frozen=True)
class OverlayCase:
    """A case to be shown.

    Attributes:
        heading: What it stands for, such as ``"worst"``.
        name: Name of the case.
        image: ``(H, W)``, gray.
        truth: ``(H, W)``, label values, 255 ignored.
        prediction: ``(H, W)``, label values.
        dice: Its score, 0 to 1, or NaN.
    """

    heading: str
    name: str
    image: Array
    truth: Array
    prediction: Array
    dice: float = math.nan


@styled
def overlays(cases: Sequence[OverlayCase]) -> Figure:
    """Each case twice: the bare image, and the outlines of truth (solid) and prediction (dashed).

    Args:
        cases: One to about six, such as best, median and worst.

    Raises:
        ValueError: There is no case.
    """
    from matplotlib.figure import Figure

    if not cases:
        raise ValueError("overlays need at least one case")
    rows, columns = cases[0].image.shape
    width = min(2.9, 9.2 / len(cases))
    height = 2 * width * rows / columns + 0.6
    figure = Figure(figsize=(width * len(cases), height))
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03, hspace=0.02)
    grid = figure.subplots(2, len(cases), squeeze=False)
    for (bare, outlined), case in zip(grid.T, cases, strict=True):
        for axes in (bare, outlined):
            axes.imshow(to_uint8(case.image), cmap="gray", vmin=0, vmax=255, interpolation="none")
            axes.axis("off")
        score = f"Dice {case.dice:.3f}" if math.isfinite(case.dice) else ""
        heading = " · ".join(part for part in (case.heading, score) if part)
        bare.set_title(f"{heading}\n{_shorten(case.name)}", fontsize=9.5, pad=6)
        draw_outline(outlined, case.truth, TRUTH, "solid")
        draw_outline(outlined, case.prediction, PREDICTION, (0, (4, 2)))
    draw_key(grid[1, 0])
    return figure


def draw_key(axes: Axes) -> None:
    """Name the colors of the outlines in the upper left corner of an image."""
    box = {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.5}
    for x, (name, color) in enumerate((("truth", TRUTH), ("prediction", PREDICTION))):
        axes.text(
            0.03, 0.97 - 0.085 * x, name, color=color, fontsize=8.5, weight="bold", va="top",
            transform=axes.transAxes, bbox=box,
        )  # fmt: skip


def draw_outline(
    axes: Axes, labels: Array, color: str, style: str | tuple[int, tuple[int, int]]
) -> None:
    """Outline every structure of a label map ``(H, W)`` and shade what is ignored; the axes then fit the map."""
    # A rim of background closes the outlines of masks that touch the border.
    padded = np.pad(np.where(labels == IGNORE, 0, labels), 1)
    x = np.arange(-1, labels.shape[1] + 1)
    y = np.arange(-1, labels.shape[0] + 1)
    for value in np.unique(padded):
        if value > 0:
            axes.contour(
                x, y, padded == value, [0.5], colors=color, linewidths=1.6, linestyles=[style]
            )
    if (labels == IGNORE).any():
        shade = np.zeros((*labels.shape, 4))
        shade[labels == IGNORE] = (1, 1, 1, 0.25)
        axes.imshow(shade, interpolation="none")
    axes.set_xlim(-0.5, labels.shape[1] - 0.5)
    axes.set_ylim(labels.shape[0] - 0.5, -0.5)


@styled
def sample_grid(images: Array, *, columns: int = 8) -> Figure:
    """Images side by side, as one picture.

    Args:
        images: ``(N, H, W)``, uint8.
        columns: Images per row.

    Raises:
        ValueError: The array has another shape or type, or holds no image.
    """
    from matplotlib.figure import Figure

    if images.ndim != 3 or images.dtype != np.uint8 or images.shape[0] == 0:
        raise ValueError(f"expected uint8 (N, H, W), got {images.dtype} {images.shape}")
    number, height, width = images.shape
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    gap = max(1, width // 24)
    mosaic = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        tile = mosaic[top : top + height, left : left + width]
        tile[..., :3] = image[..., None]
        tile[..., 3] = 255
    figure = Figure(figsize=(9.2, 9.2 * mosaic.shape[0] / mosaic.shape[1]), layout=None)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(mosaic, interpolation="none")
    axes.axis("off")
    return figure


@styled
def coordinate_figure(path: Path) -> Figure:
    """Body coordinates of the first scan of a file: the image and a color map per axis, a row per plane.

    Args:
        path: From ``inference.coordinates.write_coordinate_maps``.
    """
    from matplotlib.figure import Figure

    arrays = read_arrays(path)
    planes = {k.removeprefix("0-"): v for k, v in arrays.items() if k.startswith("0-")}
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


def to_uint8(image: Array) -> NDArray[np.uint8]:
    """An image stretched between its 1st and 99th percentile; uint8 stays as it is.

    Args:
        image: ``(H, W)``, any range.
    """
    if image.dtype == np.uint8:
        return image
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(finite, (1, 99))
    scaled = (np.nan_to_num(image, nan=low) - low) / max(float(high - low), 1e-12)
    return np.asarray(np.clip(scaled, 0, 1) * 255, dtype=np.uint8)


def _shorten(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:14]}…{name[-14:]}"
