"""What more labels would bring: halves of the folds, within the time, and a sentence and a table of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from made_candidates import make_candidate
from radiffuse.automatic.folds import Folds
from radiffuse.automatic.halving import Entry
from radiffuse.automatic.labels import Labels
from radiffuse.automatic.outlook import half_of, look_ahead
from radiffuse.automatic.record import Record
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.splits import Splits, read_splits
from radiffuse.errors import TrainingDiverged

NAMES = tuple(f"{patient}{i}" for patient in "abcde" for i in (0, 1))
PARTS = tuple(NAMES[i : i + 2] for i in range(0, 10, 2))
CASES = tuple(Case(name, (Path(name),), label=Path(name), group=name[0]) for name in NAMES)


def write_scores(folder: Path, names: tuple[str, ...], dice: float) -> None:
    (folder / "validation").mkdir(parents=True)
    rows = [{"case": n, "group": n[0], "class": "x", "dice": dice, "nsd": dice} for n in names]
    pd.DataFrame(rows).to_csv(folder / "validation/cases.csv", index=False)


def made(out: Path, hours: float = 1.0) -> tuple[Record, Labels, Entry]:
    """Five folds of two cases whose Dice is .9 with all eight labels."""
    record = Record(out / "choice.json", Folds(PARTS), hours, [], {})
    for folder, part in zip(record.folders("scratch", 9), PARTS, strict=True):
        write_scores(folder, part, 0.9)
    dataset = Dataset(out, "pairs", CASES)
    return (
        record,
        Labels(dataset, Splits(NAMES, (), ()), NAMES),
        Entry("scratch", 9, 0.9, 0.9, 500.0),
    )


def test_half_of_the_patients_of_each_fold(tmp_path: Path) -> None:
    record = made(tmp_path)[0]
    for fold, part in enumerate(PARTS):
        half = half_of(CASES, record.folds.rest(fold), fold)
        assert len(half) == 4
        assert {n[0] for n in half} == {n[0] for n in NAMES if n in half}
        assert not {n[0] for n in half} & {n[0] for n in part}
        assert half == half_of(CASES, record.folds.rest(fold), fold)
    assert half_of(CASES, ("a0", "a1"), 0) == ()


def test_halves_are_trained_scored_and_followed(tmp_path: Path) -> None:
    """Loss .2 with four labels and .1 with eight: of 1 / n, so that ten more than ten bring .08 - .04."""
    record, labels, entry = made(tmp_path)
    seen = []

    def train(fold: int, folder: Path, split: Path) -> None:
        parts = read_splits(split)
        assert parts.validation == PARTS[fold]
        assert not set(parts.train) & set(PARTS[fold])
        assert parts.test == ()  # the labels have no test part
        (folder / "model").mkdir(parents=True)
        write_scores(folder, PARTS[fold], 0.8)
        seen.append(fold)

    found = look_ahead(record, labels, entry, train)
    assert seen == [0, 1, 2, 3, 4]
    assert (found.labels, found.more, found.dice) == (10, 10, pytest.approx(0.04))
    table = pd.read_csv(tmp_path / "labels.csv")
    assert list(table["labels"]) == [4, 8, 10, 20]
    assert list(table["dice"]) == pytest.approx([0.8, 0.9, 0.92, 0.96])
    assert not list(tmp_path.rglob("model"))
    again = look_ahead(record, labels, entry, lambda *_: pytest.fail("was trained again"))
    assert again == found


def test_without_time_nothing_is_trained_and_nothing_is_decided(tmp_path: Path) -> None:
    record, labels, entry = made(tmp_path, hours=100 / 3600)  # a fold takes 100 s
    found = look_ahead(record, labels, entry, lambda *_: pytest.fail("there is no time"))
    assert "is not known: it was not measured" in str(found)
    assert not (tmp_path / "labels.csv").exists()


def test_a_training_that_diverges_is_left_out(tmp_path: Path) -> None:
    record, labels, entry = made(tmp_path)

    def train(fold: int, folder: Path, split: Path) -> None:
        if fold < 3:
            raise TrainingDiverged("loss is not finite")
        write_scores(folder, PARTS[fold], 0.8)

    assert "is not known" in str(look_ahead(record, labels, entry, train))


def test_the_briefest_trial_without_the_pool_tells_what_more_labels_bring() -> None:
    tried = [
        Entry(name, steps, 0.9, 0.5, 60.0)
        for name, steps in (("a", 20), ("a", 10), ("a+pool", 5), ("b+pool", 7))
    ]
    known = [make_candidate(name, pool=pool) for name in "abc" for pool in (False, True)]
    record = Record(Path("choice.json"), Folds(()), 1.0, known, {}, tried=tried)
    assert record.briefest("a+pool") == record.briefest("a") == tried[1]
    assert record.briefest("b+pool") == tried[3]
    assert record.briefest("c") is None
