"""Masks whose values are no classes: soft edges, a foreground of 255, unused numbers, no foreground at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from read_samples import rng
from scipy import ndimage

from conftest import line_of
from radiffuse.config import Data, PlanSettings
from radiffuse.data.cases import read_case_label
from radiffuse.data.checking.check import CheckResult, check_path
from radiffuse.data.label_values import judge_values, refuse_soft_edges
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.errors import InputError


def shape(side: int, seed: int = 0, dims: int = 2) -> np.ndarray:
    """A smooth random shape of 0 and 1 that fills a seventh of the square."""
    field = ndimage.gaussian_filter(rng(seed).normal(size=(side,) * dims), side / 12)
    return (field > np.quantile(field, 0.85)).astype(np.uint8)


def supersampled(side: int, factor: int, top: int = 255) -> np.ndarray:
    fine = shape(side * factor).astype(float).reshape(side, factor, side, factor)
    return np.round(fine.mean((1, 3)) * top)


def jpeg(side: int, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(shape(side) * 255).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def scattered(side: int, classes: int, size: int, dims: int = 2, seed: int = 0) -> np.ndarray:
    """Every class a small cube somewhere."""
    draws, label = rng(seed), np.zeros((side,) * dims, np.uint8)
    for value in range(1, classes + 1):
        corner = draws.integers(0, side - size, dims)
        label[tuple(slice(i, i + size) for i in corner)] = value
    return label


def cells(side: int, count: int) -> np.ndarray:
    """Nearest of random points: regions of any number, side by side."""
    points = rng(4).uniform(0, side, (count, 2))
    grid = np.stack(np.mgrid[:side, :side], -1)[:, :, None]
    return np.asarray(((grid - points) ** 2).sum(-1).argmin(-1) + 1)


def outlined(side: int, *values: int) -> np.ndarray:
    """A shape of the last value inside outlines of one pixel of the others, from the outermost on."""
    inner = shape(side)
    label = np.asarray(inner * values[-1])
    for value in values[-2::-1]:
        outer = ndimage.binary_dilation(inner, np.ones((3, 3)))
        label[outer & (inner == 0)] = value
        inner = outer
    return label


SOFT = {
    "supersampled": lambda: supersampled(48, 8),
    "supersampled 4 x 4": lambda: supersampled(128, 4),
    "supersampled 2 x 2": lambda: supersampled(64, 2),
    "enlarged 2 x 2": lambda: ndimage.zoom(shape(64) * 255.0, 2, order=1).round(),
    "in percent": lambda: supersampled(64, 8, 100),
    "of 16 bit": lambda: supersampled(64, 16, 65535),
    "blurred": lambda: ndimage.gaussian_filter(shape(64) * 255.0, 1).round(),
    "blurred widely": lambda: ndimage.gaussian_filter(shape(256) * 255.0, 5).round(),
    "enlarged": lambda: ndimage.zoom(shape(64) * 255.0, 4, order=1).round(),
    "enlarged by cubes": lambda: ndimage.zoom(shape(64) * 255.0, 3, order=3).round().clip(0, 255),
    "a volume": lambda: ndimage.gaussian_filter(shape(24, dims=3) * 255.0, 0.8).round(),
    "one slice": lambda: supersampled(48, 8)[..., None],
    "three plateaus": lambda: ndimage.zoom(
        np.maximum(shape(64), 2 * shape(64, 1)) * 127.0, 3, order=1
    ).round(),
    **{f"JPEG {q}": lambda q=q: jpeg(256, q) for q in (95, 75, 30)},
}
HARD = {
    "two values": lambda: shape(64) * 255,
    "104 classes of 64 voxels": lambda: scattered(64, 104, 4, dims=3),
    "104 classes of 8 voxels": lambda: scattered(48, 104, 2, dims=3),
    "104 classes of one voxel": lambda: scattered(48, 104, 1, dims=3),
    "104 classes of one pixel": lambda: scattered(64, 104, 1),
    "60 classes of 4 pixels": lambda: scattered(128, 60, 2),
    "a large class of 255 and small ones": lambda: np.where(
        shape(64, 9), 255, scattered(64, 99, 1)
    ),
    "a large class of 104 and small ones": lambda: np.where(
        shape(128, 9), 104, scattered(128, 103, 2)
    ),
    "13 small classes beside what is ignored": lambda: np.where(
        shape(16, 9, dims=3), 255, scattered(16, 13, 1, dims=3)
    ),
    "250 cells": lambda: cells(128, 250),
    "12 gray codes of colors": lambda: cells(64, 12) * 21,
    "outlines of two values": lambda: outlined(64, 85, 170, 255),
    "three thick rings": lambda: np.repeat(np.repeat(outlined(64, 60, 120, 180, 255), 2, 0), 2, 1),
    "three marks beside a large class": lambda: np.where(
        shape(64, 9), 255, scattered(64, 3, 1) * 64
    ),
    "stripes": lambda: np.repeat(np.arange(60)[:, None], 64, 1),
    "noise": lambda: rng(1).integers(0, 105, (64, 64)),
    "noise in a volume": lambda: rng(1).integers(0, 14, (16, 16, 16)),
}


@pytest.mark.parametrize("kind", SOFT)
def test_soft_edges_are_recognized(kind: str) -> None:
    label = SOFT[kind]().astype(np.int32)
    with pytest.raises(InputError, match="soft edges.*--label-threshold") as caught:
        refuse_soft_edges(Path("mask.png"), label[None])
    assert f"--label-threshold {(label.max() + 1) // 2})" in str(caught.value)


@pytest.mark.parametrize("kind", HARD)
def test_classes_are_not_mistaken_for_soft_edges(kind: str) -> None:
    refuse_soft_edges(Path("mask.png"), HARD[kind]().astype(np.int32)[None])


def data_set(root: Path, *masks: np.ndarray, suffix: str = ".png") -> Path:
    for number, mask in enumerate(masks):
        image = rng(number).integers(0, 255, mask.shape).astype(np.uint8)
        for folder, array, ending in (("images", image, ".png"), ("labels", mask, suffix)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(root / folder / f"c{number}{ending}")
    return root


def fit(data: Path, tmp_path: Path, *more: str) -> list[str]:
    words = ["fit", str(data), "--method", "scratch", "--out", str(tmp_path / "run"), *more]
    words += ["--training.steps", "1"]
    return [*words, "--size", "16", "--preset", "tiny", "--training.batch-size", "2"]


def problems(result: CheckResult, severity: str) -> str:
    return "\n".join(f"{i.problem}. {i.remedy}" for i in result.issues if i.severity == severity)


def test_soft_masks_are_refused_and_a_threshold_makes_classes_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soft = [supersampled(48, 8) for _ in range(4)]
    data = data_set(tmp_path / "data", *soft)
    assert "soft edges" in problems(check_path(data, workers=0), "error")
    assert "--label-threshold 128" in line_of(fit(data, tmp_path), capsys)
    named = [*fit(data, tmp_path), "--label-values", "0,255"]
    assert "--label-threshold 128" in line_of(named, capsys)
    told = Data(label_threshold=128)
    assert check_path(data, told, workers=0).issues == ()
    for case in open_dataset(data, told):
        np.testing.assert_array_equal(read_case_label(case).array[0], soft[0] >= 128)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_threshold_is_for_jpeg_too(tmp_path: Path, suffix: str) -> None:
    masks = [shape(32, seed) * 255 for seed in range(3)]
    data = data_set(tmp_path, *masks, suffix=suffix)
    for case, mask in zip(open_dataset(data, Data(label_threshold=128)), masks, strict=True):
        read = read_case_label(case).array[0]
        assert (read == (mask > 0)).mean() > 0.99
        if suffix == ".jpg":
            with pytest.raises(InputError, match="--label-threshold"):
                read_case_label(open_dataset(data).cases[0])


def test_another_threshold_prepares_other_labels(tmp_path: Path) -> None:
    data = data_set(tmp_path / "data", *(supersampled(48, 8) for _ in range(2)))
    shares = []
    for threshold in (64, 200):
        dataset = open_dataset(data, Data(label_threshold=threshold))
        plan = make_plan(dataset, PlanSettings(size=(48, 48)), labelled=True)
        prepared = prepare(dataset, plan, labelled=True, cache=tmp_path / "cache")
        shares.append(np.asarray(prepared.label(0) == 1).mean())
        assert shares[-1] == (supersampled(48, 8) >= threshold).mean()
    assert shares[0] > shares[1]


def test_masks_of_one_bit_among_others_of_255_are_mended_by_the_threshold_that_is_named(
    tmp_path: Path,
) -> None:
    """A picture of one bit reads as 0 and 1: the values that suit the other masks refuse it, and say what suits all."""
    masks = [shape(24, seed) for seed in range(3)]
    root = data_set(tmp_path / "data", *(mask * 255 for mask in masks))
    place = next((root / "labels").glob("*1.png"))
    Image.fromarray(masks[1] > 0).save(place)
    assert Image.open(place).mode == "1"
    named = check_path(root, Data(label_values=(0, 255)))
    said = problems(named, "error")
    assert [issue.where for issue in named.issues if issue.severity == "error"] == [str(place)]
    assert said.startswith("holds the value 1, which is none of 0, 255. ")
    flag = "--reader.label-threshold 1"
    assert f"where all but 0 are the same class leave it out and give {flag}" in said
    reader = Data(label_threshold=float(flag.split()[1]))
    assert not problems(check_path(root, reader), "error")
    for case, mask in zip(open_dataset(root, reader), masks, strict=True):
        assert np.array_equal(read_case_label(case).array[0], mask)


def test_a_threshold_beside_named_values_is_refused(tmp_path: Path) -> None:
    data = data_set(tmp_path, shape(16), shape(16, 1))
    told = Data(label_threshold=128, label_values=(0, 1))
    with pytest.raises(InputError, match="excludes --reader.label-values"):
        open_dataset(data, told)


MIXED = [*(shape(32, seed) * 255 for seed in range(4)), shape(32, 5)]


def test_a_foreground_of_255_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_set(tmp_path / "data", *MIXED)
    assert "4 label maps of 5" in problems(check_path(data, workers=0), "warning")
    assert "--label-values 0,255 (or 0,1,255" in problems(check_path(data, workers=0), "warning")
    from radiffuse.cli import main

    assert main([*fit(data, tmp_path), "--dry-run"]) == 0
    assert "--label-values 0,255" in capsys.readouterr().err
    for values, foreground in (((0, 1), 1), ((0, 1, 255), 5)):
        told = Data(label_values=values)
        assert "--label-values" not in problems(check_path(data, told, workers=0), "warning")
        cases = open_dataset(data, told).cases
        shows = [np.isin(read_case_label(case).array, (1, 2)).any() for case in cases]
        assert sum(shows) == foreground


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        ([{0: 90, 1: 9, 255: 8}] * 3, False),  # edges that are ignored
        ([{0: 90, 1: 2, 255: 9}] * 3, False),  # also those of small things
        ([{0: 10, 1: 1, 255: 90}] * 3, False),  # scribbles
        ([{0: 90, 1: 9}] * 3 + [{0: 90, 255: 9}] * 2, False),  # a part that nobody has looked at
        ([{0: 90, 1: 9}] * 2 + [{0: 90, 255: 9}] * 3, True),
        ([{0: 900, 1: 1, 255: 99}] * 3, True),  # a stray pixel
        ([{0: 90, 128: 9}] * 3, True),  # 127 numbers without a class
        ([{0: 90, 1: 9, 4: 9, 2: 3}] * 3, False),  # BraTS
        ([{0: 90, 2: 9, 6: 9, 9: 1, 13: 3}] * 3, False),  # a part of 13 organs
        ([{0: 90, 5: 9}] * 3, True),
    ],
)
def test_only_values_that_are_probably_wrong_are_pointed_out(
    counts: list[dict[int, int]], warned: bool
) -> None:
    issues = judge_values(Path("data"), counts, declared=False)
    assert [issue.severity for issue in issues] == ["warning"] * warned


@pytest.mark.parametrize(("value", "problem"), [(0, "no foreground"), (255, "nothing but 0 and")])
@pytest.mark.parametrize("declared", [False, True])
def test_no_foreground_is_refused_before_training(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    value: int,
    problem: str,
    declared: bool,
) -> None:
    data = data_set(tmp_path / "data", *(shape(32, seed) * value for seed in range(4)))
    if declared:
        (data / "classes.json").write_text('["background", "lung"]')
    for method in ("scratch", "diffusion"):
        line = line_of([*fit(data, tmp_path), "--method", method], capsys)
        assert "no foreground" in line if declared else problem in line
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert problem in problems(check_path(data, workers=0), "error")


def test_labels_to_learn_from_without_foreground_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiffuse.cli import main

    masks = [shape(32, seed) * (seed == 0) for seed in range(6)]
    data = data_set(tmp_path / "data", *masks)
    split = (
        '{"version": 1, "train": ["c1", "c2"], "validation": [], "test": ["c0", "c3"], "draws": []}'
    )
    (tmp_path / "splits.json").write_text(split)
    words = [*fit(data, tmp_path), "--split.file", str(tmp_path / "splits.json")]
    assert main([*words, "--reader.cache", str(tmp_path / "cache")]) == 0
    assert "no foreground in the 2 labels to learn from" in capsys.readouterr().err


@pytest.mark.parametrize("grid", ["16", "32"])
def test_classes_that_no_label_to_learn_from_shows_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: str
) -> None:
    """Of films that are seen whole, and in patches: the network never draws such a class."""
    from radiffuse.cli import main

    masks = [shape(32, seed) for seed in range(4)]
    masks[0][16:28, 16:28] = 2
    data = data_set(tmp_path / "data", *masks)
    for number, names in enumerate((["c1", "c2"], ["c0", "c2"])):
        parts = {"train": names, "validation": [], "test": ["c3"], "draws": []}
        file = tmp_path / f"splits-{number}.json"
        file.write_text(json.dumps({"version": 1} | parts))
        words = [*fit(data, tmp_path / f"{number}"), "--split.file", str(file), "--grid", grid]
        assert main([*words, "--reader.cache", str(tmp_path / "cache")]) == 0
        said = "has no class-2 in the 2 labels to learn from" in capsys.readouterr().err
        assert said == (number == 0)


@pytest.mark.parametrize("grid", ["16", "32"])
def test_a_class_too_small_for_the_grid_is_not_said_to_be_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: str
) -> None:
    """Whole films, and patches: more labels would not bring it back, a finer grid does."""
    from radiffuse.cli import main

    masks = [np.repeat(np.repeat(shape(32, seed), 4, 0), 4, 1) for seed in range(3)]
    for mask in masks:
        mask[2, 2] = 2
    data = data_set(tmp_path / "data", *masks)
    words = [*fit(data, tmp_path), "--grid", grid, "--test", "0", "--validation", "0"]
    assert main([*words, "--reader.cache", str(tmp_path / "cache")]) == 0
    said = capsys.readouterr().err
    assert f"has class-2, too small for the grid of {grid} x {grid} px" in said
    assert "to learn from" not in said
