"""Tables of scores: what goes in, what is refused, and how means are formed."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from radiffuse.commands.evaluate import _print as print_scores
from radiffuse.config import IGNORE, Data
from radiffuse.data.layouts import open_dataset
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError
from radiffuse.evaluation.scoring import thumbnails
from radiffuse.evaluation.tables import (
    COLUMNS,
    class_sizes,
    distance_unit,
    evaluate_cases,
    over_classes,
    read_scores,
    size_groups,
    summarize,
)
from radiffuse.phantoms import write_dataset
from radiffuse.system.cells import csv_text

CLASSES = ("background", "lung", "heart")


def label_map(value: int = 1, *, shape=(12, 12), dtype=np.uint8, **geometry) -> Scan:
    array = np.zeros((1, *shape), dtype)
    array[(0, *(slice(2, 8),) * len(shape))] = value
    return Scan(array, **geometry)


def test_table_has_a_row_per_case_and_class() -> None:
    pairs = [(name, label_map(), label_map(spacing=(2.0, 2.0))) for name in ("a", "b")]
    table = evaluate_cases(iter(pairs), CLASSES)
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["case"], table["class"], strict=True)) == [
        ("a", "lung"), ("a", "heart"), ("b", "lung"), ("b", "heart"),
    ]  # fmt: skip
    lung, heart = table.iloc[0], table.iloc[1]
    assert (lung["dice"], lung["counted"], lung["unit"]) == (1.0, True, "mm")
    assert not heart["counted"]
    assert np.isnan(heart["dice"])


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
@pytest.mark.parametrize("signs", [*itertools.product((1, -1), repeat=3)])
def test_pictures_of_volumes_are_axial_with_the_right_on_the_left(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    """Whatever the axes of the file."""
    known = np.zeros((6, 5, 4), np.uint8)  # axes to the right, to the front, to the head
    known[4, 3, 1] = 1
    turns = np.column_stack([order, signs])
    array = apply_orientation(known, turns)[None]
    volume = Scan(array, (1.0,) * 3, inv_ornt_aff(turns, known.shape))
    for picture in thumbnails(volume, volume, volume):
        assert picture.shape == (5, 6)
        assert np.argwhere(picture).tolist() == [[1, 1]]


def test_no_cases_give_an_empty_table_with_columns() -> None:
    assert tuple(evaluate_cases([], CLASSES).columns) == COLUMNS


def test_the_unit_of_distances_is_one_or_said_to_be_mixed() -> None:
    for units, said in (
        (["px", "px"], "px"),
        (["mm"], "mm"),
        (["px", "mm"], "mm or px"),
        ([], "mm or px"),
    ):
        assert distance_unit(pd.DataFrame({"unit": units}, dtype=str)) == said
    assert distance_unit(pd.DataFrame({"dice": [0.5]})) == "mm or px"


def test_whole_floats_are_labels() -> None:
    table = evaluate_cases([("a", label_map(dtype=np.float32), label_map())], CLASSES)
    assert table["dice"].iloc[0] == 1.0


@pytest.mark.parametrize(
    ("prediction", "truth", "problem"),
    [
        (label_map(shape=(12, 13)), label_map(), "12 x 13"),
        (label_map(7), label_map(), "label 7"),
        (label_map(255), label_map(), "label 255"),
        (label_map(), label_map(7), "truth holds label 7"),
        (Scan(np.full((1, 12, 12), 0.5)), label_map(), "whole numbers"),
        (Scan(np.full((1, 12, 12), np.nan)), label_map(), "whole numbers"),
        (Scan(np.full((1, 12, 12), np.inf)), label_map(), "whole numbers"),
        (Scan(np.zeros((3, 12, 12), int)), label_map(), "3 channels"),
        (Scan(np.full((1, 12, 12), -1)), label_map(), "label -1"),
    ],
)
def test_unusable_pairs_name_the_case(prediction: Scan, truth: Scan, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        evaluate_cases([("patient 7", prediction, truth)], CLASSES)
    assert str(caught.value).startswith("patient 7: ")


def test_ignore_is_legal_in_the_truth() -> None:
    table = evaluate_cases([("a", label_map(), label_map(255))], CLASSES)
    assert not table["counted"].any()


def test_masks_elsewhere_in_space_are_refused() -> None:
    moved = np.eye(4)
    moved[0, 3] = 5.0
    shape = (12, 12, 12)
    here = label_map(shape=shape, affine=np.eye(4), spacing=(1.0, 1.0, 1.0))
    there = label_map(shape=shape, affine=moved, spacing=(1.0, 1.0, 1.0))
    nearly = label_map(shape=shape, affine=np.eye(4) + 1e-4, spacing=(1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"up to 5\.00 mm"):
        evaluate_cases([("a", there, here)], CLASSES)
    assert evaluate_cases([("a", nearly, here)], CLASSES)["dice"].iloc[0] == 1.0


def scores(**columns: list) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    return table.assign(iou=table["dice"], nsd=table["dice"], hd95=1.0)


def test_summary_averages_classes_within_a_case_first() -> None:
    table = scores(
        **{"case": ["a", "a", "b"], "class": ["lung", "heart", "lung"], "dice": [1.0, 0.0, 0.8]}
    )
    summary = summarize(table).set_index(["class", "metric"])
    assert summary.loc[("lung", "dice"), "mean"] == pytest.approx(0.9)
    # Case a has .5 and case b .8; the three scores themselves would average .6.
    assert summary.loc[("all", "dice"), "mean"] == pytest.approx(0.65)
    assert summary.loc[("all", "dice"), "n"] == 2


def test_summary_says_how_many_were_not_counted() -> None:
    table = scores(**{"case": list("abc"), "class": ["lung"] * 3, "dice": [1.0, np.nan, 0.5]})
    row = summarize(table, metrics=("dice",)).iloc[0]
    assert (row["mean"], row["n"], row["not_counted"]) == (0.75, 2, 1)


def test_summary_resamples_patients_and_splits_by_columns() -> None:
    values = np.random.default_rng(0).normal(0.8, 0.1, 12)
    table = scores(
        **{
            "method": ["x"] * 12 + ["y"] * 12,
            "case": [f"c{i}" for i in range(12)] * 2,
            "group": [f"p{i // 4}" for i in range(12)] * 2,
            "class": ["lung"] * 24,
            "dice": [*values, *(values + 0.1)],
        }
    )
    summary = summarize(table, by=("method",), metrics=("dice",))
    means = summary[summary["class"] == "lung"].set_index("method")["mean"]
    assert means["y"] - means["x"] == pytest.approx(0.1)
    apart = summarize(table.drop(columns="group"), by=("method",), metrics=("dice",))
    assert not np.allclose(apart["low"], summary["low"])


def test_over_classes_keeps_draws_apart() -> None:
    table = scores(
        **{
            "draw": [0, 0, 1],
            "case": ["a", "a", "a"],
            "class": ["x", "y", "x"],
            "dice": [1, 0, 0.2],
        }
    )
    assert over_classes(table)["dice"].tolist() == [0.5, 0.2]


def test_the_size_is_the_mean_over_maps_that_have_the_class() -> None:
    maps = [np.array([[0, 1, 1], [2, IGNORE, 1]]), np.array([[0, 0, 1], [0, 0, 0]])]
    assert class_sizes(maps, ("background", "a", "b", "c")) == {"a": 2.0, "b": 1.0, "c": 0.0}


def test_thirds_by_size() -> None:
    groups = size_groups({"liver": 900, "vein": 3, "spleen": 200, "gland": 1, "kidney": 150})
    assert groups == {
        "gland": "small",
        "vein": "small",
        "kidney": "medium",
        "spleen": "medium",
        "liver": "big",
    }
    assert size_groups({"a": 1, "b": 2}) == {"a": "big", "b": "big"}


def test_one_case_has_no_interval_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"case": n, "group": n, "class": "lung", "dice": 0.9, "counted": True} for n in "ab"]
    table, over = pd.DataFrame(rows), "means over 2 cases, with 95 % intervals"
    for cases, head, interval in (
        (table[:1], "scores of one case", "no interval"),
        (table, over, "0.900 to 0.900"),
        (table.assign(iou=[0.9, np.nan]), over, "no interval, 1 case"),
    ):
        print_scores(
            summarize(cases, metrics=[m for m in ("dice", "iou") if m in cases]), {}, [], []
        )
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == head
        assert lines[-1].endswith(f" 0.900  ({interval})")


def test_a_class_and_a_case_called_nan_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        {"case": "nan", "class": name, "dice": dice}
        for name, dice in (("NaN", 0.5), ("b", math.nan))
    ]
    (tmp_path / "cases.csv").write_text(csv_text(pd.DataFrame(rows)))
    table = read_scores(tmp_path / "cases.csv")
    assert table["class"].tolist() == ["NaN", "b"]
    assert table["case"].tolist() == ["nan", "nan"]
    assert table["dice"].isna().tolist() == [False, True]


@pytest.mark.parametrize("name", ["all", ""])
def test_no_class_has_the_name_of_the_mean_over_classes(name: str, tmp_path: Path) -> None:
    write_dataset("bitewing", tmp_path, count=2, labelled=True, seed=0, size=(16, 16))
    (tmp_path / "classes.json").write_text(json.dumps({"0": "background", "1": name}))
    with pytest.raises(InputError, match="which tables call the mean"):
        open_dataset(tmp_path)
    names = ("background", "tooth")
    assert open_dataset(tmp_path, Data(class_names=names)).classes == names
