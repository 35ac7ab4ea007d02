"""What a training run writes down as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..config import Training
from ..system.distributed import gather_objects
from ..system.files import write_atomic
from .mirrors import Mirror, open_mirrors
from .progress import ProgressLine, duration
from .run import Run


class Log:
    """``log.jsonl`` is the truth; TensorBoard, the progress line and trackers mirror it.

    Args:
        run: The run; rows of steps after ``start`` are dropped, since they are done again.
        start: Steps that are done.
        training: Number of steps, and which trackers.
        main: Whether this process writes.
        unwritten: What ``unwritten`` gave at the checkpoint from which the run goes on.
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
        self.main = main
        self.total = training.steps
        self.path = run.folder / "log.jsonl"
        self.line = ProgressLine("step")
        self.began = time.monotonic()
        self.start = start
        self.images = 0
        before = unwritten or {}
        self.values: list[float] = list(before.get("values", ()))
        self.terms: dict[str, list[float]] = {
            k: list(v) for k, v in before.get("terms", {}).items()
        }
        self.mirrors: list[Mirror] = []
        if main:
            run.folder.mkdir(parents=True, exist_ok=True)
            self._forget_after(run, start)
            self.mirrors = open_mirrors(run, training, start)

    def add(self, value: float, terms: Mapping[str, float], images: int) -> None:
        """A step's loss and terms, and how many images it saw."""
        self.images += images
        self.values.append(value)
        for name, term in terms.items():
            self.terms.setdefault(name, []).append(term)

    def write(self, step: int, rate: float) -> None:
        """A row of means since the last one; every process takes part."""
        seconds = time.monotonic() - self.began
        speed = self.images / max(seconds, 1e-9)
        loss = sum(self.values) / len(self.values)
        means = _means(gather_objects(self.terms))
        self.values, self.terms = [], {}
        if not self.main:
            return
        row = {
            "step": step,
            "loss": loss,
            **means,
            "learning_rate": rate,
            "images_per_second": round(speed, 2),
            "seconds": round(seconds, 2),
        }
        self._append(row)
        left = (self.total - step) * seconds / max(1, step - self.start)
        self.line.update(
            step, self.total, f"loss {loss:.4f}  {speed:.1f} images/s  {duration(left)} left"
        )

    def validation(self, step: int, scores: Mapping[str, float]) -> None:
        """A row of scores."""
        if self.main:
            self._append({"step": step, "validation": dict(scores)})

    @property
    def unwritten(self) -> dict[str, Any]:
        """Steps since the last row, as JSON: a run that goes on from here writes the same next row."""
        return {"values": self.values, "terms": self.terms}

    def close(self) -> None:
        """Let the trackers finish."""
        for mirror in self.mirrors:
            mirror.close()

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step"
        }
        for name, value in row.get("validation", {}).items():
            numbers[f"validation/{name}"] = float(value)
        for mirror in self.mirrors:
            mirror.log(row["step"], numbers)

    def _forget_after(self, run: Run, start: int) -> None:
        """Steps that are done again are logged again."""
        rows = [row for row in run.log() if row.get("step", 0) <= start]
        write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in rows))


def _means(terms: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Mean of each term over steps and ranks; a term may be missing on some."""
    names = dict.fromkeys(name for part in terms for name in part)
    found = {name: [v for part in terms for v in part.get(name, ())] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
