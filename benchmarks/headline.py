"""The first figure of the README: ``python benchmarks/headline.py`` draws ``results/lungs.csv``.

Writes ``docs/images/lungs.svg``. Values and intervals are those of the table; nothing is computed again.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from results import RESULTS

from radiffuse.reports.style import SERIES, label_ends, styled

FIGURE = RESULTS.parent / "docs" / "images" / "lungs.svg"
NAMES = {"scratch": "from scratch", "finetune": "pre-trained without labels"}


@styled
def draw(table: pd.DataFrame) -> Figure:
    """Dice by number of labels, with intervals.

    Args:
        table: Columns method, labels, dice, low, high.
    """
    figure = Figure(figsize=(7.6, 3.6))
    axes = figure.subplots()
    axes.set_xscale("log")
    ends = []
    for i, (method, name) in enumerate(NAMES.items()):
        rows = table[table["method"] == method].sort_values("labels")
        x = rows["labels"] * (0.99, 1.01)[i]
        axes.plot(x, rows["dice"], "o-", color=SERIES[i], markersize=5)
        axes.vlines(x, rows["low"], rows["high"], color=SERIES[i], linewidth=1.2, alpha=0.6)
        ends.append((float(rows["dice"].iloc[-1]), name, SERIES[i]))
    budgets = sorted(set(table["labels"]))
    axes.xaxis.set_major_locator(FixedLocator(budgets))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(budget) for budget in budgets])
    axes.set_xlabel("labelled films")
    axes.set_ylabel("Dice of the lungs")
    label_ends(axes, ends)
    axes.set_title("What unlabelled films buy: lungs on chest X-rays")
    return figure


def main() -> None:
    """Draw and write."""
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    draw(pd.read_csv(RESULTS / "lungs.csv")).savefig(FIGURE, metadata={"Date": None})
    print(FIGURE)


if __name__ == "__main__":
    main()
