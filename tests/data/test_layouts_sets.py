"""Public sets with folders and names of their own, as they are downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_files import film, film_label, volume, volume_label

from radiffuse.config import Data
from radiffuse.data.cases import read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.layouts import open_dataset, survey
from radiffuse.errors import InputError

# ---------------------------------------------------------------------------------------- LiTS


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("volume-{}.nii", "segmentation-{}.nii"),
        ("Training Batch {}/volume-{}.nii", "Training Batch {}/segmentation-{}.nii"),
        ("volume_pt{}/volume-{}.nii", "segmentations/segmentation-{}.nii"),
        ("volumes/volume-{}.nii", "segmentations/segmentation-{}.nii"),
        ("images/volume-{}.nii", "labels/segmentation-{}.nii"),
        ("image_{}.nii.gz", "mask_{}.nii.gz"),
    ],
)
def test_volumes_and_segmentations_are_paired_by_their_numbers(
    tmp_path: Path, image: str, mask: str
) -> None:
    def place(name: str, i: int) -> Path:
        batch = [1 + i // 2] * (name.count("{}") - 1)
        return tmp_path / name.format(*batch, i)

    for i in range(4):
        volume(place(image, i), seed=i)
        volume_label(place(mask, i), values=(0, 1, 2))
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.channels == ("image",)
    assert [(c.images[0], c.label) for c in dataset] == [
        (place(image, i), place(mask, i)) for i in range(4)
    ]


def test_volumes_of_the_test_part_have_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        volume(tmp_path / f"volume-{i}.nii", seed=i)
        volume_label(tmp_path / f"segmentation-{i}.nii")
    volume(tmp_path / "test-volume-0.nii", seed=9)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert [(c.name, c.split, c.label is not None) for c in dataset] == [
        ("test-volume-0", "test", False),
        *((f"volume-{i}", None, True) for i in range(3)),
    ]


def test_numbers_of_several_folders_are_not_mixed(tmp_path: Path) -> None:
    """The mask lies in the folder of its image; where two images have its number, it belongs to none."""
    for folder in "ab":
        volume(tmp_path / folder / "volume-0.nii", seed=ord(folder))
        volume_label(tmp_path / folder / "segmentation-0.nii")
    assert [c.label and c.label.parent == c.images[0].parent for c in open_dataset(tmp_path)] == [
        True,
        True,
    ]
    (tmp_path / "b" / "segmentation-0.nii").rename(tmp_path / "b" / "segmentation-1.nii")
    volume(tmp_path / "b" / "volume-1.nii", seed=7)
    volume(tmp_path / "c" / "volume-2.nii", seed=8)
    volume(tmp_path / "d" / "volume-2.nii", seed=9)
    volume_label(tmp_path / "e" / "segmentation-2.nii")
    dataset, issues = survey(tmp_path)
    assert {c.images[0] for c in dataset.labelled} == {
        tmp_path / "a" / "volume-0.nii",
        tmp_path / "b" / "volume-1.nii",
    }
    assert sum(issue.problem == "has no label" for issue in issues) == 3


# ------------------------------------------------------------------------------ trees of classes


def tree(root: Path, *, images: str = "images", masks: str = "masks", count: int = 2) -> None:
    for k, name in enumerate(("COVID", "Normal")):
        for i in range(count):
            film(root / name / images / f"{i}.png", seed=10 * k + i)
            film_label(root / name / masks / f"{i}.png")


@pytest.mark.parametrize("masks", ["masks", "lung masks"])
def test_a_folder_per_diagnosis_with_images_and_masks(tmp_path: Path, masks: str) -> None:
    tree(tmp_path, masks=masks)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.classes == ()  # of label maps; the diagnosis is that of the whole image
    assert [(c.name, c.target, c.images[0], c.label) for c in dataset] == [
        (f"{name}__{i}", name, tmp_path / name / "images" / f"{i}.png", tmp_path / name / masks / f"{i}.png")
        for name in ("COVID", "Normal")
        for i in range(2)
    ]  # fmt: skip


def test_a_tree_in_folders_of_splits(tmp_path: Path) -> None:
    for i, split in enumerate(("Train", "Val", "Test")):
        tree(tmp_path / split)
        film(tmp_path / split / "COVID" / "images" / "0.png", seed=100 + i)
    dataset = open_dataset(tmp_path)
    found = {(c.split, c.target, c.label is not None) for c in dataset}
    assert found == {
        (s, t, True) for s in ("train", "validation", "test") for t in ("COVID", "Normal")
    }


def test_folders_of_patients_are_no_classes(tmp_path: Path) -> None:
    for i in range(4):
        film(tmp_path / f"patient {i // 2}" / "images" / f"{i}.png", seed=i)
        film_label(tmp_path / f"patient {i // 2}" / "masks" / f"{i}.png")
    dataset = open_dataset(tmp_path)
    assert [(c.group, c.target) for c in dataset.labelled] == [
        (f"patient {i // 2}", None) for i in range(4)
    ]


def test_a_class_without_masks_is_an_error_and_unlabelled_under_skip_bad(tmp_path: Path) -> None:
    tree(tmp_path)
    film(tmp_path / "Normal" / "images" / "5.png", seed=50)
    for path in (tmp_path / "Normal" / "masks").iterdir():
        path.unlink()
    (tmp_path / "Normal" / "masks").rmdir()
    dataset, issues = survey(tmp_path)
    assert [(i.severity, i.where) for i in issues] == [
        ("error", str(tmp_path / "Normal" / "images"))
    ]
    assert [(c.target, c.label is not None) for c in dataset] == [
        ("COVID", True),
        ("COVID", True),
        *[("Normal", False)] * 3,
    ]


def test_two_kinds_of_masks_in_a_tree_are_refused_by_name(tmp_path: Path) -> None:
    tree(tmp_path, masks="lung masks")
    film_label(tmp_path / "COVID" / "infection masks" / "0.png")
    with pytest.raises(InputError, match="holds both infection masks and lung masks"):
        open_dataset(tmp_path)


def test_a_folder_per_image_with_a_mask_per_nucleus_is_no_such_tree(tmp_path: Path) -> None:
    for i in range(3):
        film(tmp_path / f"c{i}" / "images" / f"c{i}.png", seed=i)
        for k in range(2):
            film_label(tmp_path / f"c{i}" / "masks" / f"{k}.png", values=(0, k + 1))
    dataset, issues = survey(tmp_path)
    assert dataset.layout == "images"
    assert "are masks by their names" in str(issues)


# ------------------------------------------------------------------------------------- CHASE_DB1


@pytest.mark.parametrize(("images", "masks"), [("", ""), ("images", "masks")])
def test_the_first_of_two_experts_is_the_label_and_both_eyes_are_one_patient(
    tmp_path: Path, images: str, masks: str
) -> None:
    for i in (1, 2):
        for eye in "LR":
            name = f"Image_{i:02d}{eye}"
            film(tmp_path / images / f"{name}.jpg", seed=10 * i + ord(eye), mode="RGB")
            film_label(tmp_path / masks / f"{name}_1stHO.png", values=(0, 1))
            film_label(tmp_path / masks / f"{name}_2ndHO.png", values=(0, 1, 1, 1))
    dataset, issues = survey(tmp_path)
    assert [(i.severity, "4 of others" in i.problem) for i in issues] == [("warning", True)]
    assert [(c.name, c.group, c.label and c.label.name) for c in dataset] == [
        (f"Image_0{i}{eye}", f"Image_0{i}", f"Image_0{i}{eye}_1stHO.png")
        for i in (1, 2)
        for eye in "LR"
    ]
    assert not any("belong" in i.problem for i in check_path(tmp_path, workers=0).issues)
    for path in (tmp_path / masks).glob("*_1stHO.png"):
        path.unlink()
    dataset, issues = survey(tmp_path)
    assert not issues
    assert {c.label and c.label.name[-10:] for c in dataset} == {"_2ndHO.png"}


# ------------------------------------------------------------------------------------ Montgomery


def montgomery(root: Path) -> None:
    for i in range(1, 4):
        name = f"MCUCXR_{i:04d}_{i % 2}.png"
        film(root / "CXR_png" / name, seed=i)
        film_label(root / "ManualMask" / "leftMask" / name, values=(0, 255, 0))
        film_label(root / "ManualMask" / "rightMask" / name, values=(0, 0, 255))


def test_a_folder_of_masks_per_structure_is_a_class_each(tmp_path: Path) -> None:
    montgomery(tmp_path)
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.classes == ("background", "left lung", "right lung")
    assert [c.name for c in dataset.labelled] == ["MCUCXR_0001_1", "MCUCXR_0002_0", "MCUCXR_0003_1"]
    for case in dataset:
        label = read_case_label(case).array[0].ravel()
        assert label[:6].tolist() == [0, 1, 2] * 2
    joined = open_dataset(tmp_path, Data(class_names=("background", "lung", "lung")))
    assert joined.classes == ("background", "lung")
    assert np.unique(read_case_label(joined.cases[0]).array).tolist() == [0, 1]
    with pytest.raises(InputError, match="a folder for each class, without values"):
        open_dataset(tmp_path, Data(label_values=(0, 255)))


def test_an_image_that_lacks_a_mask_of_a_structure_is_an_error(tmp_path: Path) -> None:
    montgomery(tmp_path)
    (tmp_path / "ManualMask" / "rightMask" / "MCUCXR_0002_0.png").unlink()
    dataset, issues = survey(tmp_path)
    assert [(i.severity, i.problem) for i in issues] == [
        ("error", "lacks the masks rightMask/MCUCXR_0002_0")
    ]
    assert [c.label is not None for c in dataset] == [True, False, True]


def test_parts_with_different_structures_are_refused(tmp_path: Path) -> None:
    for part, names in (("train", ("heart", "lung")), ("test", ("heart", "aorta"))):
        for i in range(2):
            film(tmp_path / part / "images" / f"{i}.png", seed=i)
            for name in names:
                film_label(tmp_path / part / "masks" / name / f"{i}.png")
    with pytest.raises(InputError, match="hold different structures"):
        open_dataset(tmp_path)


def test_masks_in_folders_that_are_not_one_per_structure_are_no_structures(tmp_path: Path) -> None:
    for i in range(4):
        film(tmp_path / "images" / f"{'ab'[i % 2]}" / f"{i}.png", seed=i)
        film_label(tmp_path / "masks" / f"{'ab'[i % 2]}" / f"{i}.png")
    dataset, issues = survey(tmp_path)
    assert not issues
    assert dataset.classes == ()
    assert len(dataset.labelled) == 4
