"""Splits that a data set brings along, that are prolonged, and shares that cannot be met."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_files import film, film_label, pairs

from radiffuse.config import Data, Split
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import DRAWS, load_splits
from radiffuse.errors import InputError


def dataset(groups: list[int], parts: list[str | None] | None = None) -> Dataset:
    cases = tuple(
        Case(f"c{i:03d}", (Path(f"c{i}.png"),), Path(f"l{i}.png"), group=f"p{g}", split=part)
        for i, (g, part) in enumerate(zip(groups, parts or [None] * len(groups), strict=True))
    )
    return Dataset(Path("data"), "pairs", cases)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=4, max_size=40).filter(lambda g: len(set(g)) > 3),
    test=st.floats(0.2, 0.5),
    validation=st.floats(0.0, 0.2),
    seed=st.integers(0, 5),
)
def test_patients_stay_together_and_nobody_is_lost(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[int],
    test: float,
    validation: float,
    seed: int,
) -> None:
    cases = dataset(groups)
    chosen = Split(test=test, validation=validation, seed=seed)
    splits = load_splits(cases, chosen, tmp_path_factory.mktemp("s"))
    group = {case.name: case.group for case in cases}
    parts = (splits.train, splits.validation, splits.test)
    assert sorted(sum(parts, ())) == sorted(group)
    patients = [{group[name] for name in part} for part in parts]
    assert sum(map(len, patients)) == len(set(groups))
    assert len(splits.draws) == DRAWS
    for order in splits.draws:
        assert sorted(order) == sorted(splits.train)


def test_split_and_draws_depend_on_the_seed(tmp_path: Path) -> None:
    cases = dataset(list(range(30)))
    first = load_splits(cases, Split(seed=0), tmp_path)
    second = load_splits(cases, Split(seed=1), tmp_path)
    assert first.test != second.test
    assert len(set(first.draws)) == DRAWS


OTHER = {
    "test": 0.2,
    "validation": 0.2,
    "order": "name",
    "places": ("train:2", "test"),
    "validation_kept": 0,
}
"""A value of each setting of the split that is not its default."""


def test_splits_of_the_data_set_win(tmp_path: Path) -> None:
    parts: list[str | None] = ["train", "test", "validation", None, "train", "test"]
    cases = dataset(list(range(6)), parts)
    splits = load_splits(cases, Split(seed=3), tmp_path)
    assert splits.test == ("c001", "c005")
    assert splits.validation == ("c002",)
    assert splits.train == ("c000", "c003", "c004")
    for name, value in OTHER.items():
        given = dataclasses.replace(Split(), **{name: value})
        if name == "validation_kept":
            assert load_splits(cases, given, tmp_path).validation == ()
            cases = dataset(list(range(6)), ["train", "test"] * 3)
        with pytest.raises(
            InputError, match=f"^--split.{name.replace('_', '-')}: takes no effect, since data "
        ):
            load_splits(cases, given, tmp_path)
    usual = Split(test=0.2)
    assert load_splits(cases, usual, tmp_path, usual=usual).test == ("c001", "c003", "c005")


def test_a_split_of_the_data_set_that_parts_a_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parts the patient"):
        load_splits(dataset([0, 1, 1], ["train", "train", "test"]), Split(), tmp_path)
    assert not (tmp_path / "splits").exists()


def test_a_named_file_is_written_once_and_then_obeyed(tmp_path: Path) -> None:
    cases = dataset(list(range(10)))
    file = tmp_path / "deep" / "splits.json"
    chosen = Split(file=str(file), test=0.3)
    first = load_splits(cases, chosen, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    values = json.loads(file.read_text())
    moved = values["test"][1:]
    values["test"], values["train"] = values["test"][:1], values["train"] + moved
    values["draws"] = [order + moved for order in values["draws"]]
    file.write_text(json.dumps(values))
    edited = load_splits(cases, Split(file=str(file)), tmp_path / "cache")
    assert edited.test == first.test[:1]


def test_settings_that_state_another_split_than_a_file_are_refused(tmp_path: Path) -> None:
    cases, file = dataset(list(range(10))), str(tmp_path / "splits.json")
    chosen = Split(file=file, test=0.3, order="name", seed=2)
    first = load_splits(cases, chosen, tmp_path)
    for same in (chosen, Split(file=file), Split(file=file, test=3, order="name")):
        assert load_splits(cases, same, tmp_path, draw=2) == first
    for name, value in {"test": 0.4, "validation": 0.4, "order": "random", "seed": 5}.items():
        other = dataclasses.replace(chosen, **{name: value})  # type: ignore[arg-type]
        with pytest.raises(
            InputError, match=r"^--split\.\w+: takes no effect, since .*splits.json"
        ):
            load_splits(cases, other, tmp_path)
    folds = tmp_path / "folds.json"
    folds.write_text(json.dumps([{"train": ["c000"], "val": ["c001"]}]))
    with pytest.raises(InputError, match="^--split.order: takes no effect, since the fold decides"):
        load_splits(cases, Split(file=str(folds), order="name"), tmp_path)


@pytest.mark.parametrize("draws", [0, 2])
def test_a_file_that_is_there_is_only_read(tmp_path: Path, draws: int) -> None:
    """It may lie where nothing can be written; further draws depend on the seed alone."""
    cases, file = dataset(list(range(10))), tmp_path / "splits.json"
    made = load_splits(cases, Split(file=str(file), test=0.3), tmp_path / "cache", draw=DRAWS)
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"draws": values["draws"][:draws]}))
    before = file.read_bytes()
    for _ in range(2):
        found = load_splits(cases, Split(file=str(file)), tmp_path / "cache", draw=DRAWS)
        assert found == made
    assert file.read_bytes() == before
    assert not (tmp_path / "cache").exists()


def test_a_further_draw_is_added_and_the_old_ones_stay(tmp_path: Path) -> None:
    cases = dataset(list(range(10)))
    before = load_splits(cases, Split(test=0.3), tmp_path)
    after = load_splits(cases, Split(test=0.3), tmp_path, draw=DRAWS + 2)
    assert len(after.draws) == DRAWS + 3
    assert after.draws[:DRAWS] == before.draws
    assert load_splits(cases, Split(test=0.3), tmp_path) == after


@pytest.mark.parametrize("draw", [-1, -3])
def test_a_negative_draw_is_refused(tmp_path: Path, draw: int) -> None:
    with pytest.raises(InputError, match=f"--draw {draw}"):
        load_splits(dataset(list(range(10))), Split(test=0.3), tmp_path, draw=draw)


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        (Split(test=3.0, validation=0.0), "too few"),
        (Split(test=-0.1), "not legal"),
        (Split(test=0.6, validation=0.5), "not legal"),
        (Split(test=2.5), "not legal.*whole numbers of patients"),
        (Split(test=0.01), "too few"),
    ],
)
def test_shares_that_cannot_be_met(tmp_path: Path, shares: Split, word: str) -> None:
    with pytest.raises(InputError, match=word):
        load_splits(dataset([0, 1, 2]), shares, tmp_path)
    assert not (tmp_path / "splits").exists()


def test_a_site_whose_patients_are_all_of_another_too_is_split_with_it(tmp_path: Path) -> None:
    """As a second scanner on which one patient was seen again: it was refused for its 0 patients."""
    plain = dataset([0, 1, 2, 3, 0])
    sites = ("a", "a", "a", "a", "b")
    both = tuple(
        dataclasses.replace(case, site=site) for case, site in zip(plain, sites, strict=True)
    )
    splits = load_splits(
        dataclasses.replace(plain, cases=both), Split(test=0.5, validation=0), tmp_path
    )
    parts = {name: part for part in ("train", "test") for name in splits.part(part)}
    assert len(parts) == 5
    assert parts["c000"] == parts["c004"]


def test_an_order_that_is_not_of_the_pool_is_refused(tmp_path: Path) -> None:
    cases = dataset(list(range(10)))
    chosen = Split(file=str(tmp_path / "s.json"), test=0.3)
    splits = load_splits(cases, chosen, tmp_path)
    values = json.loads((tmp_path / "s.json").read_text())
    values["draws"][0][0] = splits.test[0]  # a test case would be trained on
    (tmp_path / "s.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"s\.json"):
        load_splits(cases, chosen, tmp_path)


@pytest.mark.parametrize(
    ("part", "names", "problem"),
    [
        ("train", ["c003", "c004", "c003"], "names c003 twice under train"),
        ("test", ["c001", "c001"], "names c001 twice under test"),
        ("train", [], "names no case to train on"),
    ],
)
def test_a_file_that_names_a_case_twice_or_none_is_refused(
    tmp_path: Path, part: str, names: list[str], problem: str
) -> None:
    file = tmp_path / "s.json"
    parts = {"train": ["c005"], "validation": ["c006"], "test": ["c007"], part: names}
    file.write_text(json.dumps({"version": 1, **parts, "draws": []}))
    with pytest.raises(InputError, match=problem):
        load_splits(dataset(list(range(10))), Split(file=str(file)), tmp_path)


@pytest.mark.parametrize("labels", [0, -1, 8])
def test_budgets_outside_the_pool(tmp_path: Path, labels: int) -> None:
    splits = load_splits(dataset(list(range(10))), Split(test=0.3, validation=0), tmp_path)
    assert len(splits.train) == 7
    assert splits.budget(None, 0) == splits.train
    with pytest.raises(InputError, match=f"--labels {labels}"):
        splits.budget(labels, 0)


def test_more_labels_than_are_left_name_the_way_to_use_all(tmp_path: Path) -> None:
    five = dataset([0, 1, 2, 3, 4])
    with pytest.raises(
        InputError, match="there are 3 .* 2 for validation and test.*--test 0 --val"
    ):
        load_splits(five, Split(), tmp_path).budget(5, 0)
    everything = load_splits(five, Split(test=0, validation=0), tmp_path)
    assert len(everything.budget(5, 0)) == 5
    with pytest.raises(InputError, match="Choose 1 to 5, or leave --labels out"):
        everything.budget(6, 0)


def grouped(films: Path) -> Dataset:
    """Twelve cases of five patients."""
    dataset = open_dataset(films)
    cases = tuple(dataclasses.replace(c, group=f"p{i % 5}") for i, c in enumerate(dataset))
    return dataclasses.replace(dataset, cases=cases)


def test_no_patient_is_parted_and_budgets_are_nested(films: Path, tmp_path: Path) -> None:
    dataset = grouped(films)
    splits = load_splits(dataset, Split(test=0.4, validation=0.2), tmp_path)
    group = {case.name: case.group for case in dataset}
    parts = [{group[n] for n in splits.part(p)} for p in ("train", "validation", "test")]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    assert sum(len(splits.part(p)) for p in ("train", "validation", "test")) == 12
    for number in range(3):
        budgets = [splits.budget(n, number) for n in range(1, len(splits.train) + 1)]
        assert all(set(a) < set(b) for a, b in itertools.pairwise(budgets))
        first = [group[name] for name in splits.draws[number][: len(parts[0])]]
        assert len(set(first)) == len(first)  # every patient once before any twice
    assert load_splits(dataset, Split(test=0.4, validation=0.2), tmp_path) == splits


def test_splits_of_other_data_or_that_part_a_patient_are_refused(
    films: Path, tmp_path: Path
) -> None:
    dataset = grouped(films)
    file = tmp_path / "splits.json"
    settings = Split(file=str(file), test=0.4, validation=0.2)
    splits = load_splits(dataset, settings, tmp_path)
    half = dataset.filter(lambda case: case.group != "p1")
    with pytest.raises(InputError, match="lacks"):
        load_splits(half, settings, tmp_path)
    text = file.read_text()
    moved = splits.test[0]
    file.write_text(text.replace(f'"{moved}"', f'"{splits.train[0]}"', 1))
    with pytest.raises(InputError, match="parts the patient"):
        load_splits(dataset, settings, tmp_path)
    file.write_text("{}")
    with pytest.raises(InputError, match="not a splits file"):
        load_splits(dataset, settings, tmp_path)


def test_the_cache_tells_apart_what_the_patients_and_settings_are(tmp_path: Path) -> None:
    """The same images with other patients, or another seed or share, are other splits, each kept."""
    apart, pairs = dataset(list(range(12))), dataset([i // 2 for i in range(12)])
    chosen = Split(test=0.5, validation=0.0)
    first = load_splits(apart, chosen, tmp_path)
    second = load_splits(pairs, chosen, tmp_path)
    for part in (second.train, second.test):  # c000 and c001 are of one patient, and so on
        numbers = sorted(int(name[1:]) for name in part)
        assert len(numbers) == 6
        assert all(n ^ 1 in numbers for n in numbers)
    reseeded = load_splits(apart, dataclasses.replace(chosen, seed=1), tmp_path)
    smaller = load_splits(apart, dataclasses.replace(chosen, test=0.25), tmp_path)
    assert sorted(len(s.test) for s in (first, reseeded, smaller)) == [3, 6, 6]
    assert len(list((tmp_path / "splits").iterdir())) == 4
    assert load_splits(apart, chosen, tmp_path) == first
    assert load_splits(pairs, chosen, tmp_path) == second


def test_draws_of_labels_differ_and_go_round_the_patients(tmp_path: Path) -> None:
    """Eight patients of three images: the first eight labels are of eight patients, also the second."""
    splits = load_splits(
        dataset([i // 3 for i in range(24)]), Split(test=0, validation=0), tmp_path
    )
    assert len({order[:3] for order in splits.draws}) == len(splits.draws)
    for order in splits.draws:
        patients = [int(name[1:]) // 3 for name in order]
        assert all(len(set(patients[i : i + 8])) == 8 for i in (0, 8, 16))


def films_of_classes(root: Path) -> None:
    for k, name in enumerate("ab"):
        for i in range(5):
            film(root / "train" / name / f"{i}.png", seed=10 * k + i)


def rows(root: Path) -> None:
    lines = ["image,label,split"]
    for i in range(10):
        film(root / f"{i}.png", seed=i)
        film_label(root / "maps" / f"{i}.png")
        lines.append(f"{i}.png,maps/{i}.png,{'train' if i else ''}")
    (root / "films.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("made", [lambda root: pairs(root / "train", 10), films_of_classes, rows])
def test_where_train_is_the_only_part_a_test_is_drawn_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: Callable[[Path], object]
) -> None:
    made(tmp_path)
    found = open_dataset(tmp_path)
    assert "names a part to train on and no other" in capsys.readouterr().err
    splits = load_splits(found, Split(test=0.3, validation=0), tmp_path / "cache")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (7, 0, 3)
    assert len(load_splits(found, Split(test=0, validation=0), tmp_path / "cache").train) == 10


def test_where_other_parts_are_named_or_left_out_by_only_train_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, part in enumerate(("train", "val")):
        pairs(tmp_path / part, 3 + i)
    assert {case.split for case in open_dataset(tmp_path)} == {"train", "validation"}
    only = open_dataset(tmp_path, Data(only="^train/"))
    assert [case.split for case in only] == ["train"] * 3
    film(tmp_path / "pool" / "train" / "a.png")
    open_dataset(tmp_path / "pool")  # nothing to split
    assert not capsys.readouterr().err
