"""What a run knows of the labels of a data set; one that knows held-out labels starts no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import radiffuse
from conftest import TINY
from radiffuse.commands import fit as commands
from radiffuse.data.dataset import Case, Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.train.known import images_of, labels_of, learned_images, trained_on
from radiffuse.train.run import Run


def quick(films: Path, out: str, home: Path, **changes: Any) -> Any:
    given = {
        "data": films, "out": home / out, "method": "joint", "network": TINY,
        "joint": {"process": {"num_train_timesteps": 20}}, "plan": {"size": (32, 32)},
        "split": {"test": 0.4, "validation": 0.2}, "training": {"steps": 1, "batch_size": 2, "validate_every": 0},
        "reader": {"cache": str(home / "cache")}, "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes  # fmt: skip
    if given["method"] == "auto":
        given |= {"split": {}, "training": {}}
    if "from_" in given:
        del given["network"], given["joint"]
    return radiffuse.fit(**given)


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("score_validation", "leave_documents"):
        monkeypatch.setattr(commands, name, lambda *_: None)


def test_training_cases_are_known_from_another_folder(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unscored: None
) -> None:
    (tmp_path / "here").symlink_to(films)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    run = quick(Path("here"), "run", tmp_path)
    learned = set(json.loads((run.folder / "splits.json").read_text())["train"])
    assert learned
    for folder, data in ((tmp_path, "here"), (tmp_path / "below", "../here")):
        monkeypatch.chdir(folder)
        assert trained_on([run], open_dataset(data)) == learned


def test_training_cases_are_known_when_their_folder_was_moved(
    films: Path, tmp_path: Path, unscored: None
) -> None:
    """Whatever their names are now, also to a run that starts from it; a film of other content is another one."""
    here, moved = shutil.copytree(films, tmp_path / "here"), tmp_path / "moved"
    first = quick(here, "first", tmp_path)
    second = quick(here, "second", tmp_path, from_=first.folder, labels=1)
    here.rename(moved)
    learned = sorted(first.data["split"]["train"])
    for part in ("images", "labels"):
        for file in [*(moved / part).glob("*.png")]:
            file.rename(file.with_name(f"x{file.name}"))
    with Image.open(moved / "images" / f"x{learned[0]}.png") as image:
        image.rotate(90).save(image.filename)
    known = {f"x{name}" for name in learned[1:]}
    assert known
    for run in (first, second):
        assert trained_on([run], open_dataset(moved)) == known
    split = {"test": 0.4, "validation": 0.2, "seed": 1}
    with pytest.raises(InputError, match=r"^from_=.*second.: learned from xbite"):
        quick(moved, "leak", tmp_path, from_=second.folder, method="finetune", split=split)


def test_a_run_that_learned_from_held_out_labels_starts_no_other(
    films: Path, tmp_path: Path, unscored: None
) -> None:
    """Nor does one that started from it; and what is drawn descends from the patients of both."""
    first = quick(films, "first", tmp_path)
    with pytest.raises(
        InputError, match=r"^from_=.*first.: learned from bite.*, which this run hol"
    ):
        quick(films, "leak", tmp_path, from_=first.folder, method="finetune",
              split={"test": 0.4, "validation": 0.2, "seed": 1})  # fmt: skip
    with pytest.raises(
        InputError, match=r"^from_=.*first.: learned from bite.*, which auto leaves"
    ):
        quick(films, "chosen", tmp_path, from_=first.folder, method="auto")
    second = quick(films, "second", tmp_path, from_=first.folder, labels=1)
    train = json.loads((first.folder / "splits.json").read_text())["train"]
    assert len(second.data["split"]["train"]) == 1
    assert labels_of(second) == {str(films): sorted(train)}
    assert second.data["learned_patients"] == first.data["learned_patients"]
    assert len(second.data["learned_patients"]) > 1
    before = second.data
    again = quick(films, "second", tmp_path, from_=first.folder, labels=1)  # trains nothing
    assert again.data == before
    with pytest.raises(InputError, match=r"^from_=.*second.: learned from"):
        quick(films, "chained", tmp_path, from_=second.folder, method="finetune",
              split={"test": 0.4, "validation": 0.2, "seed": 1})  # fmt: skip


def test_pairs_descend_from_the_patients_of_the_plain_pretraining(
    films: Path,
    pretrained: Path,
    tmp_path: Path,
    unscored: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = {case.group for case in open_dataset(Run.open(pretrained).data["root"])}
    seen -= set(Run.open(pretrained).data["split"]["validation"])
    assert len(seen) == 19  # of 20 films, each of its own patient, one is held out
    write_dataset(
        "bitewing", tmp_path / "mine", count=5, labelled=True, seed=5, size=(32, 32), start_index=60
    )
    first = quick(tmp_path / "mine", "first", tmp_path, from_=pretrained)
    second = quick(tmp_path / "mine", "second", tmp_path, from_=first.folder)
    own = set(first.data["learned_patients"])
    assert "does not name" not in capsys.readouterr().err
    for run in (first, second):
        assert set(run.data["unlabelled_patients"]) == seen
        pairs = radiffuse.generate(run=run.folder, out=tmp_path / f"{run.folder.name}-pairs", count=1,
                                   steps=1, machine={"accelerator": "cpu"})  # fmt: skip
        (case,) = open_dataset(pairs)
        assert set(case.group.split("+")) == seen | own
    older = shutil.copytree(pretrained, tmp_path / "older")
    data = json.loads((older / "data.json").read_text())
    del data["unlabelled_patients"]
    (older / "data.json").write_text(json.dumps(data))
    assert (
        "unlabelled_patients" not in quick(tmp_path / "mine", "third", tmp_path, from_=older).data
    )
    assert f"{older}: does not name the patients" in capsys.readouterr().err


def test_images_of_a_run_whose_folder_is_gone_are_told_by_their_patients(
    films: Path, tmp_path: Path, unscored: None, capsys: pytest.CaptureFixture[str]
) -> None:
    here, moved = shutil.copytree(films, tmp_path / "here"), tmp_path / "moved"
    run = quick(here, "run", tmp_path, method="scratch", joint={})
    dataset, learned = open_dataset(films), run.data["split"]["train"]
    assert learned_images(run, dataset) == sorted(learned)
    here.rename(moved)
    run.write_data(run.data | {"unlabelled_patients": learned[:2]})
    capsys.readouterr()
    assert learned_images(run, dataset) == sorted(learned[:2])
    said = capsys.readouterr().err
    assert f"{here}, whose images {run.folder} learned from, cannot be opened" in said


def test_images_of_patients_are_told_by_any_spelling_and_of_each_that_was_drawn_from() -> None:
    cases = (Case(f"film {n}", (Path(f"{n}.png"),), group=n) for n in ("7", "8", "9"))
    dataset = Dataset(Path("films"), "images", tuple(cases))
    assert images_of(["007"], dataset) == ["film 7"]
    assert images_of(["9+07"], dataset) == ["film 7", "film 9"]
    assert images_of(["77"], dataset) == []


def test_labels_of_damaged_or_published_runs_are_unknown(films: Path) -> None:
    for data in ({}, {"root": 3, "split": []}, {"root": "films", "labels_before": [1]}):
        assert labels_of(SimpleNamespace(data=data)) == {}  # type: ignore[arg-type]


def test_cases_of_further_folders_are_known_there_and_by_their_content(
    films: Path, tmp_path: Path, unscored: None
) -> None:
    """Of two folders with cases of the same names, the same scans are known, also to a run that starts from it."""
    write_dataset(
        "bitewing", tmp_path / "all", count=5, labelled=True, seed=3, size=(32, 32), start_index=700
    )
    names = sorted(path.stem for path in (tmp_path / "all/images").iterdir())
    shutil.copytree(tmp_path / "all", tmp_path / "more")
    for name in names[3:]:
        for part in ("images", "labels"):
            (tmp_path / "more" / part / f"{name}.png").unlink()
    first = quick(films, "first", tmp_path, with_=(str(tmp_path / "more"),))
    for name, angle in ((names[0], 90), (names[4], 0)):  # one is another scan now
        path = tmp_path / "all/images" / f"{name}.png"
        with Image.open(path) as image:
            image.rotate(angle).save(path)
    second = quick(films, "second", tmp_path, from_=first.folder, method="finetune", labels=1)
    for run in (first, second):
        assert trained_on([run], open_dataset(tmp_path / "more")) == {*names[:3]}
        assert trained_on([run], open_dataset(tmp_path / "all")) == {*names[1:3]}
        assert trained_on([run], open_dataset(films)) == {*first.data["split"]["train"]}
    radiffuse.predict(runs=second.folder, data=tmp_path / "all", out=tmp_path / "masks",
                      machine={"accelerator": "cpu"})  # fmt: skip
    lines = map(json.loads, (tmp_path / "masks/masks.jsonl").read_text().splitlines())
    assert {line["case"]: line["trained"] for line in lines} == {
        name: name in names[1:3] for name in names
    }


def test_a_run_that_learned_from_held_out_labels_by_with_starts_no_other(
    films: Path, tmp_path: Path, unscored: None
) -> None:
    """The other data folder holds the same scan under the same name."""
    write_dataset(
        "bitewing", tmp_path / "one", count=4, labelled=True, seed=3, size=(32, 32), start_index=700
    )
    first = quick(films, "first", tmp_path, with_=(str(tmp_path / "one"),))
    with pytest.raises(InputError, match=r"^from_=.*first.: learned from .*, which this run hol"):
        quick(tmp_path / "one", "leak", tmp_path, from_=first.folder, method="finetune")
