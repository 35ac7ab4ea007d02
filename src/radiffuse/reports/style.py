"""How figures are drawn: one set of matplotlib settings, and helpers that figures share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from .palette import GRID, INK, PAPER, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")
T = TypeVar("T")

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


def spread(positions: Sequence[float], gap: float) -> list[float]:
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


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, str, str]], *, x: float = 1.02, size: float = 10.0
) -> None:
    """Write the name of each line beside its end, instead of a legend.

    Args:
        axes: Where; its limits must be final.
        ends: (y of the line's end, name, color).
        x: Position in fractions of the width of the axes.
        size: Size of the text in points.
    """
    # Heights in fractions of the axes, which also suits a logarithmic scale.
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((axes.get_xlim()[1], y))[1]) for y, _, _ in ends]
    inches = axes.get_window_extent().height / axes.figure.dpi
    gap = 1.35 * size / 72 / inches
    for height, (_, name, color) in zip(spread(heights, gap), ends, strict=True):
        axes.text(
            x, height, name, color=color, fontsize=size, weight="bold", va="center",
            transform=axes.transAxes,
        )  # fmt: skip
