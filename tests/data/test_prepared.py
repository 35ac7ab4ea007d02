"""Plan, prepared arrays, batches and splits: what goes on, what is pure, what a patient's cases may do."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from radiffuse.config import IGNORE, Augmentation, PlanSettings, Split
from radiffuse.data.augment import Change, apply, draw
from radiffuse.data.batches import Batches
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan, read_plan
from radiffuse.data.prepare import Prepared, prepare
from radiffuse.data.scan import Scan
from radiffuse.data.splits import load_splits
from radiffuse.data.transform import image_to_plan, label_to_plan, scores_to_scan
from radiffuse.errors import InputError

STRONG = Augmentation(flip=(0, 1), rotate=30, scale=0.2, translate=0.1, brightness=0.3, noise=0.1)


def film_plan(dataset: Dataset) -> Plan:
    return make_plan(dataset, PlanSettings(size=(32,)), labelled=True)


@pytest.fixture
def prepared(films: Path, tmp_path: Path) -> Prepared:
    dataset = open_dataset(films)
    return prepare(dataset, film_plan(dataset), labelled=True, cache=tmp_path)


# ---------------------------------------------------------------------------------------------------- plan


def test_a_plan_survives_its_file_and_an_edit(films: Path, tmp_path: Path) -> None:
    plan = film_plan(open_dataset(films))
    assert plan.size == (32, 32)
    assert plan.classes[:2] == ("background", "enamel")
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert read_plan(path) == plan
    path.write_text(plan.to_json().replace('"stretch"', '"fit"'))
    assert read_plan(path).resize == "fit"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"version": 1', '"version": 9', "version 9"),
        ('"low": 0.5', '"low": 99.9', "empty"),
        ('"spatial_dims": 2', '"spatial_dims": 3', "spatial axes"),
        ('"size"', '"siz"', "not a plan"),
        ("{", "", "not a plan"),
    ],
)
def test_a_bad_plan_is_refused(films: Path, tmp_path: Path, old: str, new: str, word: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(film_plan(open_dataset(films)).to_json().replace(old, new, 1))
    with pytest.raises(InputError, match=word):
        read_plan(path)


def test_ct_gets_a_window_in_hu(tmp_path: Path) -> None:
    from radiffuse.data.procedural import write_dataset

    write_dataset("abdomen", tmp_path, count=2, labelled=True, seed=0, size=(32, 32, 16))
    plan = make_plan(open_dataset(tmp_path), PlanSettings(), labelled=True)
    assert (plan.intensity, plan.low, plan.high) == ("window", -1350.0, 1000.0)
    assert plan.spatial_dims == 3
    assert len(plan.classes) == 14


# ----------------------------------------------------------------------------------------------- transform


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_a_film_label_comes_back_on_its_own_grid(resize: str) -> None:
    label = np.zeros((1, 90, 60), np.uint8)
    label[0, 20:70, 10:40] = 1
    plan = Plan(2, ("image",), ("background", "box"), (64, 64), resize=resize)  # type: ignore[arg-type]
    image, undo = image_to_plan(Scan(label * 200), plan)
    assert image.shape == (1, 64, 64)
    planned = torch.from_numpy(label_to_plan(Scan(label), plan).astype(np.int64))
    scores = torch.nn.functional.one_hot(planned.masked_fill(planned == IGNORE, 0), 2).movedim(
        -1, 0
    )
    mask, _ = scores_to_scan(scores.float(), undo)
    assert mask.shape == (90, 60)
    overlap = 2 * (mask * label[0]).sum() / (mask.sum() + label.sum())
    assert overlap > 0.95


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_a_volume_label_comes_back_through_any_orientation(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    spacing = np.array([1.0, 2.0, 3.0])
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.array(signs) * spacing)[list(order)].T.T
    shape = (24, 20, 16)
    label = np.zeros((1, *shape), np.uint8)
    label[0, 4:14, 3:12, 5:11] = 1
    scan = Scan(label, tuple(np.linalg.norm(affine[:3, :3], axis=0)), affine)
    plan = Plan(3, ("CT",), ("background", "box"), (16, 16, 16), (1.5, 1.5, 1.5))
    image, undo = image_to_plan(scan, plan)
    planned = torch.from_numpy(label_to_plan(scan, plan).astype(np.int64))
    assert tuple(planned.shape) == image.shape[1:]
    mask, _ = scores_to_scan(torch.nn.functional.one_hot(planned, 2).movedim(-1, 0).float(), undo)
    assert mask.shape == shape
    overlap = 2 * (mask * label[0]).sum() / (mask.sum() + int(label.sum()))
    assert overlap > 0.85


def test_colors_become_gray_and_a_constant_film_is_dark() -> None:
    plan = Plan(2, ("image",), (), (16, 16))
    color = np.zeros((3, 16, 16), np.uint8)
    color[1, :, 8:] = 200
    image, _ = image_to_plan(Scan(color), plan)
    assert image.shape == (1, 16, 16)
    assert image[0, 0, 0] == -1
    assert image[0, 0, -1] == 1
    constant, _ = image_to_plan(Scan(np.full((1, 16, 16), 7, np.uint8)), plan)
    assert (constant == -1).all()


# -------------------------------------------------------------------------------------------------- prepare


def test_preparation_goes_on_and_repairs(films: Path, tmp_path: Path) -> None:
    dataset = open_dataset(films)
    plan = film_plan(dataset)
    whole = prepare(dataset, plan, labelled=True, cache=tmp_path / "whole")
    folder = tmp_path / "cut"
    first = prepare(dataset, plan, labelled=True, cache=folder)
    rows = first.folder / "rows.jsonl"
    lines = rows.read_text().splitlines()
    rows.write_text("\n".join(lines[:5]) + "\n" + lines[5][:7])
    films_file = np.load(first.folder / "images.npy", mmap_mode="r+")
    films_file[2] = 0  # damage in a row that is logged as done
    films_file.flush()
    seen: list[int] = []
    again = prepare(
        dataset, plan, labelled=True, cache=folder, progress=lambda i, n: seen.append(i)
    )
    assert (
        seen[0] == 5
    )  # 4 of 5 logged rows were whole, the first that is made again is the fifth done
    for i in range(len(whole)):
        assert np.array_equal(whole.image(i), again.image(i))
        assert np.array_equal(whole.label(i), again.label(i))


def test_a_bad_case_stops_or_is_listed(films: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(films, data)
    broken = sorted((data / "images").iterdir())[4]
    dataset = open_dataset(data)
    plan = film_plan(dataset)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match=broken.name):
        prepare(dataset, plan, labelled=True, cache=tmp_path)
    kept = prepare(dataset, plan, labelled=True, cache=tmp_path, skip_bad=True)
    assert len(kept) == 11
    assert [s.case for s in kept.skipped] == [broken.stem]
    assert broken.stem not in [case.name for case in kept.cases]


def test_a_label_of_another_size_or_class_is_refused(films: Path, tmp_path: Path) -> None:
    from PIL import Image

    data = tmp_path / "data"
    shutil.copytree(films, data)
    dataset = open_dataset(data)
    plan = film_plan(dataset)
    label = sorted((data / "labels").iterdir())[0]
    Image.new("L", (31, 32)).save(label)
    with pytest.raises(InputError, match=rf"{label.name}.*\(32, 31\).*\(32, 32\)"):
        prepare(dataset, plan, labelled=True, cache=tmp_path)
    Image.new("L", (32, 32), 99).save(label)
    with pytest.raises(InputError, match=rf"{label.name}.*\[99\]"):
        prepare(dataset, plan, labelled=True, cache=tmp_path)


# -------------------------------------------------------------------------------------------------- batches


def test_a_batch_depends_on_its_step_alone(prepared: Prepared) -> None:
    first, second = (Batches(prepared, batch_size=6, seed=3, augmentation=STRONG) for _ in range(2))
    for step in (0, 7, 3):
        a, b = first(step), second(step)
        assert torch.equal(a.images, b.images)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(first(0).images, first(1).images)
    other = Batches(prepared, batch_size=6, seed=4, augmentation=STRONG)
    assert not torch.equal(first(0).images, other(0).images)


def test_ranks_together_see_what_one_sees(prepared: Prepared) -> None:
    batches = Batches(prepared, batch_size=6, seed=3, augmentation=STRONG)
    whole = batches(5)
    parts = [batches(5, rank, 3) for rank in range(3)]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert whole.cases == sum((part.cases for part in parts), ())


def test_an_epoch_sees_every_case_once(prepared: Prepared) -> None:
    batches = Batches(
        prepared, batch_size=6, seed=3, augmentation=Augmentation(), indices=(1, 4, 5, 9)
    )
    names = [name for step in range(2) for name in batches(step).cases]
    assert (
        sorted(names[:4])
        == sorted(names[4:8])
        == sorted(prepared.cases[i].name for i in (1, 4, 5, 9))
    )


def test_labels_move_with_their_image() -> None:
    yy, xx = np.mgrid[:48, :48]
    blob = ((yy - 20) ** 2 + (xx - 28) ** 2 < 100).astype(np.float32)
    image = torch.from_numpy(blob * 2 - 1)[None, None]
    label = torch.from_numpy(blob.astype(np.int64))[None]
    settings = dataclasses.replace(STRONG, brightness=0.0, noise=0.0)
    for seed in range(20):
        change = draw(settings, 2, np.random.default_rng(seed))
        moved, moved_label = apply([change], image, label)
        assert moved_label is not None
        found = moved[0, 0] > 0
        overlap = 2 * (found & (moved_label[0] == 1)).sum() / (found.sum() + moved_label.sum())
        assert overlap > 0.95


def test_a_rotation_keeps_its_angle_on_an_oblong_image() -> None:
    image = torch.full((1, 1, 32, 64), -1.0)
    image[..., 16, 12:52] = 1.0  # a horizontal bar of 40 pixels
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    turned, _ = apply([Change(quarter)], image, None)
    rows = (turned[0, 0] > 0).any(1).sum()
    columns = (turned[0, 0] > 0).any(0).sum()
    assert int(rows) == 32  # it now fills the height and is as thin as before
    assert int(columns) <= 3


def test_no_change_is_no_change(prepared: Prepared) -> None:
    batch = Batches(prepared, batch_size=4, seed=0, augmentation=Augmentation())(0)
    index = [case.name for case in prepared.cases].index(batch.cases[0])
    assert np.array_equal(batch.images[0].numpy(), prepared.image(index).astype(np.float32))


# --------------------------------------------------------------------------------------------------- splits


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


def test_a_budget_beyond_the_pool_is_refused(films: Path, tmp_path: Path) -> None:
    splits = load_splits(grouped(films), Split(), tmp_path)
    with pytest.raises(InputError, match="training pool"):
        splits.budget(100, 0)
