"""Prepared cases on disk: one memory-mapped array for all films, and one per volume.

Reading a patch touches only the pages it needs, so memory does not grow with the number of cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .arrays import map_array, open_array
from .dataset import Case
from .plan import Plan
from .scan import Array


@dataclass(frozen=True)
class Skipped:
    """A case that was left out, and why."""

    case: str
    reason: str


@dataclass(eq=False)
class Prepared:
    """Prepared cases in the order of their data set, with the row of each in the folder."""

    folder: Path
    plan: Plan
    cases: tuple[Case, ...]
    rows: Sequence[int]
    skipped: tuple[Skipped, ...]
    labelled: bool
    _films: dict[str, Array] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.cases)

    def __getstate__(self) -> dict[str, Any]:
        """Without open maps, which other processes open themselves."""
        return self.__dict__ | {"_films": {}}

    def without_cases(self) -> Prepared:
        """The arrays without descriptions of cases, small enough to send."""
        return replace(self, cases=(), skipped=())

    def image(self, index: int) -> Array:
        """float16 ``(C, *spatial)`` in [-1, 1], memory-mapped."""
        return self._array("image", index)

    def label(self, index: int) -> Array:
        """uint8 ``(*spatial)``, 255 is ignore, memory-mapped."""
        return self._array("label", index)

    def foreground(self, index: int) -> Array:
        """Class and place of foreground voxels, at most 512 of each class: int32 ``(n, 1 + dims)``."""
        return self._array("points", index)

    def arrays(self, index: int) -> list[Array]:
        """All arrays of a case, in the order of its checksum."""
        kinds = ("image", *(("label",) if self.plan.whole else ("label", "points")) * self.labelled)
        return [self._array(kind, index) for kind in kinds]

    def _array(self, kind: str, index: int) -> Array:
        row = self.rows[index]
        if self.plan.spatial_dims == 2 and kind != "points":
            if kind not in self._films:
                self._films[kind] = open_array(self.folder / f"{kind}s.npy")
            film: Array = self._films[kind][row]
            return film
        # Mapped each time, so that its pages are released.
        return map_array(self.folder / f"{kind}-{row:06d}.npy")
