"""The resolution ceiling: what is known of grids that lose nothing, or everything."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from test_fingerprint import film_pair

from radiffuse.data.ceiling import Ceiling, candidates, find_ceilings
from radiffuse.data.fingerprint import take_fingerprint
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Scan
from radiffuse.data.transform import label_to_plan, scores_to_scan, undo_of
from radiffuse.evaluation.segmentation import score


def test_a_grid_that_divides_the_film_loses_nothing_and_a_coarse_one_the_thin_structure(
    tmp_path: Path,
) -> None:
    label = np.zeros((256, 256))
    label[64:192, 64:192] = 1  # blocks of 64: at 64 px every pixel is of one class
    label[30, 8:248] = 2  # one pixel thin: gone at a quarter of the size
    film_pair(tmp_path, "a", label, label)
    dataset = open_dataset(tmp_path)
    found = take_fingerprint(dataset)
    grids = candidates(found)
    assert grids == [(64, 64), (96, 96), (128, 128), (192, 192), (256, 256)]
    coarse, *_, fine = find_ceilings(dataset, found, grids)
    assert fine.reaches()
    (native,) = find_ceilings(dataset, found, grids[-1:])
    assert native.dice == native.surface == (1, 1)
    assert coarse.grid == (64, 64)
    assert coarse.dice[0] > 0.98  # only the corners are rounded by the way back
    assert (coarse.dice[1], coarse.surface[1]) == (0, 0)
    assert not coarse.reaches()


def test_it_is_the_score_of_the_whole_label_map_that_was_there_and_back(tmp_path: Path) -> None:
    rows, columns = np.indices((200, 150))
    label = np.zeros((200, 150), np.uint8)
    label[(rows - 100) ** 2 / 60**2 + (columns - 70) ** 2 / 40**2 < 1] = 1
    label[(rows - 90) ** 2 + (columns - 75) ** 2 < 12**2] = 2
    label[:4] = 255
    film_pair(tmp_path, "a", label, label)
    dataset = open_dataset(tmp_path)
    (ceiling,) = find_ceilings(dataset, take_fingerprint(dataset), [(64, 48)])
    plan, scan = Plan(2, ("x",), (), (64, 48), resize="fit"), Scan(label[None])
    there = torch.from_numpy(label_to_plan(scan, plan).astype(np.int64))
    scores = torch.stack([(there == value).float() for value in range(3)])
    back, _ = scores_to_scan(scores, undo_of(scan, plan))
    for i, whole in enumerate(score(back, label, ("background", "a", "b"), None)):
        assert ceiling.dice[i] == pytest.approx(whole.dice, abs=0.015)
        assert ceiling.surface[i] == pytest.approx(whole.nsd, abs=0.05)


def test_volumes_are_judged_in_mm_whatever_the_order_of_their_axes(tmp_path: Path) -> None:
    label = np.zeros((8, 24, 24), np.uint8)
    label[1:7, 6:18, 6:18] = 1
    affine = np.diag([0.8, -0.8, 3.0, 1.0])[:, [2, 0, 1, 3]]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(label, affine), tmp_path / folder / "a.nii.gz")
    dataset = open_dataset(tmp_path)
    found = take_fingerprint(dataset)
    grids = candidates(found)
    assert grids[-1] == (0.8, 0.8, 3.0)
    assert grids[0] == (3.2, 3.2, 3.2)  # fine axes first
    assert grids[2] == (1.6, 1.6, 3.0)
    ceilings = find_ceilings(dataset, found, grids, target=(1, 1))
    # The box lies on voxels of twice the side, so nothing is lost there.
    assert (ceilings[-1].grid, ceilings[-1].dice, ceilings[-1].surface) == (grids[2], (1,), (1,))
    assert ceilings[0].dice[0] < 0.97


def test_a_class_that_no_label_map_has_does_not_decide() -> None:
    assert Ceiling((64, 64), (0.995, math.nan), (0.96, math.nan)).reaches()
    assert not Ceiling((64, 64), (0.995, 0.98), (0.96, 0.99)).reaches()
    assert not Ceiling((64, 64), (0.995, 0.995), (0.96, 0.94)).reaches()


def test_without_labels_there_is_no_ceiling(tmp_path: Path) -> None:
    film_pair(tmp_path, "a", np.eye(64), np.zeros((64, 64)))
    dataset = open_dataset(tmp_path)
    found = take_fingerprint(dataset)
    assert find_ceilings(dataset, found, candidates(found)) == ()


def test_a_label_map_without_geometry_has_the_ceiling_of_its_image(tmp_path: Path) -> None:
    """NRRD without a space says neither the size of a voxel nor the axes."""
    label = np.zeros((20, 16, 12), np.uint8)
    label[3:12, 5:9, 2:7] = 1
    matrix = np.diag([-0.5, -0.5, 2.0, 1.0])
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 20 16 12\nencoding: raw\n\n"
    ceilings = []
    for name in ("said", "unsaid"):
        for kind in ("images", "labels"):
            (tmp_path / name / kind).mkdir(parents=True)
        for kind, values in (("images", 100 * label), ("labels", label))[: 1 + (name == "said")]:
            nib.save(nib.Nifti1Image(values, matrix), tmp_path / name / kind / "a.nii.gz")
        if name == "unsaid":
            raw = head.encode() + label.tobytes(order="F")
            (tmp_path / name / "labels" / "a.nrrd").write_bytes(raw)
        dataset = open_dataset(tmp_path / name)
        grid = (1.3, 1.3, 2.0)
        ceilings += find_ceilings(dataset, take_fingerprint(dataset), [grid])
    assert ceilings[0] == ceilings[1]
