"""A run as those see it who trained it from Python: what it is, how good it is, its report, its masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import printable
from ..train.run import Run as RunFolder

if TYPE_CHECKING:
    from ..release.segmenter import Segmenter


class Run(RunFolder):
    """A run folder with what it holds.

    Example:
        >>> run = radiffuse.fit(data="films", method="scratch", out="runs/seg")
        >>> run.scores["dice"], run.plan.size, run.report
        >>> mask = run.predict("film.png")
    """

    _segmenter: Segmenter | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Means over the validation cases, at their own resolution.

        Dice, IoU and surface Dice (``nsd``) are from 0 to 1, ``hd95`` is in mm (films: pixels). A run without such
        cases has what its training logged in validation, such as a loss, or nothing.

        Raises:
            InputError: A table is damaged.
        """
        path = self.folder / "validation" / "cases.csv"
        if path.is_file():
            from ..evaluation.tables import METRICS, over_classes, read_scores

            table = read_scores(path)
            means = over_classes(table, [name for name in METRICS if name in table])
            found = {name: float(means[name].mean()) for name in METRICS if name in means}
            return {name: value for name, value in found.items() if not math.isnan(value)}
        log = self.log()
        kept = next((row["kept"] for row in reversed(log) if "kept" in row), None)
        rows = [row for row in log if isinstance(row.get("validation"), Mapping)]
        rows = [row for row in rows if kept in (None, row["step"])] or rows
        return (
            {name: float(value) for name, value in rows[-1]["validation"].items()} if rows else {}
        )

    @property
    def report(self) -> Path:
        """The page ``report.html``; it is written where it is missing.

        Raises:
            RunError: The folder holds nothing of a run.
        """
        path = self.folder / "report.html"
        if not path.is_file():
            from ._documents import leave_documents

            leave_documents(self.folder)
        return path

    def predict(self, image: Any, **options: Any) -> Any:
        """Label maps of images on their own grids; see ``Segmenter.predict``.

        Raises:
            RunError: The run has not finished, or segments nothing.
        """
        if self._segmenter is None:
            from ..release.segmenter import Segmenter

            self._segmenter = Segmenter.load(self.folder)
        return self._segmenter.predict(image, **options)

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"Run({printable(str(self.folder))}: {facts})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>"
            f"{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        title = escape(printable(str(self.folder)))
        return f"<b>{title}</b><table>{rows}</table>{self._curves()}"

    def _facts(self) -> dict[str, str]:
        from .info import describe

        wanted = ("command", "data", "members", "from", "size", "classes", "network", "progress")
        facts = {k: printable(str(v)) for k, v in describe(self.folder) if k in wanted}
        facts["finished"] = "yes" if self.finished else "no"
        if scores := said(self):
            facts["validation"] = scores
        return facts

    def _curves(self) -> str:
        from ..train.members import trainings_of

        logs = trainings_of(self)
        drawn = {
            name: _curve(log) for name, log in logs.items() if any("loss" in row for row in log)
        }
        return "".join(f"<p>{escape(name)}</p>" * bool(name) + svg for name, svg in drawn.items())


def _curve(log: list[dict[str, Any]]) -> str:
    """The loss of a training as a picture for a page."""
    from io import StringIO

    from ..reports.figures import loss_curves

    text = StringIO()
    loss_curves(log).savefig(text, format="svg")
    return text.getvalue().partition("?>")[2].partition('dtd">')[2]


def said(run: Run) -> str:
    """Validation scores of a run in a few words, as ``Dice 0.912, HD95 3.1 mm``; empty where there are none."""
    from ..evaluation.tables import METRIC_NAMES, distance_unit, read_scores

    words = {
        name: f"{METRIC_NAMES.get(name, name)} {value:.3g}" for name, value in run.scores.items()
    }
    if "hd95" in words:
        words["hd95"] += " " + distance_unit(read_scores(run.folder / "validation" / "cases.csv"))
    return ", ".join(words.values())
