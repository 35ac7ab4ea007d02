"""Figures of numbers: scores along budgets and steps, losses, paired comparison, classes, distances.

Each function returns a matplotlib ``Figure`` and touches no global state.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..evaluation.statistics import clustered_mean
from ..evaluation.tables import BOUNDS, METRIC_NAMES, SIZES
from .style import INK, MARKED, SERIES, SOFT, Series, draw_series, look_of, name_ends, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# ------------------------------------------------------------------------------------------------ series


@styled
def series_figure(
    series: Sequence[Series],
    *,
    title: str,
    x: str,
    y: str,
    ticks: Mapping[float, str] | None = None,
    log: bool = False,
    whole_square: bool = False,
) -> Figure:
    """Lines with markers and, where they have some, intervals.

    Args:
        series: In order of color.
        title: Heading, best the finding.
        x: What the horizontal axis shows.
        y: What the vertical axis shows.
        ticks: Texts by place on the horizontal axis; None: whole numbers.
        log: Logarithmic horizontal axis.
        whole_square: Both axes go from 0 to 1, with the diagonal drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8.2, 4.4))
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
    if whole_square:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1))
    draw_series(axes, series, log=log)
    if ticks is not None:
        axes.minorticks_off()
        axes.set_xticks(list(ticks), list(ticks.values()))
    elif not whole_square:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title=title, xlabel=x, ylabel=y)
    name_ends(axes, series)
    return figure


def label_efficiency(table: pd.DataFrame, *, title: str | None = None) -> Figure:
    """Dice against the number of labels: mean, interval over draws and patients, and each draw.

    With a single number of labels there is no line to draw, and each method has a row.

    Args:
        table: Columns method, labels, draw and dice; ``group`` or ``case`` where there are
            several rows per draw (one per case).
        title: Heading, best the finding; None: what is shown.
    """
    budgets, series = sorted(set(table["labels"])), _means(table, "labels", "dice", dots=True)
    if len(budgets) == 1:
        labels = f"{budgets[0]:g} label{'s' * (budgets[0] != 1)}"
        return method_rows(series, title=title or f"Dice with {labels}", x="Dice")
    return series_figure(
        series,
        title=title or "Dice by number of labels",
        x="labelled images", y="Dice", log=True,
        ticks={n: f"{n:g}" for n in budgets},
    )  # fmt: skip


@styled
def method_rows(series: Sequence[Series], *, title: str, x: str) -> Figure:
    """A row for each series of one point, the first at the top: the mean, its interval, and single values below.

    Args:
        series: With intervals, in order of color.
        title: Heading, best the finding.
        x: What the horizontal axis shows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 1.3 + 0.5 * len(series)))
    axes = figure.subplots()
    axes.grid(visible=False, axis="y")
    for row, one in enumerate(series):
        color, marker = look_of(row)
        assert one.low is not None
        assert one.high is not None
        axes.hlines(row, one.low, one.high, color=color, linewidth=1.6)
        values = [value for _, value in one.dots]
        axes.plot(values, [row + 0.24] * len(values), ".", color=color, alpha=0.4, markersize=6)
        axes.plot(one.y, [row], color=color, marker=marker, markersize=7, **MARKED)
        axes.text(
            1.02, row, f"{one.y[0]:.3f}", color=INK, va="center", fontsize=9.5,
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(range(len(series)), [one.name for one in series])
    axes.set(title=title, xlabel=x, ylim=(len(series) - 0.4, -0.6))
    return figure


def step_curves(table: pd.DataFrame) -> Figure:
    """Mean Dice by sampling step, with intervals over draws and patients.

    Args:
        table: Columns method, draw, step, dice and ``group`` or ``case``.
    """
    return series_figure(
        _means(table, "step", "dice"),
        title="Dice along the sampling steps", x="sampling step", y="Dice",
    )  # fmt: skip


def reliability(table: pd.DataFrame) -> Figure:
    """Accuracy against confidence: columns confidence and accuracy (see ``evaluation.calibration``)."""
    series = [Series("", list(table["confidence"]), list(table["accuracy"]))] if len(table) else []
    return series_figure(
        series, title="Accuracy against confidence", x="mean confidence", y="accuracy",
        whole_square=True,
    )  # fmt: skip


def timestep_curves(table: pd.DataFrame) -> Figure:
    """Mean Dice by timestep, one line per size of structures, at equal distances along the axis.

    Args:
        table: Columns timestep (-1: the clean image), size and dice.
    """
    timesteps = sorted(set(table["timestep"]))
    series = []
    for name in (size for size in SIZES if size in set(table["size"])):
        means = table[table["size"] == name].groupby("timestep")["dice"].mean()
        values = [float(means.get(t, np.nan)) for t in timesteps]
        series.append(Series(name, range(len(values)), values))
    return series_figure(
        series, title="Dice by the timestep of the features", x="timestep", y="Dice",
        ticks={i: "clean" if t < 0 else str(t) for i, t in enumerate(timesteps)},
    )  # fmt: skip


def pool_curves(summary: pd.DataFrame) -> Figure:
    """AUROC against the number of real films, a line per arm.

    Args:
        summary: Columns arm, pool, auroc, low and high; of one class.
    """
    series = []
    for name in dict.fromkeys(summary["arm"]):
        rows = summary[summary["arm"] == name].sort_values("pool")
        series.append(Series(str(name), *(list(rows[k]) for k in ("pool", "auroc", "low", "high"))))
    return series_figure(
        series, title="AUROC against the number of real films", x="real films", y="AUROC", log=True,
        ticks={pool: str(pool) for pool in sorted(set(summary["pool"]))},
    )  # fmt: skip


def _means(table: pd.DataFrame, x: str, metric: str, *, dots: bool = False) -> list[Series]:
    """A line per method: the mean at each ``x``, with its interval over draws and patients."""
    series = []
    for name, part in table.groupby("method", sort=False):
        points, single = [], []
        for at, rows in part.groupby(x):
            # Patients are independent of each other, else cases; with one row per draw, the draws.
            unit = next((c for c in ("group", "case") if c in rows), "draw")
            draw, group = rows["draw"].tolist(), rows[unit].tolist()
            bounds = BOUNDS.get(metric, (-math.inf, math.inf))
            found = clustered_mean(rows[metric], draw=draw, group=group, bounds=bounds)
            points.append((_float(at), found.mean, found.low, found.high))
            if dots:
                single += [(_float(at), one[metric].mean()) for _, one in rows.groupby("draw")]
        at_x, mean, low, high = map(list, zip(*points, strict=True))
        series.append(Series(str(name), at_x, mean, low, high, single))
    return series


def _float(value: Hashable) -> float:
    return float(str(value))


# ------------------------------------------------------------------------------------------------ training


@styled
def loss_curves(log: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss over steps, by quarter of the timesteps where it was logged so, and validation scores.

    Args:
        log: Lines of ``log.jsonl`` as mappings; lines without the wanted keys are skipped.

    Raises:
        ValueError: No line holds a loss.
    """
    from matplotlib.figure import Figure

    losses = [(row["step"], row["loss"]) for row in log if _is_number(row.get("loss"))]
    if not losses:
        raise ValueError("no line of the log holds a loss")
    quarters, scores = losses_by_quarter(log), validation_scores(log)
    panels = 1 + bool(quarters) + bool(scores)
    figure = Figure(figsize=({1: 8.2, 2: 9.2, 3: 11.5}[panels], 3.3))
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    _draw_loss(axes[0], losses)
    if quarters:
        _draw_quarters(axes[1], quarters)
    if scores:
        _draw_scores(axes[-1], scores)
    return figure


def losses_by_quarter(log: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[float | None]]]:
    """(step, losses in the four quarters of the timesteps) of each line that has one; None where a quarter has none."""
    rows = []
    for row in log:
        values = [row.get(f"loss_q{number}") for number in range(4)]
        if any(map(_is_number, values)):
            rows.append((row["step"], [v if _is_number(v) else None for v in values]))
    return rows


def validation_scores(log: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """(step, score) of each validation metric that lies between 0 and 1, by name."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in log:
        validation = row.get("validation")
        for name, value in validation.items() if isinstance(validation, Mapping) else ():
            if name in ("dice", "iou", "nsd", "accuracy", "auroc") and _is_number(value):
                curves.setdefault(name, []).append((row["step"], float(value)))
    return curves


def _draw_loss(axes: Axes, losses: Sequence[tuple[int, float]]) -> None:
    steps, values = np.array(losses, dtype=np.float64).T
    width = max(1, values.size // 30)
    if width > 1:
        axes.plot(steps, values, color=SERIES[0], alpha=0.25, linewidth=0.8)
    axes.plot(steps, running_mean(values, width), color=SERIES[0])
    _finish(axes, values, f"Loss ends at {running_mean(values, width)[-1]:.3g}")


def _draw_quarters(axes: Axes, rows: Sequence[tuple[int, Sequence[float | None]]]) -> None:
    steps = [step for step, _ in rows]
    values = np.array([row for _, row in rows], dtype=np.float64)  # None becomes NaN
    names = ("1st (least noise)", "2nd", "3rd", "4th")
    width = max(1, len(steps) // 30)
    smooth = [
        Series(name, steps, list(running_mean(column, width)))
        for name, column in zip(names, values.T, strict=True)
    ]
    for curve, color in zip(smooth, SERIES, strict=False):
        axes.plot(curve.x, curve.y, color=color)
    _finish(axes, values, "Loss by quarter of the timesteps")
    name_ends(axes, smooth, size=8.5)


def _draw_scores(axes: Axes, scores: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    series = [
        Series(METRIC_NAMES.get(name, name), *(list(v) for v in zip(*points, strict=True)))
        for name, points in scores.items()
    ]
    draw_series(axes, series)
    name, points = next(iter(scores.items()))
    step, best = max(points, key=lambda point: point[1])
    title = f"Validation {METRIC_NAMES.get(name, name)} peaks at {best:.3f}, step {step:,}"
    axes.set(title=title, xlabel="step")
    name_ends(axes, series, size=8.5)


def _finish(axes: Axes, values: NDArray[np.float64], title: str) -> None:
    """A logarithmic axis where the loss is positive, with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() / finite.min() > 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(title=title, xlabel="step")


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of the ``width`` values around each, fewer at the ends; NaN are skipped.

    Args:
        values: ``(n,)``.
        width: Values in the window, at least 1.
    """
    import pandas as pd

    padded = np.pad(values, ((width - 1) // 2, width // 2), constant_values=np.nan)
    mean = pd.Series(padded).rolling(width, min_periods=1).mean()
    return mean.to_numpy(dtype=np.float64)[width - 1 :]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ------------------------------------------------------------------------------------------------ comparisons


@styled
def paired_dots(a: ArrayLike, b: ArrayLike, *, names: tuple[str, str]) -> Figure:
    """Dice of two methods on the same cases, sorted by their difference.

    Args:
        a: ``(n,)``, score of each case under the first method.
        b: ``(n,)``, score of the same case under the second.
        names: Names of the two methods.
    """
    from matplotlib.figure import Figure

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    order = np.argsort(first - second, kind="stable")
    first, second = first[order], second[order]
    gains = int((first > second).sum())
    figure = Figure(figsize=(8.2, 3.6))
    axes = figure.subplots()
    x = np.arange(1, first.size + 1)
    # The reference comes first in the other figures, and keeps its color here.
    axes.vlines(x, second, first, color=SOFT, linewidth=1.1, alpha=0.6)
    axes.plot(x, second, "s", color=SERIES[0], markersize=5, **MARKED)
    axes.plot(x, first, "o", color=SERIES[1], markersize=6, **MARKED)
    axes.set(
        title=f"{names[0]} is above {names[1]} in {gains} of {first.size} cases",
        xlabel=f"case, sorted by {names[0]} minus {names[1]}",
        ylabel="Dice",
        xlim=(0.3, first.size + 0.7),
        xticks=[],
    )
    name_ends(axes, [Series(names[1], x, list(second)), Series(names[0], x, list(first))])
    return figure


@styled
def class_bars(summary: pd.DataFrame) -> Figure:
    """Mean Dice and interval of each class, best at the top, under the best and the worst class as a heading.

    Args:
        summary: Rows of ``summarize``: class, metric, mean, low, high.
    """
    from matplotlib.figure import Figure

    rows = summary[(summary["metric"] == "dice") & summary["mean"].notna()]
    rows = rows.sort_values("mean", kind="stable")
    names, means = [str(name) for name in rows["class"]], rows["mean"].to_numpy()
    figure = Figure(figsize=(8.2, 1.2 + 0.32 * len(names)))
    axes = figure.subplots()
    axes.grid(visible=False)
    y = np.arange(len(names))
    colors = [SOFT if name == "all" else SERIES[0] for name in names]
    axes.barh(y, means, height=0.62, color=colors, alpha=0.35)
    axes.hlines(y, rows["low"], rows["high"], color=colors, linewidth=2.2)
    axes.scatter(means, y, s=26, color=colors, zorder=3)
    right = max(1.0, float(np.nanmax([means.max(), rows["high"].max()])))
    for height, mean in zip(y, means, strict=True):
        axes.text(right * 1.02, float(height), f"{mean:.3f}", va="center", color=INK, fontsize=9.5)
    axes.set_yticks(y, names)
    axes.spines["left"].set_visible(False)
    real = [name for name in names if name != "all"]
    best = f"{real[-1]} is found best, {real[0]} worst" if len(real) > 1 else "Score by class"
    axes.set(xlim=(0, right), xlabel="Dice", title=best)
    return figure
