"""Prepared cases on disk, as everything that trains or embeds reads them.

Films of one set lie in one memory-mapped array, one row a case; every volume is a memory-mapped array of its own.
Reading a patch touches only the pages it needs, so memory does not grow with the number of cases.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import open_array
from .dataset import Case
from .plan import Plan
from .scan import Array

ROWS = "rows.jsonl"
"""Log of finished rows."""


@dataclass(frozen=True)
class Skipped:
    """A case that was left out, and why."""

    case: str
    reason: str


class Prepared:
    """Prepared cases, in the order of their data set, without those that were skipped.

    Attributes:
        cases: The usable cases.
        plan: The plan that was applied.
        skipped: What was left out.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        cases: tuple[Case, ...],
        rows: Sequence[int],
        skipped: tuple[Skipped, ...],
        labelled: bool,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.cases = cases
        self.rows = rows
        self.skipped = skipped
        self.labelled = labelled
        self._layouts: dict[str, tuple[Any, tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open maps, which another process opens itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_films", "_film_labels")}

    @cached_property
    def _films(self) -> Array:
        return open_array(self.folder / "images.npy")

    @cached_property
    def _film_labels(self) -> Array:
        return open_array(self.folder / "labels.npy")

    def without_cases(self) -> Prepared:
        """The arrays alone, which are little to send."""
        return Prepared(self.folder, self.plan, (), self.rows, (), self.labelled)

    def image(self, index: int) -> Array:
        """float16 ``(C, *spatial)`` in [-1, 1]; a view of the file."""
        if self.plan.spatial_dims == 2:
            film: Array = self._films[self.rows[index]]
            return film
        return self._map("image", self.rows[index])

    def label(self, index: int) -> Array:
        """uint8 ``(*spatial)``, 255 is ignore; a view of the file."""
        if self.plan.spatial_dims == 2:
            label: Array = self._film_labels[self.rows[index]]
            return label
        return self._map("label", self.rows[index])

    def foreground(self, index: int) -> Array:
        """3D: int32 ``(n, 3)`` voxels of the foreground, at most a few hundred of each class."""
        return self._map("points", self.rows[index])

    def _map(self, kind: str, row: int) -> Array:
        """A file of a volume. It is mapped anew each time, so that its pages can go; its header is parsed once."""
        path = f"{self.folder}/{kind}-{row:06d}.npy"
        if path not in self._layouts:
            array = open_array(Path(path))
            self._layouts[path] = array.dtype, array.shape, array.offset  # type: ignore[attr-defined]
            return array
        dtype, shape, offset = self._layouts[path]
        return np.memmap(path, dtype, "r", offset, shape)


def logged_rows(folder: Path) -> dict[int, int]:
    """Checksums by finished row of a folder of prepared arrays, as its log has them."""
    log = folder / ROWS
    rows = {}
    if log.exists():
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                    rows[int(entry["row"])] = int(entry["crc32"])
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill: its row is made again
    return rows
