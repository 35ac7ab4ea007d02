"""What is said of a pool: images of held-out patients that are left out, and images whose labels are learned from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import radiffuse
from conftest import TINY, Begun
from radiffuse.automatic.opening import plan_choice
from radiffuse.config import FIT, Data, Fit, Split
from radiffuse.data import issues
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import Splits, load_splits
from radiffuse.errors import InputError
from radiffuse.train.further_images import look_at_copies, look_at_further
from radiffuse.train.run import Run


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issues, "_SAID", set())


def numbered(folder: Path, numbers: range, *, named: str = "", shade: int = 0) -> Path:
    """Films 000.png and so on of one gray value each, and who is on them where they are ``named``."""
    folder.mkdir(parents=True)
    for n in numbers:
        Image.new("L", (16, 16), 10 * n + shade).save(folder / f"{n:03}.png")
    if named:
        lines = [f"{n:03},{named}{n}" for n in numbers]
        (folder / "patients.csv").write_text("\n".join(["image,patient", *lines]))
    return folder


def labelled(tmp_path: Path, named: str = "") -> tuple[Dataset, Splits]:
    """Six films, of which 000 to 002 train and 003 to 005 are held out."""
    root = tmp_path / "lab"
    numbered(root / "images", range(6), named=named)
    numbered(root / "labels", range(6))
    dataset = open_dataset(root, Data(label_threshold=1)).labelled
    names = [case.name for case in dataset]
    train = tuple(names[:3])
    return dataset, Splits(train, tuple(names[3:4]), tuple(names[4:]), (train,))


def look(pool: Path, data: tuple[Dataset, Splits], labels: int | None = None) -> None:
    look_at_further(Fit(unlabelled=(str(pool),), labels=labels), *data)


def test_labelled_images_of_a_pool_are_counted_and_alone_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = labelled(tmp_path)
    images = tmp_path / "lab" / "images"
    look(images, data, labels=2)
    words = "2 of its 6 images are labelled ones, which teach little more; they stay in"
    assert f"--unlabelled {images}: {words}" in capsys.readouterr().err
    copies = tmp_path / "copies"
    copies.mkdir()
    for n in range(3):
        shutil.copy(images / f"{n:03}.png", copies / f"x{n}.png")
    for pool in (images, copies):
        with pytest.raises(InputError, match="holds nothing to learn from but 3 images whose lab"):
            look(pool, data)
    look(copies, data, labels=2)  # the third teaches something
    capsys.readouterr()
    Image.new("L", (16, 16), 9).save(copies / "other.png")  # of the size of a labelled file
    look(copies, data)
    assert "3 of its 4 images are labelled ones" in capsys.readouterr().err


def test_images_of_further_labelled_folders_are_labelled_ones(tmp_path: Path) -> None:
    data = labelled(tmp_path)
    more = tmp_path / "more"
    numbered(more / "images", range(7, 9))
    numbered(more / "labels", range(7, 9))
    settings = Fit(unlabelled=(str(more / "images"),), with_run=(str(more),))
    with pytest.raises(InputError, match="but 2 images whose labels are learned from"):
        look_at_further(settings, *data)


def test_labelled_images_of_further_folders_are_left_out_with_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = labelled(tmp_path, named="p")
    more = tmp_path / "more"
    numbered(more / "images", range(2, 8), named="p", shade=3)
    numbered(more / "labels", range(2, 8))
    look_at_further(Fit(with_run=(str(more),)), *data)
    count = "3 of its 6 images are left out, which are of validation or test patients"
    assert f"radiffuse: --with {more}: {count}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mine", "theirs"), [("", ""), ("p", ""), ("", "q"), ("p", "q"), ("p", "p")]
)
def test_images_that_a_name_alone_gives_to_a_held_out_patient_are_said(
    mine: str, theirs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are numbered, and show others: whoever is named on both sides is told apart."""
    data = labelled(tmp_path, named=mine)
    pool = numbered(tmp_path / "pool", range(1, 6), named=theirs, shade=3)
    look(pool, data)
    said = capsys.readouterr().err
    count = "3 of its 5 images are left out, which are of validation or test patients"
    if not (mine or theirs):
        names = (
            f"by their file names alone: nothing names patients in {pool} and {tmp_path / 'lab'}"
        )
        assert f"warning: --unlabelled {pool}: {count} {names}. If they are of other pat" in said
    elif mine == theirs:
        assert f"radiffuse: --unlabelled {pool}: {count}\n" in said
        assert "names alone" not in said
    else:
        assert not said


def test_the_held_out_films_themselves_need_no_patients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = labelled(tmp_path)
    pool = shutil.copytree(tmp_path / "lab" / "images", tmp_path / "pool")
    look(pool, data, labels=1)
    said = capsys.readouterr().err
    assert (
        f"--unlabelled {pool}: 3 of its 6 images are left out, which are of validation or test patients\n"
        in said
    )
    assert "warning" not in said


def settings(films: Path, out: Path, pool: Path, **changes: Any) -> dict[str, Any]:
    return {
        "data": films,
        "unlabelled": (str(pool),),
        "out": out,
        "method": "scratch",
        "network": TINY,
        "plan": {"size": (32, 32)},
        "training": {"steps": 2, "batch_size": 2},
        "reader": {"cache": str(out.parent / "cache")},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    } | changes


def test_fit_says_it_once_and_refuses_before_anything_is_prepared(
    films: Path, tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    images = films / "images"
    with pytest.raises(InputError, match="holds nothing to learn from but"):
        radiffuse.fit(**settings(films, tmp_path / "all", images))
    assert not (tmp_path / "cache" / "prepared").exists()
    capsys.readouterr()
    with pytest.raises(Begun):
        radiffuse.fit(**settings(films, tmp_path / "few", images, labels=2))
    said = capsys.readouterr().err
    assert said.count("images are left out") == 1
    assert said.count("2 of its 12 images are labelled ones") == 1
    held = 12 - Run(tmp_path / "few").data["unlabelled_cases"]
    other = tmp_path / "other"
    other.mkdir()
    for path in images.glob("*.png"):
        Image.open(path).save(other / f"x{path.stem}.tif")
    with pytest.raises(Begun):
        radiffuse.fit(**settings(films, tmp_path / "copies", other))
    words = f"--unlabelled {other}: {held} of its images are copies of validation or test images"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 3])
def test_images_of_further_folders_are_copies_by_their_pixels(
    kept: int, films: Path, tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved again in another format under other names: what is held out is not learned from, and the rest is."""
    split = Split(test=0.25, validation=0.25)
    dataset = open_dataset(films).labelled
    splits = load_splits(dataset, split, tmp_path / "cache")
    more = tmp_path / "more"
    held = (*splits.validation, *splits.test)
    for name in (*held, *splits.train[:kept]):
        for part, ending in (("images", "tif"), ("labels", "png")):
            (more / part).mkdir(parents=True, exist_ok=True)
            Image.open(films / part / f"{name}.png").save(more / part / f"x{name}.{ending}")
    given = settings(films, tmp_path / "run", films)
    del given["unlabelled"]
    with pytest.raises(Begun) as begun:
        radiffuse.fit(**given | {"with_run": str(more), "split": split})
    words = f"--with {more}: {len(held)} of its images are copies of validation or test images"
    assert words in capsys.readouterr().err
    assert Run(tmp_path / "run").data["with_cases"] == kept
    (batches,) = begun.value.args
    assert len(batches.indices) == len(splits.train) + kept
    learned = {batches.prepared.cases[i].name for i in batches.indices}
    assert learned == {*splits.train, *(f"x{name}" for name in splits.train[:kept])}


def test_a_choice_says_once_what_its_candidates_leave_out(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, lines = tmp_path / "more", ["image,patient"]
    for path in sorted(films.glob("*/*.png")):
        (more / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, more / path.parent.name / f"x{path.name}")
        lines += [f"x{path.stem},{path.stem}"] * (path.parent.name == "images")
    (more / "patients.csv").write_text("\n".join(lines))
    reader = Data(cache=str(tmp_path / "cache"))
    auto = replace(FIT["auto"], data=str(films), with_run=(str(more),), reader=reader)
    record, _ = plan_choice(replace(auto, hours=2.0, split=Split(test=0.25)))
    assert len(record.candidates) > 1
    assert capsys.readouterr().err.count("images are left out") == 1


def test_auto_and_studies_refuse_it_before_anything_is_trained(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = str(films / "images")
    given = settings(films, tmp_path / "run", films / "images")
    reader = Data(cache=str(tmp_path / "cache"))
    auto = replace(FIT["auto"], data=str(films), unlabelled=(images,), reader=reader)
    with pytest.raises(InputError, match="but 12 images whose labels are learned from"):
        plan_choice(auto)
    monkeypatch.setattr("radiffuse.commands.study.fit", lambda *_: pytest.fail("trained"))
    names = ("network", "plan", "training", "reader", "machine")
    finetune = {name: given[name] for name in names}
    with pytest.raises(InputError, match="but 5 images whose labels are learned from"):
        radiffuse.study(
            data=films,
            unlabelled=images,
            out=tmp_path / "study",
            methods=("scratch", "scratch+pool"),
            labels=(1, 5),
            draws=1,
            finetune=finetune | {"split": {"test": 0.4, "validation": 0.2}},
        )


def test_a_study_says_once_what_all_its_runs_leave_out(
    films: Path, tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first, for all draws; and a training after it says it again."""
    images = films / "images"
    given = settings(films, tmp_path / "run", images)
    names = ("network", "plan", "training", "reader", "machine")
    finetune = {name: given[name] for name in names} | {"split": {"test": 0.4, "validation": 0.2}}
    study = {"data": films, "unlabelled": images, "out": tmp_path / "study", "finetune": finetune}
    with pytest.raises(Begun):
        radiffuse.study(**study, methods=("scratch+pool",), labels=(1, 2), draws=2)
    said = capsys.readouterr().err
    assert "run 1 of 4" in said
    assert said.count("images are left out") == said.count("are labelled ones") == 1
    with pytest.raises(Begun):
        radiffuse.fit(**given, labels=2)
    assert "are labelled ones" in capsys.readouterr().err


def with_copies(films: Path, root: Path) -> Path:
    """The films with a copy of the first under another name, and so another patient."""
    shutil.copytree(films, root)
    for folder in ("images", "labels"):
        first = min((root / folder).glob("*.png"))
        shutil.copy(first, first.with_name("zz.png"))
    return root


def test_an_image_of_two_patients_is_said_unless_both_are_held_out_together(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = open_dataset(with_copies(films, tmp_path / "data")).labelled
    first, *others, copy = (case.name for case in dataset)
    look_at_copies(dataset, Splits((*others,), (), (first, copy)))
    assert not capsys.readouterr().err
    for splits in (Splits((*others, first), (), (copy,)), Splits((*others,), (copy,), (first,))):
        issues._SAID.clear()
        look_at_copies(dataset, splits)
        assert f"scored too: {copy} and {first}" in capsys.readouterr().err
    (tmp_path / "data" / "patients.csv").write_text(f"image,patient\n{first},a\n{copy},a\n")
    look_at_copies(open_dataset(tmp_path / "data").labelled, Splits((*others, first, copy), (), ()))
    assert "scored too" not in capsys.readouterr().err


def test_fit_and_auto_say_once_that_an_image_is_of_two_patients(
    films: Path, tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, reader = with_copies(films, tmp_path / "data"), Data(cache=str(tmp_path / "cache"))
    given = settings(data, tmp_path / "run", films / "images", split={"test": 0, "validation": 0})
    with pytest.raises(Begun):
        radiffuse.fit(**given | {"unlabelled": ()})
    assert capsys.readouterr().err.count("scored too: ") == 1
    issues._SAID.clear()
    plan_choice(replace(FIT["auto"], data=str(data), reader=reader, hours=2.0, split=Split(test=0)))
    assert capsys.readouterr().err.count("scored too: ") == 1
