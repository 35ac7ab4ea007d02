"""Data that change under a run or study: until something was trained they may, then they are refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import radiffuse
from conftest import SIZE, Begun, pretrain_settings, synthesize_settings
from radiffuse.config import Augment, Classify, Fit, PlanSettings, Split, Study
from radiffuse.data.dataset import Case, Dataset
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.studies.augment import run_augment
from radiffuse.studies.study import run_study
from radiffuse.train.run import Run
from radiffuse.train.unchanged import digests_of_files


def in_classes(data: Path) -> None:
    for i, path in enumerate(sorted(data.rglob("*.png"))):
        folder = data / ("even", "odd")[i % 2]
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)


def make_data(command: str, data: Path) -> None:
    anatomy, labelled = ("bitewing", True) if command == "fit" else ("chest", False)
    write_dataset(anatomy, data, count=12, labelled=labelled, seed=1, size=SIZE)
    if command == "classify":
        in_classes(data)


def call(command: str, data: Path, out: Path, **changes: Any) -> None:
    cache = out.parent / "cache"
    of = synthesize_settings if command == "synthesize" else pretrain_settings
    settings = of(data, out, cache)
    if command == "classify":
        del settings["network"]
    if command == "fit":
        settings |= {"method": "scratch", "split": {"test": 0.25, "validation": 0.25}}
    getattr(radiffuse, command)(**settings | changes)


ACTS = ["pretrain", "fit", "classify", "synthesize"]
CHANGES: dict[str, tuple[Callable[[list[Path]], Any], str]] = {
    "more": (lambda f: shutil.copy(f[0], f[0].with_name("new.png")), r"other cases: .*new came$"),
    "fewer": (lambda f: f[5].unlink(), r"other cases: .*-0*5 went$"),
    "renamed": (lambda f: f[5].rename(f[5].with_name("z.png")), r"z came, .*-0*5 went$"),
    "replaced": (lambda f: shutil.copy(f[0], f[5]), r"other images.* of .*-0*5$"),
}


@pytest.mark.parametrize("command", ACTS)
def test_data_that_change_after_training_began_are_refused_by_name(
    tmp_path: Path, begins: None, command: str
) -> None:
    data, out, kept = tmp_path / "data", tmp_path / "run", tmp_path / "kept"
    make_data(command, data)
    with pytest.raises(Begun):
        call(command, data, out)
    shutil.copytree(data, kept)
    splits, record = out / "splits.json", (out / "cases.json").read_bytes()
    before = splits.read_bytes() if splits.exists() else b""
    # Copied files of the same content are the same: their times and the cache do not count.
    shutil.rmtree(data)
    shutil.copytree(kept, data, copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(Begun):
        call(command, data, out)
    for name, (change, words) in CHANGES.items():
        folder = data / "images" if command == "fit" else data
        images = sorted(folder.rglob("*.png"), key=lambda path: path.name)
        change(images)
        if command == "fit" and name != "replaced":  # the labels go with the images
            labels = [path.parents[1] / "labels" / path.name for path in images]
            change(labels)
        if command == "fit" and name == "replaced":  # of a film that is trained on
            trained = json.loads(splits.read_text())["draws"][0][0]
            shutil.copytree(kept, data, dirs_exist_ok=True)
            other = next(p for p in images if p.stem != trained)
            shutil.copy(data / "labels" / other.name, data / "labels" / f"{trained}.png")
            words = f"other images, labels, .* of {trained}$"
        with pytest.raises(InputError) as error:
            call(command, data, out)
        assert error.match(str(out)), name
        assert re.search(words, error.value.problem), error.value.problem
        shutil.rmtree(data)
        shutil.copytree(kept, data)
        assert (out / "cases.json").read_bytes() == record
        assert (splits.read_bytes() if splits.exists() else b"") == before
    with pytest.raises(Begun):
        call(command, data, out)


def test_until_something_is_trained_data_may_change(tmp_path: Path, begins: None) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_data("fit", data)
    with pytest.raises(Begun):
        call("fit", data, out)
    shutil.rmtree(out / "state")
    for part in ("images", "labels"):
        files = sorted((data / part).glob("*.png"))
        files[0].unlink()
        shutil.copy(files[1], files[2])
    with pytest.raises(Begun):
        call("fit", data, out)
    assert len(json.loads((out / "cases.json").read_text())["cases"]) == 11
    shutil.rmtree(out / "state")
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"high": 91.5}))
    with pytest.raises(Begun):
        call("fit", data, out)
    assert json.loads((out / "plan.json").read_text())["high"] == 91.5


@pytest.mark.parametrize("command", ["fit", "pretrain"])
def test_a_plan_stands_as_it_was_edited_but_not_for_other_cases(
    tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Of a training that was stopped before its first checkpoint, whose grid was left to the plan."""
    data, out = tmp_path / "data", tmp_path / "run"
    make_data(command, data)

    def again() -> tuple[float, str]:
        shutil.rmtree(out / "state", ignore_errors=True)
        with pytest.raises(Begun):
            call(command, data, out, plan={})
        return json.loads((out / "plan.json").read_text())["low"], capsys.readouterr().err

    low, _ = again()
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps(plan | {"low": low + 7}))
    found, said = again()
    assert found == low + 7
    assert "made anew" not in said
    for folder in ("images", "labels") if command == "fit" else (".",):
        file = min((data / folder).glob("*.png"))
        shutil.copy(file, file.with_name("new.png"))
    found, said = again()
    assert found == low
    assert "plan.json: is made anew, since it is of other cases" in said


@pytest.mark.parametrize("command", ["pretrain", "synthesize"])
def test_a_version_that_held_other_patients_out_has_to_go_on(
    tmp_path: Path, begins: None, command: str
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_data(command, data)
    with pytest.raises(Begun):
        call(command, data, out)
    known = json.loads((out / "data.json").read_text())
    assert known["split"]["validation"]
    known["split"]["validation"] = ["another"]
    (out / "data.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="a version that held other patients out"):
        call(command, data, out)
    assert json.loads((out / "data.json").read_text()) == known


def test_other_patients_splits_and_plans_are_refused_by_name(tmp_path: Path, begins: None) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_data("fit", data)
    with pytest.raises(Begun):
        call("fit", data, out)
    kept = {name: (out / name).read_text() for name in ("splits.json", "plan.json")}

    def refused(words: str) -> None:
        with pytest.raises(InputError, match=words):
            call("fit", data, out)
        for name, text in kept.items():
            (out / name).write_text(text)

    splits = json.loads(kept["splits.json"])
    moved = splits["test"][0]
    splits["test"], splits["validation"] = splits["test"][1:], [*splits["validation"], moved]
    (out / "splits.json").write_text(json.dumps(splits))
    refused(f"has {moved} in validation, not in test")
    plan = json.loads(kept["plan.json"]) | {"size": [16, 16]}
    (out / "plan.json").write_text(json.dumps(plan))
    refused(r"plan.json: was edited after training began: size was \[32, 32\], is \[16, 16\]")
    (out / "plan.json").write_text(
        json.dumps(json.loads(kept["plan.json"]) | {"postprocess": ["fill"]})
    )
    with pytest.raises(Begun):
        call("fit", data, out)
    names = sorted(path.stem for path in (data / "images").glob("*.png"))
    lines = [
        "image,patient",
        *(f"{name},{name[-2:]}{'x' * (i < 6)}" for i, name in enumerate(names)),
    ]
    (data / "patients.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="splits.json: has|other images, labels, patients"):
        call("fit", data, out)


def test_a_run_without_a_record_goes_on_with_a_line(
    tmp_path: Path, begins: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_data("pretrain", data)
    with pytest.raises(Begun):
        call("pretrain", data, out)
    (out / "cases.json").unlink()
    capsys.readouterr()
    with pytest.raises(Begun):
        call("pretrain", data, out)
    assert "has no record of its cases (cases.json)" in capsys.readouterr().err
    assert (out / "cases.json").is_file()


@pytest.mark.parametrize("content", ["[]", "{", '{"cases": 3}', '{"cases": {"a": 1}}', '{"a": []}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, begins: None, content: str) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    make_data("pretrain", data)
    with pytest.raises(Begun):
        call("pretrain", data, out)
    (out / "cases.json").write_text(content)
    with pytest.raises(InputError, match="cases.json"):
        call("pretrain", data, out)


def study(data: Path, out: Path, **changes: Any) -> None:
    def begun(settings: Fit | Classify) -> Run:
        (Path(settings.out) / "state" / "step-00000001").mkdir(parents=True)
        raise Begun

    split = Split(test=0.25, validation=0.0)
    if (data / "even").is_dir():
        classify = Classify(split=split, plan=PlanSettings(size=SIZE))
        given = {
            "with_run": (str(data),),
            "pools": (4,),
            "draws": 1,
            "classify": classify,
        } | changes
        run_augment(Augment(data=str(data), out=str(out), **given), begun, begun)  # type: ignore[arg-type]
    else:
        plan = PlanSettings(size=None if "finetune" in changes.get("methods", ()) else SIZE)
        finetune = Fit(split=split, plan=plan)
        given = {
            "methods": ("scratch",),
            "reference": "scratch",
            "labels": (2,),
            "draws": 1,
        } | changes
        study = Study(data=str(data), out=str(out), finetune=finetune, **given)
        run_study(study, begun, begun, begun)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["fit", "classify"])
def test_a_study_is_scored_on_one_test_set(tmp_path: Path, kind: str) -> None:
    """Also a test film whose pixels were replaced, which no run of the study reads."""
    data, out, kept = tmp_path / "data", tmp_path / "study", tmp_path / "kept"
    make_data(kind, data)
    shutil.copytree(data, kept)
    with pytest.raises(Begun):
        study(data, out)
    splits = (out / "splits.json").read_bytes()
    shutil.rmtree(out / "runs")  # nothing is trained yet
    file = min((data / "images" if kind == "fit" else data).rglob("*.png"))
    (file.parent / "new.png").write_bytes(file.read_bytes())
    if kind == "fit":
        shutil.copy(data / "labels" / file.name, data / "labels" / "new.png")
    with pytest.raises(Begun):
        study(data, out)
    shutil.rmtree(data)
    shutil.copytree(kept, data)
    with pytest.raises(InputError, match="study: was begun with other cases: .*new went"):
        study(data, out)
    shutil.rmtree(out)
    with pytest.raises(Begun):
        study(data, out)
    assert (out / "splits.json").read_bytes() == splits
    with pytest.raises((Begun, FileExistsError)):  # more draws use more cases
        study(data, out, draws=2)
    tested = json.loads(splits)["test"][0]
    file = next(data.rglob(f"*{tested.rpartition('/')[2].rpartition('__')[2]}.png"))
    file.write_bytes(min(p for p in file.parent.glob("*.png") if p != file).read_bytes())
    with pytest.raises(InputError, match=f"other images, .* of {tested}"):
        study(data, out, draws=2)
    assert (out / "splits.json").exists()


@pytest.mark.parametrize("methods", [("scratch", "finetune"), ("scratch", "scratch+pool")])
def test_a_study_stands_on_its_labels_and_its_pool(
    tmp_path: Path, methods: tuple[str, ...]
) -> None:
    """Scores by other truths, or with another pool, cannot be paired with those that are there."""
    data, pool, out = tmp_path / "data", tmp_path / "pool", tmp_path / "study"
    make_data("fit", data)
    write_dataset("bitewing", pool, count=4, labelled=False, seed=2, size=SIZE, start_index=50)
    given: dict[str, Any] = {"methods": methods, "unlabelled": str(pool)}
    with pytest.raises(Begun):
        study(data, out, **given)
    (out / "runs" / "scratch-2-0" / "state" / "step-00000001").mkdir(parents=True, exist_ok=True)
    (out / "runs" / "scratch-2-0" / "config.yaml").touch()
    one, other, *_ = sorted((data / "labels").glob("*.png"))
    tested = data / "labels" / f"{json.loads((out / 'splits.json').read_text())['test'][0]}.png"
    kept = tested.read_bytes()
    tested.write_bytes((other if one == tested else one).read_bytes())
    with pytest.raises(InputError, match=f"other images, labels, .* of {tested.stem}"):
        study(data, out, **given)
    tested.write_bytes(kept)
    gone = next(pool.rglob("*.png"))
    gone.unlink()
    with pytest.raises(InputError, match=f"study: was begun with other cases: {gone.stem} went"):
        study(data, out, **given)


def test_voxels_behind_a_header_are_of_the_content_of_a_case(tmp_path: Path) -> None:
    head = "ObjectType = Image\nNDims = 2\nDimSize = 4 4\nElementType = MET_UCHAR\n"
    for name in ("image", "label"):
        (tmp_path / f"{name}.mhd").write_text(f"{head}ElementDataFile = {name}.raw\n")
        (tmp_path / f"{name}.raw").write_bytes(bytes(16))
    case = Case("a", (tmp_path / "image.mhd",), tmp_path / "label.mhd")
    dataset = Dataset(tmp_path, "images", (case,))
    found = [digests_of_files(dataset, {"a"})]
    for name in ("image", "label"):
        (tmp_path / f"{name}.raw").write_bytes(bytes(15) + b"x")
        found.append(digests_of_files(dataset, {"a"}))
    assert len({one["a"] for one in found}) == 3
