"""Scores of cases by networks that did not see them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from ..config import Machine
from ..data.cases import read_case_image, read_case_label
from ..data.dataset import Case, Dataset
from ..data.scan import Array, Scan
from ..evaluation.scoring import Scored, say_skipped, score_masks
from ..evaluation.statistics import PairedTest, clustered_difference
from ..evaluation.tables import over_classes, read_scores
from ..inference.expecting import COLUMN
from ..inference.postprocess import postprocess
from ..inference.predictor import Predictor
from ..train.run import Run
from .folds import Folds
from .halving import Entry, leaderboard, may_lead
from .record import Record

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("dice", "nsd")
LEAST_COMPARED = 4
"""Patients on whom a gain has to be seen: fewer gains of one sign are too easily chance."""
SCORED = Path("validation") / "cases.csv"
"""In the folder of a fold's run: the scores of the cases that it did not see, written last."""


class OutOfFold:
    """Segments each case with the runs of the fold that left it out.

    Args:
        folds: Of the cases.
        runs: Of every fold, those that vote.
        machine: To compute on.
        tta: Views that are averaged.
    """

    def __init__(
        self,
        folds: Folds,
        runs: Sequence[Sequence[Run]],
        machine: Machine,
        tta: Sequence[str] = (),
    ) -> None:
        self.folds, self.runs, self.machine, self.tta = folds, runs, machine, tuple(tta)
        self.opened: dict[int, Predictor] = {}
        self.expected: dict[str, tuple[float, ...]] = {}
        self.masks: dict[str, bytes] = {}

    @classmethod
    def of(
        cls,
        record: Record,
        members: Sequence[Entry],
        machine: Machine,
        tta: Sequence[str] = (),
    ) -> Self:
        """By the fold runs of these, whose weights are there.

        Raises:
            RunError: One is not there.
        """
        each = [record.folders(entry.candidate, entry.steps) for entry in members]
        runs = [[Run.open(folder) for folder in fold] for fold in zip(*each, strict=True)]
        return cls(record.folds, runs, machine, tta)

    def predictor(self, case: Case) -> Predictor:
        """What segments a case."""
        fold = next(i for i, part in enumerate(self.folds.parts) if case.name in part)
        if fold not in self.opened:
            self.opened[fold] = Predictor.open(self.runs[fold], self.machine, tta=self.tta)
        return self.opened[fold]

    def mask(self, case: Case, image: Scan) -> Array:
        """The mask ``(*spatial)`` of a case, before post-processing; it is made once, and kept compressed."""
        if case.name not in self.masks:
            found = self.predictor(case)(image, case.name)
            self.expected[case.name] = found.expected
            self.masks[case.name] = zlib.compress(found.mask.tobytes(), 1)
        values = np.frombuffer(zlib.decompress(self.masks[case.name]), np.uint8)
        return values.reshape(image.spatial_shape)

    def read(self, case: Case) -> tuple[Scan, Scan]:
        """Image and truth of a case.

        Raises:
            InputError: One cannot be read.
        """
        image = read_case_image(case)
        return image, read_case_label(case, image)

    def score(
        self, dataset: Dataset, steps: Sequence[str] = (), *, skip_bad: bool = False
    ) -> Scored:
        """Scores of all cases of the folds, with post-processing by ``steps``, and the Dice that was expected."""
        names = {name for part in self.folds.parts for name in part}

        def mask(case: Case, image: Scan, truth: Scan) -> Scan:
            return image.with_array(postprocess(self.mask(case, image), steps, image.spacing)[None])

        cases = dataset.filter(lambda case: case.name in names)
        classes = self.predictor(cases.cases[0]).plan.classes
        scored = score_masks(cases, mask, classes, skip=say_skipped if skip_bad else None)
        pairs = zip(scored.table["case"], scored.table["class"], strict=True)
        place = {name: value for value, name in enumerate(classes[1:])}
        scored.table[COLUMN] = [self.expected[case][place[name]] for case, name in pairs]
        return scored


def leaderboard_of(record: Record, share: float = 1.0) -> list[Entry]:
    """The ``leaderboard`` of a record: the candidate to beat is first, unless the cases show that another is better.

    Args:
        record: Of what was tried.
        share: See ``Record.tried_by``.
    """
    return leaderboard(
        record.tried_by(share),
        _first(record),
        lambda one, other: is_sure(gain_over(record, one, other)),
    )


def needless(record: Record, share: float, most: int) -> list[Entry]:
    """What was tried, see ``Record.tried_by``, and cannot come among the ``most`` first of the leaderboard any more."""
    tried = record.tried_by(share)
    kept = may_lead(tried, _first(record), most)
    return [entry for entry in tried if entry not in kept]


def gain_over(record: Record, one: Entry, other: Entry) -> PairedTest:
    """By how much the Dice of the left-out cases is higher with one candidate than with another."""
    ours, theirs = (by_case(read_folds(record.folders(e.candidate, e.steps))) for e in (one, other))
    return clustered_difference(ours["dice"], theirs["dice"], group=list(ours["group"]))


def is_sure(gain: PairedTest) -> bool:
    """Whether the interval of a gain lies above 0, and is of more than a few patients."""
    return gain.low > 0 and gain.n >= LEAST_COMPARED


def by_case(table: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice and surface Dice of each case, by name; a class that truth and mask both lack counts as found."""
    filled = table.fillna(dict.fromkeys(METRICS, 1.0))
    return over_classes(filled, METRICS).sort_values("case", ignore_index=True)


def read_folds(folders: Sequence[Path]) -> pd.DataFrame:
    """The scores of all folds as one table, from the folders of their runs.

    Raises:
        InputError: One is missing or damaged.
    """
    import pandas as pd

    return pd.concat([read_scores(folder / SCORED) for folder in folders], ignore_index=True)


# ------------------------------------------------------------------------------------------------ internal


def _first(record: Record) -> list[str]:
    """Names of the candidate to beat, without the pool and with it."""
    first = record.candidates[0].proposal
    return [one.name for one in record.candidates if one.proposal == first]
