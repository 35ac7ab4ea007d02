"""What more labels would bring: in the time that is left, the choice also learns from half of the labels of each fold.

Both are told apart after as few steps as its briefest trial had.

OUT/fewer/fold-K/   its runs
OUT/labels.csv      mean Dice by number of labels, with its interval
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..data.dataset import Case
from ..data.streams import Stream
from ..errors import OF_ONE_NETWORK
from ..evaluation.more_labels import Gain, curve, gain
from ..system.cells import csv_text
from ..system.files import write_atomic
from .halving import Entry
from .labels import Labels
from .record import Record
from .scores import SCORED, by_case, read_folds

MORE = 10
"""Further labels of which is said what they would bring."""
FOLDER, CURVE = "fewer", "labels.csv"
SLACK = 1.2
"""Times the seconds of a training that have to be left for one."""
TrainFold = Callable[[int, Path, Path], None]
"""Trains and scores the choice on a fold, into a folder, by a splits file."""


def look_ahead(record: Record, labels: Labels, entry: Entry, train: TrainFold) -> Gain:
    """Train where time is left, write the curve, and say what ``MORE`` labels would bring.

    Args:
        record: Of the choice.
        labels: The labelled cases.
        entry: The briefest trial of what was chosen, or of the first of several; its runs of the folds are scored.
        train: Trains on a part of a fold.
    """
    import pandas as pd

    out, own, folds = record.path.parent, len(labels.names), []
    for fold, whole in enumerate(record.folders(entry.candidate, entry.steps)):
        rest, folder = record.folds.rest(fold), out / FOLDER / whole.name
        half = half_of(labels.cases, rest, fold)
        done = (folder / SCORED).is_file()
        enough = record.left > SLACK * entry.seconds / len(record.folds.parts)
        if half and not done and enough:
            labels.write_split(split := folder.with_suffix(".json"), half, record.folds.parts[fold])
            try:
                train(fold, folder, split)
                done = True
            except OF_ONE_NETWORK:
                pass
            shutil.rmtree(folder / "model", ignore_errors=True)
        if half and done:
            dice = [float(by_case(read_folds([path]))["dice"].mean()) for path in (folder, whole)]
            folds.append({len(half): dice[0], len(rest): dice[1]})
    found = gain(folds, own, MORE)
    at = sorted({*(n for one in folds for n in one), own, own + found.more})
    if rows := curve(folds, at):
        table = pd.DataFrame(rows, columns=["labels", "dice", "low", "high"])
        write_atomic(out / CURVE, csv_text(table, "%.4f"))
    return found


def half_of(cases: Sequence[Case], names: Sequence[str], fold: int) -> tuple[str, ...]:
    """The named cases of half of their patients, drawn at random; () where there is one patient."""
    known = {*names}
    groups = sorted({case.group for case in cases if case.name in known})
    order = Stream.FOLDS.rng(0, fold).permutation(len(groups))
    half = {groups[i] for i in order[: len(groups) // 2]}
    return tuple(case.name for case in cases if case.name in known and case.group in half)
