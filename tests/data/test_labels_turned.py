"""Masks with other axes than their image, in the same place, are turned without loss; others are refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image
from read_samples import affine, dicom, rng
from test_read_volumes import itk_volume

import radiffuse
from radiffuse.config import PlanSettings
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.checking.check import check_path
from radiffuse.data.dataset import Case
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan
from radiffuse.data.prepare import prepare
from radiffuse.data.readers import read_label, read_scan
from radiffuse.data.scan import on_grid, turned_onto
from radiffuse.data.transform import image_to_plan, label_to_plan
from radiffuse.errors import InputError

TURNS = [
    np.column_stack([order, signs])
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
"""All 48, as nibabel, the oracle, writes them."""
IMAGE = rng(1).integers(-900, 900, (9, 8, 7)).astype(np.int16)
LABEL = np.zeros(IMAGE.shape, np.uint8)
LABEL[2:7, 1:5, 4:] = 1
LABEL[5:8, 5:7, :3] = 2
LABEL[0, 0, 0] = 255


def save(path: Path, voxels: np.ndarray, matrix: np.ndarray, code: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, matrix)
    image.set_sform(matrix, code)
    image.set_qform(matrix, code)
    nib.save(image, path)
    return path


def turn(path: Path, voxels: np.ndarray, matrix: np.ndarray, turns: np.ndarray) -> Path:
    moved = matrix @ inv_ornt_aff(turns, voxels.shape)
    return save(path, apply_orientation(voxels, turns), moved)


@pytest.mark.parametrize("kind", ["upright", "permuted", "oblique"])
def test_all_48_turns_are_undone(tmp_path: Path, kind: str) -> None:
    image = read_scan(save(tmp_path / "image.nii", IMAGE, affine(kind)))
    for turns in TURNS:
        path = turn(tmp_path / "label.nii", LABEL, affine(kind), turns)
        label = on_grid(read_label(path), image, path, "image.nii")
        np.testing.assert_array_equal(label.array[0], LABEL)
        np.testing.assert_array_equal(label.affine, image.affine)
        case = Case("a", (tmp_path / "image.nii",), path)
        np.testing.assert_array_equal(read_case_label(case, image).array[0], LABEL)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_other_formats_are_turned_too(tmp_path: Path, suffix: str) -> None:
    image = read_scan(save(tmp_path / "image.nii", IMAGE, affine("oblique")))
    label = sitk.DICOMOrient(itk_volume("oblique", LABEL), "PIR")
    assert label.GetSize() != LABEL.shape
    sitk.WriteImage(label, str(tmp_path / f"label{suffix}"))
    read = on_grid(read_label(tmp_path / f"label{suffix}"), image, tmp_path, "image.nii")
    np.testing.assert_array_equal(read.array[0], LABEL)


def test_films_with_a_place_are_turned(tmp_path: Path) -> None:
    image = read_scan(save(tmp_path / "image.nii", IMAGE[:, :, 0], affine("oblique")))
    moved = affine("oblique")[:, [1, 0, 2, 3]]
    moved[:3, 3] += 8 * moved[:3, 1]
    moved[:3, 1] *= -1
    path = save(tmp_path / "label.nii", LABEL[::-1, :, 5].T, moved)
    label = on_grid(read_label(path), image, path, "image.nii")
    np.testing.assert_array_equal(label.array[0], LABEL[:, :, 5].T)


def test_what_lies_elsewhere_or_nowhere_is_not_turned(tmp_path: Path) -> None:
    image = read_scan(save(tmp_path / "image.nii", IMAGE, affine("upright")))
    shifted = affine("upright")
    shifted[:3, 3] += 1.0
    path = turn(tmp_path / "label.nii", LABEL, shifted, TURNS[5])
    with pytest.raises(InputError, match=r"label\.nii: (lies elsewhere|has another size)"):
        on_grid(read_label(path), image, path, "image.nii")
    # Without sform and qform nibabel mirrors the first axis about the center, ITK the second about
    # its origin: a guess that fits an image by chance would mirror the label.
    path = save(tmp_path / "label.nii", LABEL, np.eye(4), code=0)
    centered = np.diag([1.0, 1, 1, 1])
    centered[:3, 3] = -(np.array(IMAGE.shape) - 1) / 2
    image = read_scan(save(tmp_path / "image.nii", IMAGE, centered))
    assert turned_onto(read_label(path), image) is None


@pytest.mark.parametrize("which", ["label", "image"])
def test_a_map_or_image_without_codes_is_taken_as_it_lies(tmp_path: Path, which: str) -> None:
    """Its place is unknown, so it can neither agree with the other's nor differ from it; the sizes of voxels may."""
    codes = {"image": 1, "label": 1} | {which: 0}
    sized = np.diag([1.0, 0.8, 2.5, 1.0])
    moved = affine("oblique") @ sized
    matrices = {"image": moved, "label": moved} | {which: np.eye(4)}
    places = {name: tmp_path / f"{name}s" / "a.nii" for name in ("image", "label")}
    for name, voxels in (("image", IMAGE), ("label", LABEL)):
        save(places[name], voxels, matrices[name], codes[name])
    case = Case("a", (places["image"],), places["label"])
    np.testing.assert_array_equal(read_case_label(case, read_case_image(case)).array[0], LABEL)
    for decode in (True, False):
        issues = check_path(tmp_path, workers=0, decode=decode).issues
        said = [i.problem for i in issues if "does not say where it lies" in i.problem]
        assert len(said) == (which == "label")
        assert not [i for i in issues if i.severity == "error"]
    other = LABEL if which == "label" else IMAGE
    for spacing, fits in ((moved, True), (np.diag([2.0, 2, 2, 1]), False)):
        path = save(places[which], other, np.eye(4), 0)
        raw = bytearray(path.read_bytes())  # nibabel would write a place beside the sizes
        raw[80:92] = np.linalg.norm(spacing[:3, :3], axis=0).astype("<f4").tobytes()
        path.write_bytes(raw)
        if fits:
            read_case_label(case, read_case_image(case))
        else:
            with pytest.raises(InputError, match=r"has another spacing \(.* mm, not .* mm\) than"):
                read_case_label(case, read_case_image(case))
    save(places["label"], LABEL[:5], np.eye(4), 0)
    with pytest.raises(InputError, match="has another size"):
        read_case_label(case, read_case_image(case))


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two data sets that differ in the axes of their labels alone, and one with a label elsewhere."""
    plain, turned, moved = (tmp_path / name for name in ("plain", "turned", "moved"))
    for folder in (plain, turned, moved):
        for number in range(3):
            voxels, name = np.roll(IMAGE, number, 0), f"c{number}.nii.gz"
            save(folder / "images" / name, voxels, affine("oblique"))
            kind = TURNS[13 * number + 7] if folder == turned else TURNS[0]
            turn(folder / "labels" / name, LABEL, affine("oblique"), kind)
    away = affine("oblique") + np.array([0, 0, 0, 27.0])[None] * [[1], [0], [0], [0]]
    save(moved / "labels" / "c1.nii.gz", LABEL, away)
    return plain, turned, moved


def prepared(folder: Path) -> list[np.ndarray]:
    dataset = open_dataset(folder)
    plan = make_plan(dataset, PlanSettings(spacing=(1.0, 1.0, 1.0)), labelled=True)
    data = prepare(dataset, plan, labelled=True, cache=folder / "cache")
    return [np.asarray(array) for i in range(3) for array in (data.image(i), data.label(i))]


def test_training_and_check_see_what_upright_labels_show(sets: tuple[Path, Path, Path]) -> None:
    plain, turned, moved = sets
    for one, other in zip(prepared(plain), prepared(turned), strict=True):
        np.testing.assert_array_equal(one, other)
    assert check_path(turned, workers=0).issues == check_path(plain, workers=0).issues == ()
    assert not check_path(turned, workers=0, decode=False).errors
    (issue,) = check_path(moved, workers=0).errors
    assert "lies elsewhere (corners differ by up to 27.00 mm)" in issue.problem
    with pytest.raises(InputError, match=r"c1\.nii\.gz: lies elsewhere"):
        prepared(moved)


def test_evaluation_scores_masks_and_truth_by_their_place(
    sets: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    plain, turned, _ = sets
    masks = tmp_path / "masks"
    for number in range(3):
        mask = np.where(LABEL == 255, 0, LABEL)
        mask[2:4] = 0
        turn(masks / f"c{number}.nii.gz", mask, affine("oblique"), TURNS[11 * number])
    tables = [
        pd.read_csv(radiffuse.evaluate(masks=masks, truth=truth, out=truth / "out") / "cases.csv")
        for truth in (plain, turned)
    ]
    pd.testing.assert_frame_equal(*tables)
    first = tables[0]["class"] == "class-1"
    inside = LABEL[4:] == 1  # what is left of class 1
    dice = 2 * inside.sum() / (inside.sum() + (LABEL == 1).sum())
    np.testing.assert_allclose(tables[0]["dice"][first], dice)


def test_channels_with_other_axes_are_turned_onto_the_first(tmp_path: Path) -> None:
    first = save(tmp_path / "t1.nii", IMAGE, affine("oblique"))
    second = turn(tmp_path / "t2.nii", IMAGE + 1, affine("oblique"), TURNS[29])
    scan = read_case_image(Case("a", (first, second)))
    np.testing.assert_array_equal(scan.array, [IMAGE, IMAGE + 1])
    np.testing.assert_array_equal(scan.affine, read_scan(first).affine)


@pytest.mark.parametrize("kind", ["upright", "permuted", "oblique"])
def test_a_label_map_without_geometry_lies_as_its_image(tmp_path: Path, kind: str) -> None:
    """It is turned and resampled as the image is; NRRD without a space says neither axes nor sizes."""
    image = save(tmp_path / "image.nii", (1000 * (LABEL == 1)).astype(np.int16), affine(kind))
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 9 8 7\nencoding: raw\n\n"
    label = tmp_path / "label.nrrd"
    label.write_bytes(head.encode() + (LABEL == 1).astype(np.uint8).tobytes(order="F"))
    case = Case("a", (image,), label)
    scan = read_case_image(case)
    spacing, window = (0.9, 1.1, 1.3), {"intensity": "window", "low": 0, "high": 1000}
    plan = Plan(3, ("CT",), ("background", "a"), (8, 8, 8), spacing, **window)
    seen, undo = image_to_plan(scan, plan)
    known = label_to_plan(read_case_label(case, scan), plan, undo)
    assert known.shape == seen.shape[1:]
    np.testing.assert_array_equal(known, seen[0] > 0)


def test_masks_are_measured_in_the_millimeters_of_their_films(tmp_path: Path) -> None:
    """PNG says no spacing, so that of the DICOM film counts, as where fit scores its own masks."""
    film, mask = np.zeros((32, 24), np.uint16), np.zeros((32, 24), np.uint8)
    mask[8:20, 8:20] = 1
    for name in ("images", "labels", "masks"):
        (tmp_path / "truth" / name).mkdir(parents=True)
    image = dicom(film, modality="DX", PixelSpacing=[0.5, 0.25])
    image.save_as(tmp_path / "truth" / "images" / "a.dcm")
    for name, rows in (("labels", 0), ("masks", 3)):
        picture = Image.fromarray(np.roll(mask, rows, 0))
        picture.save(tmp_path / "truth" / name / "a.png")
    (tmp_path / "truth" / "masks").rename(tmp_path / "masks")
    out = radiffuse.evaluate(masks=tmp_path / "masks", truth=tmp_path / "truth", out=tmp_path / "o")
    (row,) = pd.read_csv(out / "cases.csv").to_dict("records")
    assert (row["unit"], row["hd95"], row["nsd"]) == ("mm", 1.5, 1.0)
