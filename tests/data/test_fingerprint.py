"""The fingerprint against hand-made sets, whose statistics are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layout_files import film
from PIL import Image

from radiffuse.config import PlanSettings
from radiffuse.data.body import boxes
from radiffuse.data.cases import read_case_image
from radiffuse.data.fingerprint import evenly, take_fingerprint, threads_within_memory
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.scan import Array
from radiffuse.data.structures import thickness
from radiffuse.data.transform import image_to_plan
from radiffuse.errors import InputError

STEP = np.ones(2)


def film_pair(root: Path, name: str, image: Array, label: Array) -> None:
    for folder, array in (("images", image), ("labels", label)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(root / folder / f"{name}.png")


def test_structures_of_films(tmp_path: Path) -> None:
    image, label = np.zeros((40, 60)), np.zeros((40, 60))
    image[10:30, 5:45] = 100  # the body: 20 x 40
    image[12:16, 10:30], label[12:16, 10:30] = 150, 1  # 4 x 20
    image[20:22, 10:20], label[20:22, 10:20] = 200, 2  # 2 x 10
    image[25:27, 30:40], label[25:27, 30:40] = 210, 2  # 2 x 10
    label[0, :] = 255
    film_pair(tmp_path, "a", image, label)
    film_pair(tmp_path, "b", image, np.zeros((40, 60)))
    found = take_fingerprint(open_dataset(tmp_path))
    assert (found.cases, found.labelled, found.channels, found.unit) == (2, 2, 1, "px")
    assert found.shapes == ((40, 60),) * 2
    assert found.bodies == ((20, 40),) * 2
    assert not found.ct
    one, two = found.classes
    assert (one.name, one.cases, one.volume, one.components, one.thickness) == (
        *("class-1", 1, 80, 1),
        4,
    )
    assert (two.cases, two.volume, two.components, two.thickness) == (1, 40, 2, 2)
    assert one.share == pytest.approx(80 / (2 * 40 * 60 - 60))
    assert (found.foreground[0].low, found.foreground[0].high) == (150, 210)
    assert (found.body[0].low, found.body[0].high) == (100, 210)
    assert take_fingerprint(open_dataset(tmp_path), labelled=False).classes == ()


def test_a_volume_in_mm_whatever_the_order_of_its_axes(tmp_path: Path) -> None:
    hu = np.full((20, 16, 8), -1000, np.int16)
    hu[2:18, 3:15] = 40  # a body of 16 x 12, cut above and below
    hu[8:12, 10:13, 3:6] = -850  # a lung: 36 of 1536 voxels
    label = np.zeros(hu.shape, np.uint8)
    label[5:10, 5:7, 2:6], hu[5:10, 5:7, 2:6] = 1, 60
    affine = np.diag([-0.5, 1.0, 3.0, 1.0])[
        :, [2, 0, 1, 3]
    ]  # stored as (superior, right, anterior)
    for folder, array in (("images", hu), ("labels", label)):
        (tmp_path / folder).mkdir()
        stored = nib.Nifti1Image(array.transpose(2, 0, 1), affine)
        nib.save(stored, tmp_path / folder / "a.nii.gz")
    found = take_fingerprint(open_dataset(tmp_path))
    assert (found.ct, found.unit, found.spatial_dims) == (True, "mm", 3)
    assert (found.shapes, found.spacings) == (((20, 16, 8),), ((0.5, 1.0, 3.0),))
    assert found.spacing == (0.5, 1.0, 3.0)
    assert found.anisotropy == 6
    assert found.bodies == ((16, 12, 8),)
    assert found.body_on((1.0, 1.0, 1.0)) == (8, 12, 24)
    (structure,) = found.classes
    assert structure.volume == pytest.approx(5 * 2 * 4 * 0.5 * 1 * 3)
    assert structure.thickness == 2  # two voxels of 1 mm, across 2.5 mm and 12 mm
    assert (found.foreground[0].low, found.foreground[0].high) == (60, 60)
    assert found.body[0].low == -850  # 2.3 % of the body, although less dense than it


def test_a_table_is_no_body_whatever_the_order_of_the_axes(tmp_path: Path) -> None:
    hu = np.full((40, 40, 12), -1000, np.int16)
    hu[10:30, 12:32] = 40  # a body of 20 x 20
    hu[2:38, 4:6] = 40  # a table of 36 x 2 below it, as long as the scan
    for order in itertools.permutations(range(3)):
        affine = np.eye(4)[:, [*order, 3]]
        folder = tmp_path / "".join(map(str, order))
        folder.mkdir()
        nib.save(nib.Nifti1Image(hu.transpose(order), affine), folder / "a.nii.gz")
        assert take_fingerprint(open_dataset(folder)).bodies == ((20, 20, 12),), order


def test_thickness_is_that_of_boxes_and_walls() -> None:
    mask = np.zeros((30, 30), bool)
    mask[3:7, 2:22] = True
    assert thickness(mask, STEP) == 4
    assert thickness(mask, np.array([0.5, 3.0])) == 2
    hollow = np.zeros((30, 30), bool)
    hollow[2:28, 2:28] = True
    hollow[5:25, 5:25] = False
    assert thickness(hollow, STEP) == 3
    assert thickness(np.ones((1, 1), bool), STEP) == 1


def test_two_channels_and_a_rare_class(tmp_path: Path) -> None:
    """A declared class that no label map has counts nothing, and every channel is measured."""
    from layout_files import write_json

    header = {
        "channel_names": {"0": "t1", "1": "t2"},
        "labels": {"background": 0, "tumor": 1, "cyst": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    write_json(tmp_path / "dataset.json", header)
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:4, 2:4, 2:4] = 1
    arrays = {"imagesTr/a_0000": np.full(label.shape, 5.0), "labelsTr/a": label}
    arrays["imagesTr/a_0001"] = 7.0 * label
    for name, array in arrays.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = take_fingerprint(open_dataset(tmp_path))
    assert found.channels == 2
    tumor, cyst = found.classes
    assert [values.low for values in found.foreground] == [5, 7]
    assert (tumor.name, tumor.cases, cyst.name, cyst.cases, cyst.volume) == (
        *("tumor", 1, "cyst"),
        *(0, 0),
    )


def test_a_channel_beside_ct_keeps_its_values(tmp_path: Path) -> None:
    """In the window of the CT, all of a PET would be the same."""
    from layout_files import write_json

    header = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0, "tumor": 1}}
    write_json(tmp_path / "dataset.json", header | {"numTraining": 1, "file_ending": ".nii.gz"})
    generator = np.random.default_rng(0)
    hu = generator.uniform(-1000, 100, (8, 8, 8))
    label, pet = np.zeros(hu.shape), generator.uniform(0, 10, hu.shape)
    label[2:4, 2:4, 2:4] = 1
    hu[2:4, 2:4, 2:4] += 1000
    for name, array in (("imagesTr/a_0000", hu), ("imagesTr/a_0001", pet), ("labelsTr/a", label)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    dataset = open_dataset(tmp_path)
    plan = make_plan(dataset, PlanSettings(crop="body"), labelled=True)
    assert (plan.intensity, plan.low, plan.high) == ("percentiles", 0.5, 99.5)
    assert "not in HU" in plan.reasons["window"]
    seen, _ = image_to_plan(read_case_image(dataset.cases[0]), plan)
    assert (seen.std((1, 2, 3)) > 0.3).all()
    given = make_plan(dataset, PlanSettings(window=(-160, 240)), labelled=True)
    assert given.reasons["window"].startswith("given, for every channel")
    two = dataset.cases[0].images[0], tmp_path / "imagesTr" / "a_0001.nii.gz"
    two[1].write_bytes(two[0].read_bytes())  # two phases of CT share a window
    assert make_plan(dataset, PlanSettings(), labelled=True).intensity == "window"


def test_what_cannot_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "mixed" / "a.png")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "mixed" / "b.nii.gz")
    with pytest.raises(InputError, match="mixes films and volumes"):
        take_fingerprint(open_dataset(tmp_path / "mixed"))
    film_pair(tmp_path / "one", "a", np.zeros((9, 9)), np.zeros((9, 9)))  # constant: all is body
    found = take_fingerprint(open_dataset(tmp_path / "one"))
    assert found.bodies == ((9, 9),)
    assert found.classes == ()
    monkeypatch.setattr("radiffuse.data.fingerprint.free_memory", lambda: 3 * 2 * 24 * 81)
    cases = open_dataset(tmp_path / "one").cases
    assert threads_within_memory(cases * 9, 16) == 3
    assert threads_within_memory(cases * 2, 16) == 2


def test_cases_are_chosen_evenly() -> None:
    assert evenly(3, 32) == [0, 1, 2]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]


def test_boxes_are_those_of_each_class_and_of_no_other_value() -> None:
    label = np.zeros((6, 7, 8), np.int64)
    label[1:3, 2, 4:8], label[4, 4, 4], label[5, 0, 0] = 3, 1, 254
    label[0, 0, 0], label[0, 0, 1], label[0, 0, 2] = (
        -1,
        2**31,
        255,
    )  # ignored, or refused by whoever trains
    expected = {
        1: np.s_[4:5, 4:5, 4:5],
        3: np.s_[1:3, 2:3, 4:8],
        254: np.s_[5:6, 0:1, 0:1],
    }
    assert boxes(label) == expected
    assert boxes(label.transpose(2, 0, 1)) == {
        value: (box[2], box[0], box[1]) for value, box in expected.items()
    }
    assert boxes(np.zeros((3, 3), np.uint8)) == {}
