"""The labelled cases of an automatic choice, and their splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import FIT, Fit, Split
from ..data.dataset import Case, Dataset
from ..data.issues import some
from ..data.layouts import open_dataset
from ..data.layouts.unpaired import no_labels
from ..data.prepare import cache_folder
from ..data.splits import Splits, load_splits, verify_labels, write_splits
from ..errors import InputError
from ..train.known import trained_on
from ..train.start import find_pretrained
from .folds import LEAST_PATIENTS


@dataclass(frozen=True)
class Labels:
    """The labelled cases.

    Attributes:
        dataset: All of them.
        splits: Of them.
        names: Those to learn from.
    """

    dataset: Dataset
    splits: Splits
    names: tuple[str, ...]

    @property
    def cases(self) -> list[Case]:
        """The cases to learn from."""
        learned = {*self.names}
        return [case for case in self.dataset if case.name in learned]

    @property
    def patients(self) -> int:
        """How many patients the cases are of."""
        return len({case.group for case in self.cases})

    @property
    def why_untried(self) -> str:
        """Why nothing is left out, where nothing is."""
        if self.patients < LEAST_PATIENTS:
            few = "one patient" if self.patients == 1 else f"{self.patients} patients"
            return f"the labels are of {few}, too few to leave any out to choose by"
        return "there is too little time to try anything on folds"

    def write_split(self, path: Path, train: Sequence[str], validation: Sequence[str] = ()) -> None:
        """A splits file; held out with ``validation`` is what the labels' own splits hold out."""
        held = (*self.splits.validation, *self.splits.test)
        write_splits(path, Splits(tuple(train), tuple(validation), held))


def read_labels(settings: Fit, *, write: bool) -> Labels:
    """Read and split the labelled cases.

    Raises:
        InputError: There are none, or too few, or the run to start from knows some of them.
    """
    dataset = open_dataset(settings.data, settings.reader).labelled
    if not len(dataset):
        raise no_labels(settings.data)
    verify_labels(settings.labels, dataset)
    cache = cache_folder(settings.reader.cache)
    usual = FIT["auto"].split
    splits = load_splits(dataset, settings.split, cache, settings.draw, write=write, usual=usual)
    names = splits.budget(settings.labels, settings.draw)
    if settings.from_run:
        source = find_pretrained(settings.from_run)
        if seen := sorted(trained_on([source], dataset).intersection(names)):
            problem = f"learned from {some(seen, 3)}, which auto leaves out to choose by"
            raise InputError(f"--from {settings.from_run}", problem, "Name a --method")
    return Labels(dataset, splits, names)


def by_split(settings: Fit, every: Path) -> Fit:
    """The settings of what learns from all labels, as a splits file names them."""
    return replace(settings, split=Split(file=str(every)), labels=None, draw=0)
