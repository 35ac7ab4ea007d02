"""Folds: nnU-Net's splits_final.json by number, and MONAI data lists with parts or folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layout_files import film, film_label

from radiffuse.config import Data, Split
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import load_splits
from radiffuse.errors import InputError


def write_list(folder: Path, content: dict[str, Any], name: str = "datalist.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def entries(folder: Path, numbers: range, **more: Any) -> list[dict[str, Any]]:
    found = []
    for i in numbers:
        film(folder / "img" / f"c{i}.png", seed=i)
        film_label(folder / "lab" / f"c{i}.png")
        fold = {"fold": i % 3} if more.get("folds") else {}
        found.append({"image": f"./img/c{i}.png", "label": f"lab/c{i}.png"} | fold)
    return found


def test_parts_of_a_data_list_are_the_split(tmp_path: Path) -> None:
    content = {
        "training": entries(tmp_path, range(4)),
        "validation": entries(tmp_path, range(4, 6)),
        "testing": [{"image": e["image"]} for e in entries(tmp_path, range(6, 8))],
        "labels": {"0": "background", "1": "thing"},
        "modality": {"0": "film"},
    }
    path = write_list(tmp_path, content, "folds_of_mine.json")
    dataset = open_dataset(path)
    assert dataset.layout == "datalist"
    assert dataset.classes == ("background", "thing")
    assert dataset.channels == ("film",)
    assert [case.split for case in dataset] == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    assert len(dataset.labelled) == 6
    splits = load_splits(dataset.labelled, Split(), tmp_path / "cache")
    assert (splits.train, splits.validation) == (("c0", "c1", "c2", "c3"), ("c4", "c5"))


@pytest.mark.parametrize("layout", ["datalist", "table"])
@pytest.mark.parametrize("labelled", [(), ("testing",), ("validation",)])
def test_unlabelled_parts_leave_the_labelled_cases_unsplit(
    layout: str, labelled: tuple[str, ...], tmp_path: Path
) -> None:
    """Else all labelled cases would be trained on; with labels in one held-out part, what is declared stands."""
    parts = {"training": range(8), "validation": range(8, 10), "testing": range(10, 12)}
    content = {part: entries(tmp_path, numbers) for part, numbers in parts.items()}
    for part in {"validation", "testing"} - {*labelled}:
        content[part] = [{"image": entry["image"]} for entry in content[part]]
    path = write_list(tmp_path, content)
    if layout == "table":
        path = tmp_path / "list.csv"
        rows = [
            f"{entry['image']},{entry.get('label', '')},{part}"
            for part, entry in ((part, entry) for part in content for entry in content[part])
        ]
        path.write_text("\n".join(["image,label,split", *rows]))
    splits = load_splits(open_dataset(path).labelled, Split(), tmp_path / "cache")
    found = (len(splits.train), len(splits.validation), len(splits.test))
    expected = {(): (3, 1, 4), ("testing",): (8, 0, 2), ("validation",): (8, 2, 0)}
    assert found == expected[labelled]


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_folds_of_a_data_list(fold: int, tmp_path: Path) -> None:
    training = entries(tmp_path, range(9), folds=True)
    testing = entries(tmp_path, range(9, 11))
    write_list(tmp_path, {"training": training, "testing": testing})
    dataset = open_dataset(tmp_path)
    splits = load_splits(dataset, Split(fold=fold), tmp_path / "cache", draw=11)
    held = tuple(f"c{i}" for i in range(9) if i % 3 == fold)
    assert splits.validation == held
    assert splits.train == tuple(f"c{i}" for i in range(9) if i % 3 != fold)
    assert sorted(splits.test) == ["c10", "c9"]
    assert set(splits.budget(4, 11)) <= set(splits.train)
    assert not (tmp_path / "cache").exists()


def test_channels_of_a_data_list(tmp_path: Path) -> None:
    pairs = [
        {"image": [one["image"], two["image"]], "label": one["label"]}
        for one, two in zip(
            entries(tmp_path, range(2)), entries(tmp_path, range(5, 7)), strict=True
        )
    ]
    dataset = open_dataset(write_list(tmp_path, {"training": pairs}))
    assert dataset.channels == ("channel-0", "channel-1")
    assert [len(case.images) for case in dataset] == [2, 2]
    write_list(tmp_path, {"training": [*pairs, {"image": "img/c6.png"}]})
    with pytest.raises(InputError, match="lists 1 images in one entry and 2 in another"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"label": "x.png"}, "names no image"),
        ({"image": "../away.png"}, "leads out of"),
        ({"image": "img/none.png"}, "training\\[0\\]"),
        ({"image": "img/c0.png", "fold": "a"}, "has the fold 'a'"),
        ({"image": "img/c0.png", "label": ["x"]}, "a label that is no path"),
        (7, "names no image"),
    ],
)
def test_bad_entries_are_named(entry: Any, message: str, tmp_path: Path) -> None:
    entries(tmp_path, range(1))
    path = write_list(tmp_path, {"training": [entry]})
    with pytest.raises(InputError, match=message):
        open_dataset(path, Data(layout="datalist"))


def nnunet_splits(folder: Path) -> tuple[Any, Path]:
    write_list(folder, {"training": entries(folder, range(6))})
    folds = [
        {"train": [f"c{i}" for i in range(6) if i % 3 != k], "val": [f"c{k}", f"c{k + 3}"]}
        for k in range(3)
    ]
    path = folder / "splits_final.json"
    path.write_text(json.dumps(folds))
    return open_dataset(folder), path


@pytest.mark.parametrize("fold", [None, 0, 2])
def test_folds_of_nnunet(fold: int | None, tmp_path: Path) -> None:
    dataset, path = nnunet_splits(tmp_path)
    before = path.read_bytes()
    settings = Split(file=str(path), fold=fold)
    splits = load_splits(dataset, settings, tmp_path / "cache", draw=0)
    k = fold or 0
    assert splits.validation == (f"c{k}", f"c{k + 3}")
    assert set(splits.train) == {f"c{i}" for i in range(6) if i % 3 != k}
    assert splits == load_splits(dataset, settings, tmp_path / "cache", draw=0)
    assert path.read_bytes() == before  # it is nnU-Net's; nothing is added to it


def test_folds_that_do_not_fit(tmp_path: Path) -> None:
    dataset, path = nnunet_splits(tmp_path)
    with pytest.raises(InputError, match="has no fold 5"):
        load_splits(dataset, Split(file=str(path), fold=5), tmp_path / "cache")
    path.write_text(json.dumps([{"train": ["c0", "zzz"], "val": ["c1"]}]))
    with pytest.raises(InputError, match="such as zzz"):
        load_splits(dataset, Split(file=str(path)), tmp_path / "cache")
    path.unlink()
    with pytest.raises(InputError, match="has no folds"):
        load_splits(dataset, Split(fold=1), tmp_path / "cache")
