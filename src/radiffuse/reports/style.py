"""How figures are drawn: colors, one set of matplotlib settings, and names beside lines.

Series are drawn in darkened tones of Okabe and Ito's set (Color Universal Design, 2008), dark enough for text on
white and told apart by color-blind readers too. Each exact color is a key: the HTML page replaces it by a variable of
its style sheet, which has a second set of values for dark pages.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")
T = TypeVar("T")

INK = "#1b2129"
"""Text and axes."""
SOFT = "#5b6672"
"""Secondary text."""
GRID = "#e3e8ed"
"""Grid lines."""
PAPER = "#fefefe"
"""The page behind the drawing."""

SERIES = ("#0072b2", "#c44e00", "#00805f", "#a8488a", "#8a6a00", "#5f6b78")
"""Series in order: blue, vermilion, green, purple, ocher, gray."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Markers of the series, so that none is told by color alone."""

MARKED: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.8}
"""How every marker is set off from its line."""

TRUTH, PREDICTION = "#35d0ff", "#ffb000"
"""Outlines on images, the same on light and dark pages: truth cyan, prediction amber."""

PAGE_COLORS = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--c{i}" for i, color in enumerate(SERIES)},
}
"""Color of a figure to variable of ``templates/page.css``."""

SETTINGS: dict[str, object] = {
    "axes.edgecolor": SOFT,
    "axes.facecolor": PAPER,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "text.color": INK,
    # A class or file called "a$b$" is a name, not a formula.
    "text.parse_math": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
}
"""Settings of every figure; matplotlib's global state is left alone."""


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """Run a figure function under ``SETTINGS``."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        import matplotlib

        with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]
            return function(*args, **kwargs)

    return wrapper


def moved_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved apart as little as needed so that neighbors keep ``gap``; the order is kept.

    Args:
        positions: Wanted positions, in any order.
        gap: Smallest distance between two of them.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    # Blocks of touching labels, each as (members, center); two that overlap merge around their
    # mean.
    blocks: list[tuple[list[int], float]] = []
    for i in order:
        blocks.append(([i], positions[i]))
        while len(blocks) > 1:
            (low, center_low), (high, center_high) = blocks[-2:]
            if center_high - center_low >= gap * (len(low) + len(high)) / 2:
                break
            members = low + high
            center = sum(positions[m] for m in members) / len(members)
            blocks[-2:] = [(members, center)]
    moved = [0.0] * len(positions)
    for members, center in blocks:
        for rank, i in enumerate(members):
            moved[i] = center + gap * (rank - (len(members) - 1) / 2)
    return moved


def label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], *, size: float = 10.0) -> None:
    """Write the name of each line beside its end, instead of a legend.

    Args:
        axes: Where; its limits must be final.
        ends: (y of the line's end, name, color).
        size: Size of the text in points.
    """
    # Heights in fractions of the axes, which also suits a logarithmic scale.
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((axes.get_xlim()[1], y))[1]) for y, _, _ in ends]
    inches = axes.get_window_extent().height / axes.figure.dpi
    gap = 1.35 * size / 72 / inches
    for height, (_, name, color) in zip(moved_apart(heights, gap), ends, strict=True):
        axes.text(
            1.02, height, name, color=color, fontsize=size, weight="bold", va="center",
            transform=axes.transAxes,
        )  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A line with markers.

    Attributes:
        name: Written beside its end.
        x: ``(n,)``.
        y: ``(n,)``.
        low: Lower ends of intervals ``(n,)``; None: it has no intervals.
        high: Upper ends.
        dots: Single values beside the line, as (x, y).
        alone: Which intervals are of one draw alone, and therefore dashed; empty: none.
    """

    name: str
    x: ArrayLike
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    dots: Sequence[tuple[float, float]] = ()
    alone: Sequence[bool] = ()


def look_of(place: int) -> tuple[str, str]:
    """Color and marker of a series by its place."""
    return SERIES[place % len(SERIES)], MARKERS[(place + place // len(SERIES)) % len(MARKERS)]


def draw_series(axes: Axes, series: Sequence[Series], *, log: bool = False) -> None:
    """Draw lines in the order of the colors; those with intervals stand a little apart from each other."""
    for i, one in enumerate(series):
        color, marker = look_of(i)
        place = i - (len(series) - 1) / 2
        x = np.asarray(one.x, dtype=np.float64)
        if one.low is not None and one.high is not None:
            x = x * (1 + 0.022 * place) if log else x + 0.05 * place
            lines = ["dashed" if alone else "solid" for alone in one.alone or [False]]
            axes.vlines(x, one.low, one.high, color=color, linewidth=1.2, linestyle=lines)
        for at, value in one.dots:
            beside = at * (1 + 0.022 * place) * 1.012
            axes.plot(beside, value, ".", color=color, alpha=0.4, markersize=5)
        axes.plot(x, one.y, color=color, marker=marker, markersize=6, **MARKED)


def name_ends(axes: Axes, series: Sequence[Series], size: float = 10.0) -> None:
    """Write the name of each line beside its last value; limits and scales must be final."""
    if (layout := axes.figure.get_layout_engine()) is not None:
        layout.execute(axes.figure)  # type: ignore[arg-type]
    ends = [(float(s.y[-1]), s.name, SERIES[i % len(SERIES)]) for i, s in enumerate(series)]
    label_ends(axes, [end for end in ends if math.isfinite(end[0])], size=size)
