"""Prepared arrays of films and volumes: what makes a set new, what goes on, what is repaired."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from radiffuse.config import PlanSettings
from radiffuse.data import arrays, fingerprint
from radiffuse.data import prepare as module
from radiffuse.data.cases import read_case_image
from radiffuse.data.dataset import Dataset
from radiffuse.data.fingerprint import BYTES_PER_VOXEL
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan
from radiffuse.data.prepare import cache_folder, prepare
from radiffuse.data.prepared import Prepared
from radiffuse.errors import InputError


def plan_of(dataset: Dataset, size: tuple[int, ...] = (32, 32)) -> Plan:
    return make_plan(dataset, PlanSettings(size=size), labelled=True)


@pytest.fixture
def volumes(tmp_path: Path) -> Dataset:
    """Three small labelled CT volumes."""
    rng = np.random.default_rng(0)
    for i in range(3):
        array = rng.normal(0, 100, (10, 12, 9 + i)).astype(np.int16)
        label = np.zeros(array.shape, np.uint8)
        label[2:6, 3:7, 2:5] = 1
        for kind, data in (("images", array), ("labels", label)):
            folder = tmp_path / "ct" / kind
            folder.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(data, np.diag((1.0, 1.0, 2.0, 1.0))).to_filename(
                folder / f"v{i}.nii.gz"
            )
    return open_dataset(tmp_path / "ct")


def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are prepared from now on."""
    names: list[str] = []
    whole = module._prepare_row

    def counting(folder, item, **treatment):  # type: ignore[no-untyped-def]
        names.append(item[1].name)
        return whole(folder, item, **treatment)

    monkeypatch.setattr(module, "_prepare_row", counting)
    return names


def test_nothing_is_made_twice(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films)
    names = made(monkeypatch)
    for expected in (12, 12):
        prepare(dataset, plan_of(dataset), labelled=True, cache=tmp_path)
        assert len(names) == expected


@pytest.mark.parametrize("kind", ["films", "volumes"])
def test_a_set_is_read_through_only_where_a_file_has_changed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    given = request.getfixturevalue(kind)
    dataset = given if kind == "volumes" else open_dataset(given)
    plan = plan_of(dataset, (8, 8, 8)) if kind == "volumes" else plan_of(dataset)
    first = prepare(dataset, plan, labelled=True, cache=tmp_path)
    read: list[int] = []
    arrays = Prepared.arrays
    monkeypatch.setattr(Prepared, "arrays", lambda self, i: (read.append(i), arrays(self, i))[1])
    names = made(monkeypatch)
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert read == []
    path = sorted(first.folder.glob("*.npy"))[0]
    whole = path.read_bytes()
    with path.open("r+b") as file:  # in place, and of the same size
        file.seek(-1, 2)
        file.write(bytes([whole[-1] ^ 1]))
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert len(read) == len(dataset)
    assert len(names) == 1
    assert path.read_bytes() == whole
    read.clear()
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert read == []
    (first.folder / "checked").unlink()
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert len(read) == len(dataset)
    assert len(names) == 1


def test_a_damaged_row_that_cannot_be_made_again_is_never_taken_for_whole(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)
    first = prepare(dataset, plan, labelled=True, cache=tmp_path)
    array = np.load(first.folder / "images.npy", mmap_mode="r+")
    array[3] = 0
    array.flush()

    def refusing(folder, item, **treatment):  # type: ignore[no-untyped-def]
        raise InputError(item[1].name, "is gone", "Bring it back")

    monkeypatch.setattr(module, "_prepare_row", refusing)
    for _ in range(2):
        again = prepare(dataset, plan, labelled=True, cache=tmp_path, skip_bad=True)
        assert [skipped.case for skipped in again.skipped] == [dataset.cases[3].name]
    monkeypatch.setattr(module, "rank", lambda: 1)
    other = prepare(dataset, plan, labelled=True, cache=tmp_path, skip_bad=True)
    assert [*other.rows] == [*again.rows]  # processes that train together have the same cases


@pytest.mark.parametrize(("given", "threads"), [(None, 2), (1, 1), (9, 2)])
def test_no_more_cases_are_prepared_at_once_than_memory_holds(
    given: int | None, threads: int, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films)
    largest = max(read_case_image(case).array[0].size for case in dataset)
    monkeypatch.setattr(fingerprint, "free_memory", lambda: 2 * 2 * largest * BYTES_PER_VOXEL)
    monkeypatch.setattr(fingerprint, "cores", lambda: 64)
    asked: list[int] = []

    def each(function, items, *, workers, **options):  # type: ignore[no-untyped-def]
        asked.append(workers)
        return one_by_one(function, items, workers=0, **options)

    one_by_one = arrays.each
    monkeypatch.setattr(arrays, "each", each)
    prepare(dataset, plan_of(dataset), labelled=True, cache=tmp_path, workers=given)
    assert asked == [threads]


def test_a_kill_in_the_middle_loses_only_what_was_not_logged(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, plan, labelled=True, cache=tmp_path, workers=1, progress=stop)
    names = made(monkeypatch)
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert names == [case.name for case in dataset.cases[5:]]


def test_a_line_cut_short_costs_its_row_once(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)
    first = prepare(dataset, plan, labelled=True, cache=tmp_path)
    rows = first.folder / "rows.jsonl"
    rows.write_text(rows.read_text()[:-9])
    names = made(monkeypatch)
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert names == [dataset.cases[-1].name]
    prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert len(names) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"size": (16, 32)},
        {"resize": "stretch"},
        {"low": 1.0},
        {"intensity": "window", "low": 0.0, "high": 255.0},
    ],
)
def test_another_plan_is_another_set(
    films: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)
    other = dataclasses.replace(plan, **change)  # type: ignore[arg-type]
    a = prepare(dataset, plan, labelled=True, cache=tmp_path)
    b = prepare(dataset, other, labelled=True, cache=tmp_path)
    assert a.folder != b.folder
    assert b.image(0).shape == (1, *other.size)


def test_a_changed_file_is_another_set_and_names_of_classes_are_not(
    films: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(films, data)
    dataset = open_dataset(data)
    plan = plan_of(dataset)
    first = prepare(dataset, plan, labelled=True, cache=tmp_path)
    renamed = plan.with_classes([f"x{i}" for i in range(len(plan.classes))])
    assert prepare(dataset, renamed, labelled=True, cache=tmp_path).folder == first.folder
    assert prepare(dataset, plan, labelled=False, cache=tmp_path).folder != first.folder
    image, label = dataset.cases[0].images[0], dataset.cases[0].label
    assert label is not None
    for file in (image, label):
        status = file.stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        assert prepare(dataset, plan, labelled=True, cache=tmp_path).folder != first.folder


def test_the_voxels_behind_a_header_are_part_of_the_set(tmp_path: Path) -> None:
    header = "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementSpacing = 1 1 1\nElementDataFile = a.raw\n"
    raw = tmp_path / "set" / "a.raw"
    raw.parent.mkdir()
    (tmp_path / "set" / "a.mhd").write_text(header)
    raw.write_bytes(bytes(range(64)))
    dataset = open_dataset(tmp_path / "set")
    plan = Plan(3, ("image",), (), (4, 4, 4), (1.0, 1.0, 1.0), intensity="window", low=0, high=255)
    first = prepare(dataset, plan, labelled=False, cache=tmp_path / "cache").image(0)
    raw.write_bytes(bytes(range(64, 128)))
    second = prepare(dataset, plan, labelled=False, cache=tmp_path / "cache").image(0)
    assert np.asarray(second - first, np.float32).mean() == pytest.approx(2 * 64 / 255, abs=1e-3)


def test_the_patch_size_of_volumes_changes_no_array(volumes: Dataset, tmp_path: Path) -> None:
    plan = plan_of(volumes, (8, 8, 8))
    first = prepare(volumes, plan, labelled=True, cache=tmp_path)
    larger = dataclasses.replace(plan, size=(16, 16, 16))
    assert prepare(volumes, larger, labelled=True, cache=tmp_path).folder == first.folder
    other = dataclasses.replace(plan, spacing=(2.0, 2.0, 2.0))
    assert prepare(volumes, other, labelled=True, cache=tmp_path).folder != first.folder


@pytest.mark.parametrize("damage", ["short", "flip", "missing", "empty"])
@pytest.mark.parametrize("kind", ["image", "label", "points"])
def test_a_damaged_volume_is_made_again(
    volumes: Dataset, tmp_path: Path, kind: str, damage: str
) -> None:
    plan = plan_of(volumes, (8, 8, 8))
    first = prepare(volumes, plan, labelled=True, cache=tmp_path)
    path = first.folder / f"{kind}-000001.npy"
    whole = path.read_bytes()
    path.unlink()
    if damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flip":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "empty":
        path.touch()
    prepare(volumes, plan, labelled=True, cache=tmp_path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["short", "empty", "missing"])
def test_a_damaged_film_array_is_made_again(
    films: Path, tmp_path: Path, name: str, damage: str
) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)
    first = prepare(dataset, plan, labelled=True, cache=tmp_path)
    path = first.folder / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(whole[: len(whole) // 2 if damage == "short" else 0])
    again = prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert path.read_bytes() == whole
    assert (again.label(11) == np.load(first.folder / "labels.npy")[11]).all()


def test_foreground_points_lie_in_the_foreground(volumes: Dataset, tmp_path: Path) -> None:
    prepared = prepare(volumes, plan_of(volumes, (8, 8, 8)), labelled=True, cache=tmp_path)
    for i in range(len(prepared)):
        points = prepared.foreground(i)
        assert len(points) == min(module.FOREGROUND_POINTS, int((prepared.label(i) == 1).sum()))
        assert (points[:, 0] == 1).all()
        assert (prepared.label(i)[tuple(points[:, 1:].T)] == 1).all()


def test_all_bad_is_an_error_even_when_bad_ones_may_be_skipped(films: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(films, data)
    dataset = open_dataset(data)
    plan = plan_of(dataset)
    for case in dataset:
        case.images[0].write_bytes(b"no image")
    with pytest.raises(InputError, match=dataset.cases[0].images[0].name):
        prepare(dataset, plan, labelled=True, cache=tmp_path, skip_bad=True)


def test_a_film_among_volumes_is_named(volumes: Dataset, films: Path, tmp_path: Path) -> None:
    film = open_dataset(films).cases[0]
    mixed = dataclasses.replace(volumes, cases=(*volumes.cases, film))
    plan = plan_of(volumes, (8, 8, 8))
    with pytest.raises(InputError, match=rf"{film.images[0].name}: has 2 spatial axes"):
        prepare(mixed, plan, labelled=True, cache=tmp_path)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADIFFUSE_CACHE", "/a")
    assert cache_folder("/b") == Path("/b")
    assert cache_folder(None) == Path("/a")
    monkeypatch.delenv("RADIFFUSE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder(None) == Path("/c/radiffuse")


def test_preparation_goes_on_and_repairs(films: Path, tmp_path: Path) -> None:
    dataset = open_dataset(films)
    plan = plan_of(dataset)
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
    plan = plan_of(dataset)
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
    plan = plan_of(dataset)
    label = sorted((data / "labels").iterdir())[0]
    Image.new("L", (31, 32)).save(label)
    with pytest.raises(InputError, match=rf"{label.name}.*32 x 31, not 32 x 32"):
        prepare(dataset, plan, labelled=True, cache=tmp_path)
    Image.new("L", (32, 32), 99).save(label)
    with pytest.raises(InputError, match=rf"{label.name}.*\[99\]"):
        prepare(dataset, plan, labelled=True, cache=tmp_path)


def test_a_class_that_is_no_longer_declared_is_refused(films: Path, tmp_path: Path) -> None:
    """Arrays that were prepared with it would have values that no class has."""
    dataset = open_dataset(films)
    plan = plan_of(dataset)
    prepared = prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert prepared.folder == prepare(dataset, plan, labelled=True, cache=tmp_path).folder
    with pytest.raises(InputError, match=r"outside the 2 declared classes"):
        prepare(dataset, plan.with_classes(plan.classes[:2]), labelled=True, cache=tmp_path)


def test_places_are_read_as_they_were_written_each_time(volumes: Dataset, tmp_path: Path) -> None:
    prepared = prepare(volumes, plan_of(volumes, (8, 8, 8)), labelled=True, cache=tmp_path)
    first = np.array(prepared.foreground(0))
    assert np.array_equal(prepared.foreground(0), first)  # by the layout that is known by now
    assert np.array_equal(np.load(prepared.folder / "points-000000.npy"), first)
