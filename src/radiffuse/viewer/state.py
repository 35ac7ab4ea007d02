"""All that one server holds: scans, runs, jobs, and a folder for what is dropped and drawn."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import View
from ..data.arrays import save_array
from ..data.scan import Array
from ..inference.records import Record
from ..train.run import Run
from .again import next_fit
from .corrections import DEFAULT, Corrections
from .jobs import Jobs
from .runs import Runs
from .scans import Item, Scans
from .uploads import Intake


@dataclass
class State:
    """What one server holds.

    Attributes:
        settings: Of the command.
        folder: Its own, for this user alone; goes when the server ends.
        intake: Receives dropped files.
        scans: What is shown.
        runs: What was trained.
        jobs: What is being computed.
        corrections: What is corrected on the page.
        record: Of the masks that were given.
        labelled: The data set with labels that was given, or ''.
        classes: Of the scans, where the command line says them.
    """

    settings: View
    folder: Path
    intake: Intake
    scans: Scans = field(default_factory=Scans)
    runs: Runs = field(default_factory=Runs)
    jobs: Jobs = field(default_factory=Jobs)
    corrections: Corrections = field(init=False)
    record: Record | None = None
    labelled: str = ""
    classes: tuple[str, ...] = ()
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.corrections = Corrections(Path(self.settings.corrections or DEFAULT))

    def take(self, items: Sequence[Item]) -> None:
        """Put on scans what was corrected before."""
        self.corrections.attach(self.scans, items)

    def known_classes(self) -> tuple[str, ...]:
        """Names by label value for a mask that begins empty: of corrections, scans, masks or a run."""
        named = self.record.classes() if self.record else {}
        of_masks = tuple(named.get(i, f"class-{i}") for i in range(max(named, default=-1) + 1))
        found = self.corrections.classes or self.classes or of_masks
        runs = (entry.path for entry in self.runs.all() if entry.use == "segment")
        first = next(runs, None)
        found = found or (
            tuple(Run.open(first).plan.classes) if first else ("background", "class 1")
        )
        return self.corrections.named(found)

    def next_fit(self) -> str:
        """The command that learns from what was corrected, or ''."""
        if not self.corrections.entries:
            return ""
        return next_fit(self.corrections, self.runs, self.record, self.labelled)

    def keep(self, array: Array) -> Path:
        """Write an array into the folder, so that memory does not grow with what was computed."""
        path = self.new_path(".npy")
        save_array(path, array)
        return path

    def new_path(self, suffix: str) -> Path:
        """A path in the folder that nothing else uses."""
        with self._lock:
            self._count += 1
            home = self.folder / "made"
            home.mkdir(exist_ok=True)
            return home / f"{self._count:06d}{suffix}"

    def made(self, id: str) -> Path | None:
        """An image that was drawn here, by the name of its file; None where there is none."""
        path = self.folder / "made" / Path(id).name
        return path if path.name == id and path.suffix == ".png" and path.is_file() else None
