"""Further images beside a data set's own: more to pre-train on, and pairs that a network has labelled."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import radiffuse
from conftest import TINY, line_of, pretrain_settings
from radiffuse.config import Data
from radiffuse.data.dataset import Case
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.prepared import Prepared
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.release.card import sources
from radiffuse.train.cases import hold_out, with_more
from radiffuse.train.known import described_labels
from radiffuse.train.run import Run

STEPS = {"steps": 2, "batch_size": 4, "log_every": 1}
MACHINE = {"accelerator": "cpu", "precision": "32-true"}
FINETUNE = {
    "network": TINY,
    "plan": {"size": (32, 32)},
    "split": {"test": 0.4, "validation": 0.2},
    "training": STEPS | {"average_decay": 0.0},
    "machine": MACHINE,
}


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten films that stand for synthetic ones, with their labels."""
    out = tmp_path_factory.mktemp("synthetic")
    write_dataset("bitewing", out, count=10, labelled=True, seed=3, size=(32, 32), start_index=700)
    return out


def drawn_from(patients: list[str], folder: Path) -> Path:
    """Synthetic pairs with the patient that each was drawn from."""
    write_dataset(
        "bitewing",
        folder,
        count=len(patients),
        labelled=True,
        seed=4,
        size=(32, 32),
        start_index=800,
    )
    names = sorted(path.stem for path in (folder / "images").glob("*.png"))
    rows = [f"{name},{patient}" for name, patient in zip(names, patients, strict=True)]
    (folder / "patients.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    return folder


def test_folders_of_drawn_pairs_are_learned_from_together(films: Path, tmp_path: Path) -> None:
    """Both have images of the same names, and other content. Real images of one name stay refused."""
    own, reader = open_dataset(films, Data()).labelled, Data()
    folders = [drawn_from(["x", "y"], tmp_path / name) for name in "ab"]
    with pytest.raises(InputError, match="has a case"):
        with_more(own, [*map(str, folders)], reader, labelled=True)
    for folder in folders:
        content = json.dumps({"run": "r", "model": "m", "seed": 0})
        (folder / "generation.json").write_text(content)
    both = with_more(own, [*map(str, folders)], reader, labelled=True).cases[len(own) :]
    names = sorted(path.stem for path in (folders[0] / "images").glob("*.png"))
    assert [case.name for case in both] == [*names, *(f"{name}@2" for name in names)]
    assert [case.group for case in both] == ["x", "y"] * 2
    assert {case.images[0].parent.parent for case in both[2:]} == {folders[1]}
    known = described_labels(None, map(str, folders), both)["labels_with"]
    assert {root: [*hashes] for root, hashes in known.items()} == dict.fromkeys(
        map(str, folders), names
    )
    with pytest.raises(InputError, match="twice"):
        with_more(own, [str(folders[0]), f"{folders[0]}/."], reader, labelled=True)


def test_copies_of_images_that_are_held_out_are_not_learned_from(
    films: Path, tmp_path: Path
) -> None:
    """Whatever their names: of another export of the same set, say, whose patients nothing names."""
    own = open_dataset(films).labelled
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        for case, name in zip(own.cases[:2], ("seen", "held"), strict=True):
            shutil.copy(
                case.images[0].parent.parent / kind / f"{case.name}.png",
                tmp_path / kind / f"{name}.png",
            )
    held = own.filter(lambda case: case.name == own.cases[1].name)
    both = with_more(own, [str(tmp_path)], Data(), held=held, labelled=True)
    assert [case.name for case in both.cases[len(own) :]] == ["seen"]


def test_pretraining_learns_from_both_and_holds_out_its_own(
    unlabelled: Path, synthetic: Path, tmp_path: Path
) -> None:
    run = radiffuse.pretrain(
        **pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache"),
        limit=12,
        with_=(str(synthetic),),
    )
    assert run.data["cases"] == 12 + 10
    assert run.data["with_cases"] == 10
    own = {path.stem for path in unlabelled.rglob("*.png")}
    assert run.data["split"]["validation"]
    assert set(run.data["split"]["validation"]) <= own
    assert [source.name for source in sources(run)] == [unlabelled.name, synthetic.name]


def test_descendants_of_a_patient_that_is_held_out_are_not_trained_on() -> None:
    real = [Case(f"r{i:02d}", (), group=f"p{i}") for i in range(20)]
    drawn = [Case(f"s{i:02d}", (), group=f"p{i}+p{(i + 1) % 20}") for i in range(20)]
    cases = (*real, *drawn)
    prepared = Prepared(
        Path(), Plan(2, ("x",), (), (8, 8)), cases, tuple(range(len(cases))), (), False
    )
    training, held = hold_out(prepared, 0, {case.name for case in real})
    assert len(held) == 1  # 5 % of the real ones
    left = {case.name for case in cases} - {cases[i].name for i in training}
    number = int(held[0][1:])
    assert left == {held[0], f"s{number:02d}", f"s{(number - 1) % 20:02d}"}


def test_finetuning_takes_further_pairs_beside_its_budget(
    films: Path, synthetic: Path, tmp_path: Path
) -> None:
    base = FINETUNE | {"data": films, "labels": 2, "method": "scratch"}
    base |= {"reader": {"cache": str(tmp_path / "cache")}}
    plain = radiffuse.fit(**base, out=tmp_path / "plain")
    more = radiffuse.fit(**base, out=tmp_path / "more", with_=(str(synthetic),))
    assert plain.data["split"] == more.data["split"]
    assert len(more.data["split"]["train"]) == 2
    assert more.data["with_cases"] == 10
    assert "with" not in plain.data
    losses = [[row["loss"] for row in run.log() if "loss" in row] for run in (plain, more)]
    assert losses[0] != losses[1]


def test_pairs_drawn_from_patients_of_the_test_are_left_out(films: Path, tmp_path: Path) -> None:
    base = FINETUNE | {"data": films, "labels": 2, "method": "scratch"}
    base |= {"reader": {"cache": str(tmp_path / "cache")}}
    splits = json.loads(
        (radiffuse.fit(**base, out=tmp_path / "a").folder / "splits.json").read_text()
    )
    test, training = splits["test"][0], splits["train"][0]
    fake = drawn_from([training, test, f"{test}+{training}"], tmp_path / "fake")
    run = radiffuse.fit(**base, out=tmp_path / "b", with_=(str(fake),))
    assert run.data["with_cases"] == 1


def test_a_study_uses_synthetic_images_in_both_ways(
    films: Path, unlabelled: Path, synthetic: Path, tmp_path: Path
) -> None:
    reader = {"cache": str(tmp_path / "cache")}
    chosen: dict[str, object] = {
        "data": films,
        "unlabelled": str(unlabelled),
        "synthetic": (str(synthetic / "images"),),
        "out": tmp_path / "study",
        "methods": ("finetune", "synthetic-unlabelled", "synthetic-labelled"),
        "reference": "finetune",
        "labels": (2,),
        "draws": 1,
        "pretrain": {"network": TINY, "training": STEPS, "machine": MACHINE, "reader": reader,
                     "plan": {"size": (32, 32)}},
        "finetune": FINETUNE | {"reader": reader},
    }  # fmt: skip
    out = radiffuse.study(**chosen).parent
    table = pd.read_csv(out / "results.csv")
    assert set(table["method"]) == set(chosen["methods"])  # type: ignore[call-overload]
    assert Run.open(out / "pretrain").data["cases"] == 20
    enlarged = Run.open(out / "pretrain-synthetic")
    assert enlarged.data["cases"] == 30
    starts = {
        method: Path(Run.open(out / "runs" / f"{method}-2-0").config["settings"]["from_run"]).name
        for method in ("finetune", "synthetic-unlabelled", "synthetic-labelled")
    }
    assert starts["finetune"] == starts["synthetic-labelled"] == "pretrain"
    assert starts["synthetic-unlabelled"] == "pretrain-synthetic"
    labelled = Run.open(out / "runs" / "synthetic-labelled-2-0")
    assert labelled.data["unlabelled_cases"] == 10
    assert labelled.config["settings"]["pool"]["teacher"] == str(out / "runs" / "finetune-2-0")
    with pytest.raises(InputError, match="needs synthetic images"):
        radiffuse.study(**chosen | {"synthetic": (), "out": tmp_path / "x"})


def test_bad_input(
    films: Path, synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "o"), "--accelerator", "cpu", "--method", "scratch"]
    empty = tmp_path / "empty"
    empty.mkdir()
    line = line_of(["fit", str(films), *out, "--with", str(empty)], capsys)
    assert str(empty) in line
    line = line_of(["fit", str(films), *out, "--with", str(synthetic / "images")], capsys)
    assert "holds no labelled image" in line
    line = line_of(["fit", str(films), *out, "--with", str(films)], capsys)
    assert "has a case" in line
    other = tmp_path / "other"
    write_dataset("chest", other, count=3, labelled=True, seed=3, size=(32, 32), start_index=900)
    line = line_of(["fit", str(films), *out, "--with", str(other)], capsys)
    assert "has the classes" in line
