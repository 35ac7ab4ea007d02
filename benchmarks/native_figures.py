"""The figures of ``native_size.py``: Dice by method or by number of labels, and outlines on the films themselves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from radiffuse.reports.pictures import OverlayCase, draw_key, draw_outline, to_uint8
from radiffuse.reports.style import (
    INK,
    MARKED,
    MARKERS,
    PREDICTION,
    SERIES,
    SOFT,
    TRUTH,
    Series,
    draw_series,
    name_ends,
    styled,
)

MANY: tuple[str, Any, str] = (INK, "-", "95 %, new patients and draws")
ONE: tuple[str, Any, str] = (SOFT, (0, (2, 2)), "95 %, new patients, this draw")
"""Color, line and meaning of an interval from several draws, and from one."""


@styled
def draw(table: pd.DataFrame, scores: pd.DataFrame, of: str = "") -> Figure:
    """Dice of every method: by the number of labels where there are several numbers, else side by side.

    Args:
        table: Columns name, class, labels, draws, dice, dice_low and dice_high; a panel for each class.
        scores: Columns name, class, labels, draw and dice, one row for each film.
        of: What is segmented, for the axis.
    """
    if table["labels"].nunique() > 1:
        return _by_labels(table, scores, of)
    return _by_name(table, scores, of)


def _by_name(table: pd.DataFrame, scores: pd.DataFrame, of: str) -> Figure:
    """A row for each name: the mean with its interval, and the mean of each draw of the labels."""
    order = table.groupby("name")["dice"].mean().sort_values().index
    classes, draws = sorted(set(table["class"])), sorted(set(scores["draw"]))
    looks = {
        number: {"color": color, "marker": marker, "linestyle": "", **MARKED}
        for number, color, marker in zip(draws, cycle(SERIES), cycle(MARKERS))
    }
    figure = Figure(figsize=(max(7.6, 2.4 * len(classes) + 2.6), 1.4 + 0.3 * len(order)))
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, classes, strict=True):
        rows = table[table["class"] == kind].set_index("name")
        parts = scores[scores["class"] == kind].groupby(["name", "draw"])["dice"].mean()
        for y, key in enumerate(order):
            if key not in rows.index:
                continue
            row = rows.loc[key]
            color, line, _ = MANY if row["draws"] > 1 else ONE
            axes.hlines(y, row["dice_low"], row["dice_high"], color=color, linestyle=line)
            axes.plot(row["dice"], y, "|", color=color, markersize=13, markeredgewidth=2)
            for number, dice in parts[key].items():
                axes.plot(dice, y, **looks[number])
        axes.grid(axis="x")
        axes.set_xlabel(_axis(of))
        if len(classes) > 1:
            axes.set_title(str(kind))
    panels[0].set_yticks(range(len(order)), list(order))
    panels[0].set_ylim(-0.6, len(order) - 0.4)
    words = [f"draw {number} of the labels" for number in draws]
    _key(figure, [Line2D([], [], **look) for look in looks.values()], words, table)
    return figure


def _by_labels(table: pd.DataFrame, scores: pd.DataFrame, of: str) -> Figure:
    """A line for each name along the numbers of labels, with its intervals, and a dot for each draw."""
    classes, budgets = sorted(set(table["class"])), sorted(set(table["labels"]))
    figure = Figure(figsize=(max(8.2, 4.4 * len(classes) + 1.8), 4.8))
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, classes, strict=True):
        lines = []
        for name, rows in table[table["class"] == kind].groupby("name"):
            rows = rows.sort_values("labels")
            films = scores[(scores["class"] == kind) & (scores["name"] == name)]
            single = films.groupby(["labels", "draw"])["dice"].mean().reset_index("draw", drop=True)
            columns = (list(rows[key]) for key in ("labels", "dice", "dice_low", "dice_high"))
            alone = list(rows["draws"] == 1)
            lines.append(Series(str(name), *columns, dots=list(single.items()), alone=alone))
        axes.set_xscale("log")
        axes.minorticks_off()
        draw_series(axes, lines, log=True)
        axes.set_xticks(budgets, [str(number) for number in budgets])
        axes.set_xlabel("labelled films")
        axes.set_title(str(kind) if len(classes) > 1 else "")
        name_ends(axes, lines)
    panels[0].set_ylabel(_axis(of))
    dot = Line2D([], [], color=SOFT, marker=".", linestyle="", alpha=0.6)
    _key(figure, [dot], ["single draws of the labels"], table)
    return figure


def _axis(of: str) -> str:
    return f"Dice of {of}" if of else "Dice"


def _key(figure: Figure, handles: list[Line2D], words: list[str], table: pd.DataFrame) -> None:
    """What dots and bars mean, below the figure."""
    kinds = zip((MANY, ONE), (table["draws"] > 1, table["draws"] == 1), strict=True)
    for (color, line, word), there in kinds:
        if there.any():
            handles.append(Line2D([], [], color=color, linestyle=line))
            words.append(word)
    figure.legend(handles, words, loc="outside lower center", ncols=3, frameon=False, fontsize=9)


@styled
def outlines(rows: Mapping[str, Sequence[tuple[OverlayCase, str]]]) -> Figure:
    """The same films under one method or several, with the outlines of truth (solid) and prediction (dashed).

    Args:
        rows: By method: films at their own size, each with what is said under it.
    """
    films = max(len(row) for row in rows.values())
    tallest = max(c.image.shape[0] / c.image.shape[1] for row in rows.values() for c, _ in row)
    width = 9.2 / films
    figure = Figure(figsize=(9.2, 0.35 + len(rows) * (width * tallest + 0.38)))
    figure.set_layout_engine("constrained", h_pad=0.03, w_pad=0.03, hspace=0.01, wspace=0.01)
    grid = figure.subplots(len(rows), films, squeeze=False)
    for number, (method, row) in enumerate(rows.items()):
        line = grid[number]
        line[0].set_ylabel(method, fontsize=10.5, weight="bold")
        for axes, (case, words) in zip(line, row, strict=True):
            axes.imshow(to_uint8(case.image), cmap="gray", vmin=0, vmax=255)
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            axes.set_xticks([])
            axes.set_yticks([])
            draw_outline(axes, case.truth, TRUTH, "solid")
            draw_outline(axes, case.prediction, PREDICTION, (0, (4, 2)))
            axes.set_title("" if number else case.heading, pad=4)
            axes.set_xlabel(words, fontsize=9.5)
    draw_key(grid[0, 0])
    return figure


def small_png(figure: Figure, limit: int, dpi: int = 110) -> bytes:
    """A figure of gray images and outlines as PNG of at most ``limit`` bytes, with as many grays as that leaves.

    Raises:
        ValueError: Even 16 grays take more.
    """
    whole = io.BytesIO()
    figure.savefig(whole, format="png", dpi=dpi)
    picture = Image.open(whole).convert("RGB")
    for grays in (64, 48, 32, 24, 16):  # Pillow tells no more apart
        small, palette = io.BytesIO(), Image.new("P", (1, 1))
        palette.putpalette(_palette(grays))
        few = picture.quantize(palette=palette, dither=Image.Dither.NONE)
        few.save(small, format="PNG", optimize=True)
        if small.tell() <= limit:
            return small.getvalue()
    raise ValueError(f"the figure takes more than {limit:,} bytes in {grays} grays")


def _palette(grays: int) -> list[int]:
    """Grays, and the outlines' colors mixed with some of them, as they are at soft edges; red, green, blue in turn."""
    colors = [(level,) * 3 for level in np.linspace(0, 255, grays).round().astype(int).tolist()]
    for outline in (TRUTH, PREDICTION):
        pure = np.array([int(outline[i : i + 2], 16) for i in (1, 3, 5)])
        for share in (1 / 3, 2 / 3):
            for level in (0, 85, 170, 255):
                colors.append(tuple((share * pure + (1 - share) * level).round().astype(int)))
        colors.append(tuple(pure))
    return [int(part) for color in colors for part in color]
