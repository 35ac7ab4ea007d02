"""The public sets of abdominal CT are understood as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ct_sets import PLACES, SETS, SHAPE, body, btcv, flare22, save, totalsegmentator

from radiffuse.config import Data, Split
from radiffuse.data.cases import read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.class_names import classes_of_set
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.data.splits import load_splits
from radiffuse.errors import InputError


@pytest.mark.parametrize("header_only", [False, True])
@pytest.mark.parametrize("name", SETS)
def test_nothing_is_wrong_with_a_download(name: str, header_only: bool, tmp_path: Path) -> None:
    result = check_path(SETS[name](tmp_path / name), Data(), workers=0, decode=not header_only)
    assert [issue.problem for issue in result.issues] == []
    assert result.summary["labelled"] == 5


def test_btcv(tmp_path: Path) -> None:
    root = btcv(tmp_path)
    dataset = open_dataset(root, Data(class_names=("btcv",)))
    assert dataset.layout == "pairs"
    assert dataset.classes == tuple(classes_of_set("btcv").values())
    pairs = {case.images[0].name: case.label.name for case in dataset if case.label}
    assert pairs == {f"img{i:04d}.nii.gz": f"label{i:04d}.nii.gz" for i in range(1, 6)}
    assert [case.split for case in dataset if not case.label] == ["test", "test"]
    splits = load_splits(dataset.labelled, Split(test=2, validation=1), tmp_path / "cache")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [2, 1, 2]
    alone = open_dataset(root / "Training")
    assert [case.name for case in alone] == [f"img{i:04d}" for i in range(1, 6)]


def test_flare22(tmp_path: Path) -> None:
    root = flare22(tmp_path)
    cases = open_dataset(root).cases
    assert [case.name for case in cases] == [f"FLARE22_Tr_{i:04d}" for i in range(1, 6)]
    assert all(case.label and case.label.name == f"{case.name}.nii.gz" for case in cases)
    (root / "labels" / "FLARE22_Tr_0003.nii.gz").unlink()
    issues = survey(root)[1]
    assert [(Path(i.where).name, i.problem) for i in issues] == [
        ("FLARE22_Tr_0003_0000.nii.gz", "has no label")
    ]


def test_names_that_could_be_matched_in_two_ways_are_not(tmp_path: Path) -> None:
    for name in ("images/img0001", "images/image0001", "labels/label0001"):
        save(body(0)[0], tmp_path / f"{name}.nii.gz")
    problems = sorted(issue.problem for issue in survey(tmp_path)[1])
    assert problems == ["has no label", "has no label", "is a label without an image"]


def test_totalsegmentator(tmp_path: Path) -> None:
    root = totalsegmentator(tmp_path)
    dataset = open_dataset(root)
    assert dataset.layout == "totalsegmentator"
    # in the order of the numbers of TotalSegmentator
    assert dataset.classes == (
        "background", "spleen", "left kidney", "liver", "stomach", "colon",
    )  # fmt: skip
    label = read_case_label(dataset.cases[1]).array[0]
    for value, name in enumerate(dataset.classes):
        if name in PLACES:
            np.testing.assert_array_equal(label == value, body(1)[1][name])
    assert label.max() == 4
    assert {c.name: c.split for c in dataset} == {
        "s0000": "train", "s0001": "train", "s0002": "train", "s0003": "validation", "s0004": "test",
    }  # fmt: skip


def test_all_structures_have_the_numbers_of_totalsegmentator(tmp_path: Path) -> None:
    table = classes_of_set("totalsegmentator")
    others = tuple(name for value, name in table.items() if value and name not in PLACES)
    assert open_dataset(totalsegmentator(tmp_path, others)).classes == tuple(
        table[value] for value in sorted(table)
    )


def test_structures_can_be_chosen(tmp_path: Path) -> None:
    root = totalsegmentator(tmp_path)
    names = ("background", "liver", "kidney_left")
    dataset = open_dataset(root, Data(class_names=names))
    assert dataset.classes == names
    label = read_case_label(dataset.cases[0]).array[0]
    np.testing.assert_array_equal(label == 2, body(0)[1]["left kidney"])
    assert check_path(root, Data(class_names=names), workers=0).issues == ()
    for chosen, problem in (
        (("background", "brain"), "no case with a mask of brain"),
        (("background", "liver", "Liver"), "takes each structure once"),
    ):
        with pytest.raises(InputError, match=problem):
            open_dataset(root, Data(class_names=chosen))
    with pytest.raises(InputError, match="a file for each class"):
        open_dataset(root, Data(label_values=(0, 1)))


def test_what_is_wrong_with_masks_of_structures_is_named(tmp_path: Path) -> None:
    root = totalsegmentator(tmp_path)
    masks = "segmentations"
    (root / "s0000" / masks / "liver.nii.gz").unlink()
    save(np.full(SHAPE, 7, np.uint8), root / "s0001" / masks / "liver.nii.gz")  # one value, not 1
    several = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3
    save(several.astype(np.uint8), root / "s0002" / masks / "liver.nii.gz")
    save(np.zeros((4, 4, 4), np.uint8), root / "s0003" / masks / "colon.nii.gz")
    save(body(4)[0], root / "s0004" / "pet.nii.gz")
    found = {
        i.where.removeprefix(f"{root}/"): i.problem for i in check_path(root, workers=0).errors
    }
    assert found == {
        "s0000": "lacks the masks of liver",
        "s0002/segmentations/liver.nii.gz": "holds several values where it is the mask of one structure",
        "s0003/segmentations/colon.nii.gz": "has another size (4 x 4 x 4, not 20 x 18 x 16) than spleen.nii.gz",
        "s0004": "holds 2 images beside segmentations/ where one is the scan",
    }
