"""The log of a training run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from ..config import Training
from ..system.distributed import gather_objects
from ..system.files import write_atomic
from ..system.saying import say, soon
from .mirrors import Mirror, open_mirrors
from .progress import ProgressLine, duration
from .run import Run

BELIEVED = 0.05
"""Share of the given hours after which the clock is believed to show how long all steps take [ours]."""


def hours_of(run: Run) -> float | None:
    """The ``--hours`` of a run; None where it was given none, or is a part of another run."""
    if not (run.folder / "config.yaml").is_file():
        return None
    hours: float | None = run.config["settings"].get("hours")
    return hours


def seconds_of(run: Run) -> float:
    """What a training took, with the processes that it was resumed from; 0 without a log."""
    return max((float(row.get("seconds", 0)) for row in run.log()), default=0.0)


class Log:
    """``log.jsonl`` is the record; TensorBoard, the progress line and trackers mirror it.

    Args:
        run: The run; rows of steps after ``start`` are dropped, since those steps are repeated.
        start: Steps that are done.
        training: Number of steps, and which trackers.
        main: Whether this process writes.
        unwritten: What ``unwritten`` gave at the checkpoint that the run resumes from.
    """

    def __init__(
        self,
        run: Run,
        start: int,
        training: Training,
        *,
        main: bool,
        unwritten: Mapping[str, Any] | None = None,
    ) -> None:
        self.main, self.start, self.total = main, start, training.length
        self.coarse, self.finer = training.coarse_steps, 1
        self.path = run.folder / "log.jsonl"
        self.line = ProgressLine("step")
        self.began = time.monotonic()
        self.images = self.each = 0
        self.before = 0.0
        self.hours: float | None = None
        self.first: tuple[float, float] | None = None
        before = unwritten or {"values": [], "terms": {}}
        self.values: list[float] = list(before["values"])
        terms = before["terms"] if main else {}  # they are of all ranks
        self.terms = {name: list(values) for name, values in terms.items()}
        self.mirrors: list[Mirror] = []
        if main:
            run.folder.mkdir(parents=True, exist_ok=True)
            rows = [row for row in run.log() if row.get("step", 0) <= start]
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))
            self.before = seconds_of(run)
            self.hours = hours_of(run)
            self.mirrors = open_mirrors(run, training, start)
        if start:
            say(f"{run.folder} goes on from step {start} of {self.total}")
        if start < self.total:
            soon("taking the first step, which shows how long the others will take")

    def add(
        self, loss: float, terms: Mapping[str, float], images: int, step: int, finer: int = 1
    ) -> None:
        """Record the loss and terms of ``step``, counted from 1, and how many images it saw, as many as every other.

        A step is taken to last ``finer`` times as long as one at half the resolution.
        """
        self.finer = finer
        self.images += images
        self.each = images
        self.values.append(loss)
        for name, term in terms.items():
            self.terms.setdefault(name, []).append(term)
        if step < self.total:
            self._show(step, loss)
            self._watch(step)

    def write(self, step: int, rate: float) -> None:
        """Write a row of means since the last row, over steps and ranks; every process must call it."""
        seconds = time.monotonic() - self.began
        speed = self.images / max(seconds, 1e-9)
        loss = sum(self.values) / len(self.values)
        terms = self._terms_of_all()
        self.values, self.terms = [], {}
        if not self.main:
            return
        row = {
            "step": step,
            "loss": loss,
            **{name: sum(values) / len(values) for name, values in terms.items()},
            "learning_rate": rate,
            "images": step * self.each,
            "images_per_second": round(speed, 2),
            "seconds": round(self.before + seconds, 2),
        }
        self._append(row, {name: float(value) for name, value in row.items() if name != "step"})
        self._show(step, loss)

    def validation(self, step: int, scores: Mapping[str, float]) -> None:
        """Write a row of scores."""
        if self.main:
            numbers = {f"validation/{name}": float(value) for name, value in scores.items()}
            self._append({"step": step, "validation": dict(scores)}, numbers)

    def kept(self, step: int, best: int) -> None:
        """Write whose weights the run ends with: those of the best validation."""
        if self.main:
            self._append({"step": step, "kept": best}, {})

    def _terms_of_all(self) -> dict[str, list[float]]:
        """The terms since the last row of all ranks."""
        terms: dict[str, list[float]] = {}
        for part in gather_objects(self.terms):
            for name, values in part.items():
                terms.setdefault(name, []).extend(values)
        return terms

    def _show(self, step: int, loss: float) -> None:
        if not self.main:
            return
        seconds = time.monotonic() - self.began
        start, done, total = map(self._work, (self.start, step, self.total))
        left = duration((total - done) * seconds / (done - start) if done > start else 0)
        detail = f"loss {loss:.4f}  {self.images / max(seconds, 1e-9):.1f} images/s  {left} left"
        self.line.update(step, self.total, detail)

    def _watch(self, step: int) -> None:
        """Say once, as soon as the clock can be believed, that all steps take longer than the hours that were given.

        Validation between the steps counts, what comes before the first and after the last does not.
        """
        if self.hours is None:
            return
        seconds, done = time.monotonic() - self.began, self._work(step)
        if self.first is None:  # memory and kernels are made in the first step of a process
            self.first = seconds, done
            return
        given, passed = 3600 * self.hours, seconds - self.first[0]
        if passed < BELIEVED * given:
            return
        left = (self._work(self.total) - done) * passed / (done - self.first[1])
        if (whole := self.before + seconds + left) > given:
            self.line.leave()
            say(
                f"at this pace the {self.total:,} steps alone take {duration(whole)}, more than --hours "
                f"{self.hours:g} for everything: other work may have the cores; the steps stay as planned, so that "
                "the run can resume"
            )
            self.hours = None

    def _work(self, step: int) -> float:
        """Of the steps up to one, in steps at full resolution."""
        coarse = min(step, self.coarse)
        return coarse / self.finer + step - coarse

    @property
    def share(self) -> float:
        """Of the work of all steps, the part that this process has to do, 0 to 1, once it has taken a step."""
        return 1 - self._work(self.start) / self._work(self.total)

    def unwritten(self) -> dict[str, Any]:
        """Steps since the last row, over ranks, as JSON: a run resumed with it writes the same next row.

        Every process must call it.
        """
        return {"values": self.values, "terms": self._terms_of_all()}

    def close(self) -> None:
        """Let the trackers finish."""
        for mirror in self.mirrors:
            mirror.close()

    def _append(self, row: Mapping[str, Any], numbers: Mapping[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for mirror in self.mirrors:
            mirror.log(row["step"], numbers)


def unwritten_of(value: Any) -> dict[str, Any] | None:
    """What ``unwritten`` gave, as a checkpoint holds it, its types verified; None where it holds none.

    Raises:
        ValueError, TypeError, KeyError: It is something else.
    """
    if value is None:
        return None
    for numbers in (value["values"], *value["terms"].values()):
        if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
            raise ValueError("its log holds no numbers")
    return {"values": value["values"], "terms": value["terms"]}
