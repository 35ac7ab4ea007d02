"""Images with several masks: pieces of one label are joined, everything else is refused, and never half of it used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layout_files import film, film_label, volume, volume_label
from PIL import Image

from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset, survey


def mask(path: Path, rows: slice, value: int = 255) -> None:
    array = np.zeros((24, 20), np.uint8)
    array[rows] = value
    Image.fromarray(array).save(path)


def busi(root: Path) -> None:
    """As the set of breast ultrasound is downloaded: most films have one lesion, some several."""
    for i in range(1, 5):
        film(root / "benign" / f"benign ({i}).png", seed=i)
        mask(root / "benign" / f"benign ({i})_mask.png", slice(0, 4))
    mask(root / "benign" / "benign (2)_mask_1.png", slice(8, 12))
    mask(root / "benign" / "benign (2)_mask_2.png", slice(16, 18))


def test_numbered_masks_are_joined_with_the_one_without_number(tmp_path: Path) -> None:
    busi(tmp_path)
    for settings in (Data(label_values=(0, 255)), Data(label_threshold=128.0)):
        dataset, issues = survey(tmp_path, settings)
        assert dataset.layout == "suffixes"
        assert [case.name for case in dataset] == [f"benign ({i})" for i in range(1, 5)]
        assert [issue.severity for issue in issues] == ["warning"]
        assert "1 images with numbered masks beside one, such as benign (2)_mask.png" in str(issues)
        rows = [np.flatnonzero(read_case_label(case).array[0, :, 0]).tolist() for case in dataset]
        assert rows == [
            [0, 1, 2, 3],
            [0, 1, 2, 3, 8, 9, 10, 11, 16, 17],
            [0, 1, 2, 3],
            [0, 1, 2, 3],
        ]
    assert np.unique(read_case_label(open_dataset(tmp_path).cases[1]).array).tolist() == [0, 255]


def test_numbered_masks_in_the_folder_of_a_case(tmp_path: Path) -> None:
    for case in "ab":
        film(tmp_path / case / "image.png", seed=ord(case))
        mask(tmp_path / case / "mask.png", slice(0, 4), 1)
    mask(tmp_path / "a" / "mask-1.png", slice(3, 6), 2)
    labels = [read_case_label(case).array[0, :, 0] for case in open_dataset(tmp_path)]
    assert labels[0].tolist() == [1, 1, 1, 2, 2, 2] + [0] * 18
    assert labels[1].tolist() == [1] * 4 + [0] * 20


def test_masks_of_one_image_may_be_of_several_types(tmp_path: Path) -> None:
    """A number that the first file cannot hold is kept, and a mask of real numbers is joined with one of bytes."""
    types = (np.uint8, np.float32, np.uint16)
    for number, (kind, value) in enumerate(zip(types, (1, 2, 256), strict=True)):
        array = np.zeros((6, 5, 4), kind)
        array[2 * number : 2 * number + 2] = value
        file = tmp_path / (f"a_mask_{number}.nii.gz" if number else "a_mask.nii.gz")
        nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 2, 1])), file)
    image = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.diag([0.8, 0.8, 2, 1])), tmp_path / "a.nii.gz")
    (case,) = open_dataset(tmp_path, Data(layout="suffixes"))
    assert len(case.label_parts) == 3
    whole = read_case_label(case, read_case_image(case)).array
    assert whole.dtype == np.int16  # the narrowest that holds them
    assert whole[0, :, 0, 0].tolist() == [1, 1, 2, 2, 256, 256]
    few = replace(case, label_values=((0,), (1, 2), (256,)))
    assert read_case_label(few).array.dtype == np.uint8
    assert read_case_label(few).array[0, :, 0, 0].tolist() == [1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("second", ["2_seg.png", "2_mask.tif"])
def test_an_image_with_two_labels_is_left_out_as_a_whole(tmp_path: Path, second: str) -> None:
    for i in range(1, 4):
        film(tmp_path / f"{i}.png", seed=i)
        film_label(tmp_path / f"{i}_mask.png")
    film_label(tmp_path / second)
    dataset, issues = survey(tmp_path)
    assert [(case.name, case.label is not None) for case in dataset] == [("1", True), ("3", True)]
    assert [issue.severity for issue in issues] == ["error"]
    assert (
        "several label maps (mask and seg)" in issues[0].problem or "same part" in issues[0].problem
    )


def test_two_masks_of_one_structure_are_refused(tmp_path: Path) -> None:
    for case in ("s1", "s2"):
        volume(tmp_path / case / "ct.nii.gz", seed=int(case[1]))
        volume_label(tmp_path / case / "segmentations" / "liver.nii.gz")
    volume_label(tmp_path / "s2" / "segmentations" / "Liver.nii")
    dataset, issues = survey(tmp_path)
    assert [case.name for case in dataset] == ["s1"]
    assert "same structure" in issues[0].problem
