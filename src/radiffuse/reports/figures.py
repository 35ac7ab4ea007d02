"""Figures of numbers: label efficiency, loss, paired comparison, classes.

Each function returns a matplotlib ``Figure`` and touches no global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..evaluation.statistics import clustered_mean
from .palette import INK, MARKERS, PAPER, SERIES, SOFT
from .style import label_ends, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "nsd": "surface Dice",
}
"""Metrics as axes and tables name them."""


@styled
def label_efficiency(
    table: pd.DataFrame,
    *,
    metric: str = "dice",
    methods: Sequence[str] | None = None,
    title: str = "Dice by number of labels",
    draws: int = 10_000,
) -> Figure:
    """Score against the number of labels: mean, interval over draws and patients, and each draw.

    Args:
        table: Columns method, labels, draw and the metric; ``group`` or ``case`` where there are
            several rows per draw (one per case).
        metric: Column of the score.
        methods: Methods in order of color; None: as they appear.
        title: Heading, best the finding.
        draws: Bootstrap samples of the intervals.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    names = list(dict.fromkeys(table["method"])) if methods is None else list(methods)
    budgets = sorted(set(table["labels"]))
    figure = Figure(figsize=(8.2, 4.4))
    axes = figure.subplots()
    axes.set_xscale("log")
    ends = []
    for i, name in enumerate(names):
        part = table[table["method"] == name]
        shift = 1 + 0.022 * (i - (len(names) - 1) / 2)
        color = SERIES[i % len(SERIES)]
        x, mean, low, high = [], [], [], []
        for labels in sorted(set(part["labels"])):
            rows = part[part["labels"] == labels]
            for _, one in rows.groupby("draw"):
                axes.plot(
                    labels * shift * 1.012,
                    one[metric].mean(),
                    ".",
                    color=color,
                    alpha=0.4,
                    markersize=5,
                )
            interval = clustered_mean(
                rows[metric], draw=rows["draw"].tolist(), group=_units(rows), samples=draws
            )
            x.append(labels * shift)
            mean.append(interval.mean)
            low.append(interval.mean - interval.low)
            high.append(interval.high - interval.mean)
        axes.errorbar(
            x, mean, yerr=np.nan_to_num([low, high]), color=color, marker=MARKERS[i % len(MARKERS)],
            markersize=6, markeredgecolor=PAPER, markeredgewidth=0.8, elinewidth=1.2, capsize=0,
        )  # fmt: skip
        ends.append((mean[-1], name, color))
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(budgets, [f"{n:g}" for n in budgets])
    axes.set_xlabel("labeled images")
    axes.set_ylabel(METRIC_NAMES.get(metric, metric))
    axes.set_title(title)
    figure.draw_without_rendering()
    label_ends(axes, ends)
    return figure


def _units(rows: pd.DataFrame) -> list[Any] | None:
    """What is independent of each other: patients, else cases, else rows."""
    for column in ("group", "case"):
        if column in rows:
            return list(rows[column])
    # One row per draw: the draws themselves are what varies.
    return list(rows["draw"])


@styled
def step_curves(
    table: pd.DataFrame,
    *,
    methods: Sequence[str] | None = None,
    title: str = "Dice along the sampling steps",
    draws: int = 10_000,
) -> Figure:
    """Mean Dice by sampling step, with intervals over draws and patients.

    Args:
        table: Columns method, draw, step, dice and ``group`` or ``case``.
        methods: Methods in order of color; None: as they appear.
        title: Heading, best the finding.
        draws: Bootstrap samples of the intervals.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(table["method"])) if methods is None else list(methods)
    figure = Figure(figsize=(8.2, 4.4))
    axes = figure.subplots()
    ends = []
    for i, name in enumerate(names):
        color, x, mean, low, high = SERIES[i % len(SERIES)], [], [], [], []
        for step, rows in table[table["method"] == name].groupby("step"):
            interval = clustered_mean(
                rows["dice"], draw=rows["draw"].tolist(), group=_units(rows), samples=draws
            )
            x.append(float(str(step)) + 0.05 * (i - (len(names) - 1) / 2))
            mean.append(interval.mean)
            low.append(interval.mean - interval.low)
            high.append(interval.high - interval.mean)
        axes.errorbar(
            x, mean, yerr=np.nan_to_num([low, high]), color=color, marker=MARKERS[i % len(MARKERS)],
            markersize=6, markeredgecolor=PAPER, markeredgewidth=0.8, elinewidth=1.2, capsize=0,
        )  # fmt: skip
        ends.append((mean[-1], name, color))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("sampling step")
    axes.set_ylabel("Dice")
    axes.set_title(title)
    figure.draw_without_rendering()
    label_ends(axes, ends)
    return figure


@styled
def reliability(
    tables: Mapping[str, pd.DataFrame], *, title: str = "How far its confidence can be trusted"
) -> Figure:
    """Accuracy against confidence.

    Args:
        tables: By method, columns confidence, accuracy and pixels (see ``evaluation.calibration``).
        title: Heading, best the finding.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
    ends = []
    for i, (name, table) in enumerate(tables.items()):
        if not len(table):
            continue
        color = SERIES[i % len(SERIES)]
        axes.plot(
            table["confidence"], table["accuracy"], color=color, marker=MARKERS[i % len(MARKERS)],
            markersize=5, markeredgecolor=PAPER, markeredgewidth=0.8,
        )  # fmt: skip
        ends.append((float(table["accuracy"].iloc[-1]), name, color))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("mean confidence")
    axes.set_ylabel("share that is right")
    axes.set_title(title)
    figure.draw_without_rendering()
    label_ends(axes, ends)
    return figure


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
    quartiles = [(row["step"], row["loss_quartiles"]) for row in log if row.get("loss_quartiles")]
    scores = validation_scores(log)
    panels = 1 + bool(quartiles) + bool(scores)
    figure = Figure(figsize=(4.2 if panels > 1 else 8.2, 3.1))
    figure.set_size_inches({1: 8.2, 2: 9.2, 3: 11.5}[panels], 3.3)
    axes = list(np.atleast_1d(figure.subplots(1, panels)))
    _draw_loss(axes[0], losses)
    if quartiles:
        _draw_quartiles(axes[1], quartiles)
    if scores:
        _draw_scores(axes[-1], scores)
    return figure


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


def _draw_quartiles(axes: Axes, rows: Sequence[tuple[int, Sequence[float]]]) -> None:
    steps = np.array([step for step, _ in rows], dtype=np.float64)
    values = np.array(
        [[math.nan if v is None else v for v in q] for _, q in rows], dtype=np.float64
    )
    names = ("1st (least noise)", "2nd", "3rd", "4th")
    width = max(1, steps.size // 30)
    smooth = [running_mean(values[:, i], width) for i in range(values.shape[1])]
    for i, curve in enumerate(smooth):
        axes.plot(steps, curve, color=SERIES[i])
    _finish(axes, values, "Loss by quarter of the timesteps")
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    ends = [(float(curve[-1]), names[i], SERIES[i]) for i, curve in enumerate(smooth)]
    label_ends(axes, [end for end in ends if math.isfinite(end[0])], size=8.5)


def _draw_scores(axes: Axes, scores: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    for i, (_, points) in enumerate(scores.items()):
        steps, values = zip(*points, strict=True)
        axes.plot(
            steps, values, color=SERIES[i], marker=MARKERS[i], markersize=5, markeredgecolor=PAPER
        )
    name, points = next(iter(scores.items()))
    step, best = max(points, key=lambda point: point[1])
    axes.set_title(f"Validation {METRIC_NAMES.get(name, name)} peaks at {best:.3f}, step {step:,}")
    axes.set_xlabel("step")
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    ends = [
        (points[-1][1], METRIC_NAMES.get(name, name), SERIES[i])
        for i, (name, points) in enumerate(scores.items())
    ]
    label_ends(axes, ends, size=8.5)


def _finish(axes: Axes, values: NDArray[np.float64], title: str) -> None:
    """A logarithmic axis where the loss is positive, with plain numbers on it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() / finite.min() > 3:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_title(title)
    axes.set_xlabel("step")


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of the ``width`` values around each, fewer at the ends; NaN are skipped.

    Args:
        values: ``(n,)``.
        width: Values in the window, at least 1.
    """
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    start = np.maximum(np.arange(values.size) - (width - 1) // 2, 0)
    stop = np.minimum(np.arange(values.size) + width // 2 + 1, values.size)
    number = counts[stop] - counts[start]
    return np.where(number > 0, (sums[stop] - sums[start]) / np.maximum(number, 1), np.nan)


@styled
def paired_dots(
    a: ArrayLike,
    b: ArrayLike,
    *,
    names: tuple[str, str],
    metric: str = "dice",
    title: str | None = None,
) -> Figure:
    """Two methods on the same cases, sorted by their difference.

    Args:
        a: ``(n,)``, score of each case under the first method.
        b: ``(n,)``, score of the same case under the second.
        names: Names of the two methods.
        metric: What is scored.
        title: Heading; None: how many cases gain.
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
    axes.plot(
        x, second, "s", color=SERIES[0], markersize=5, markeredgecolor=PAPER, markeredgewidth=0.6
    )
    axes.plot(
        x, first, "o", color=SERIES[1], markersize=6, markeredgecolor=PAPER, markeredgewidth=0.6
    )
    axes.set_title(title or f"{names[0]} is above {names[1]} in {gains} of {first.size} cases")
    axes.set_xlabel(f"case, sorted by {names[0]} minus {names[1]}")
    axes.set_ylabel(METRIC_NAMES.get(metric, metric))
    axes.set_xlim(0.3, first.size + 0.7)
    axes.set_xticks([])
    figure.draw_without_rendering()
    label_ends(axes, [(first[-1], names[0], SERIES[1]), (second[-1], names[1], SERIES[0])])
    return figure


@styled
def class_bars(summary: pd.DataFrame, *, metric: str = "dice", title: str | None = None) -> Figure:
    """Mean and interval of each class, best at the top.

    Args:
        summary: Rows of ``summarize``: class, metric, mean, low, high.
        metric: Which metric's rows to draw.
        title: Heading; None: the best and the worst class.
    """
    from matplotlib.figure import Figure

    rows = summary[(summary["metric"] == metric) & summary["mean"].notna()]
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
    axes.set_xlim(0, right)
    axes.set_xlabel(METRIC_NAMES.get(metric, metric))
    axes.spines["left"].set_visible(False)
    real = [name for name in names if name != "all"]
    best = f"{real[-1]} is found best, {real[0]} worst" if len(real) > 1 else "Score by class"
    axes.set_title(title or best)
    return figure


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
