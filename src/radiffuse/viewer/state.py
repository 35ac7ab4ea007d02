"""All that one server holds: scans, runs, jobs, and a folder for what is dropped and drawn."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..config import View
from ..data.scan import Array
from .jobs import Jobs
from .runs import Runs
from .scans import Scans
from .uploads import Intake


@dataclass
class State:
    """One server's.

    Attributes:
        settings: Of the command.
        folder: Its own, for this user alone; goes when the server ends.
        intake: Receives dropped files.
        scans: What is shown.
        runs: What was trained.
        jobs: What is being computed.
    """

    settings: View
    folder: Path
    intake: Intake
    scans: Scans = field(default_factory=Scans)
    runs: Runs = field(default_factory=Runs)
    jobs: Jobs = field(default_factory=Jobs)
    _count: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, array: Array) -> Path:
        """Write an array into the folder, so that memory does not grow with what was computed."""
        path = self.new_path(".npy")
        np.save(path, array, allow_pickle=False)
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


def kept(path: Path) -> Array:
    """An array of ``State.keep``, from the disk as it is needed."""
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
