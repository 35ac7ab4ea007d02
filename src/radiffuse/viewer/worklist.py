"""The table of ``radiffuse select`` as the list of work: which scans, in which order, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..data.dataset import Case
from ..data.layouts.doubts import CHOSEN
from ..data.tables import read_table
from ..errors import InputError
from .scans import Item


@dataclass(frozen=True)
class Row:
    """A scan of the list: its place from 1 on, its file as the table names it, and why it was chosen."""

    place: int
    file: str
    why: str


@dataclass(frozen=True)
class Worklist:
    """The table.

    Attributes:
        path: Of the file.
        rows: By case.
    """

    path: Path
    rows: dict[str, Row]

    def of(self, cases: Iterable[Case]) -> tuple[Case, ...]:
        """Those of the cases that are in the list, in its order."""
        found = [case for case in cases if case.name in self.rows and self._is(case)]
        return tuple(sorted(found, key=lambda case: self.rows[case.name].place))

    def refuse_missing(self, items: Sequence[Item]) -> None:
        """Refuse a list of other scans.

        Raises:
            InputError: Names the first that is not among the given ones.
        """
        missing = self.rows.keys() - {item.name for item in items}
        if missing:
            first = min(missing, key=lambda name: self.rows[name].place)
            problem = f"lists {self.rows[first].file}, which is none of the given scans"
            raise InputError(self.path, problem, "Give the folder that the scans were chosen from")

    def _is(self, case: Case) -> bool:
        path = PurePosixPath(case.images[0].as_posix())
        parts = PurePosixPath(self.rows[case.name].file).parts
        return path.parts[-len(parts) :] == parts


def read_worklist(path: Path) -> Worklist:
    """The table of ``radiffuse select``.

    Raises:
        InputError: It cannot be read, or is another table.
    """
    remedy = "Give the file that radiffuse select wrote"
    if not path.is_file():
        raise InputError(path, "does not exist", remedy)
    rows = read_table(path)
    if not set(CHOSEN) <= rows[0].keys():
        raise InputError(path, f"lacks the columns {', '.join(CHOSEN)}", remedy)
    found = {row["case"]: Row(i, row["file"], row["why"]) for i, row in enumerate(rows, start=1)}
    return Worklist(path, found)
