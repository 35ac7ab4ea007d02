"""The command to type next names folders that suit the scans, and says nothing of other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from radiffuse.cli import main
from radiffuse.cli.settings import from_values
from radiffuse.commands._ending import NEXT, after_check, ending
from radiffuse.config import Check
from radiffuse.data.plan import Plan
from radiffuse.system.files import write_json
from tiny_runs import finished_run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    finished_run(Path("run"), Plan(2, ("image",), ("background", "a"), (16, 16)), 1)
    return "run"


def films(folder: str, names: Sequence[str], seed: int = 0) -> str:
    Path(folder).mkdir(parents=True)
    for number, name in enumerate(names):
        film = np.random.default_rng([seed, number]).integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(film).save(Path(folder) / f"{name}.png")
    return folder


def after_select(run: str, pool: str) -> list[tuple[str, ...]]:
    settings = from_values("select", {"data": pool, "from": run, "count": 2, "out": "next.csv"})
    return list(NEXT["select"](settings, "next.csv"))


def test_after_select_the_masks_of_the_chosen_scans_are_shown(run: str) -> None:
    """Not those of scans of the same names in another folder, of some of the scans, or of a scan that was replaced."""
    pool = films("pool", "abcd")
    for number, (name, scans) in enumerate([("other", "abcd"), ("some", "acd"), ("most", "abd")]):
        of = films(f"of-{name}", scans, seed=number + 1)
        radiffuse.predict(runs=run, data=of, out=f"masks-{name}", machine=MACHINE)
    radiffuse.predict(runs=run, data=pool, out="my-masks", machine=MACHINE)
    Path("next.csv").write_text("place,case,file,why\n1,b,b.png,0.9\n2,d,d.png,0.8\n")
    shown = ("view", pool, run, "--masks", "my-masks", "--worklist", "next.csv")
    assert after_select(run, pool) == [shown]
    Path("pool/a.png").write_bytes(Path("pool/b.png").read_bytes())  # it was not chosen
    assert after_select(run, pool) == [shown]
    Path("pool/b.png").write_bytes(Path("pool/a.png").read_bytes() + b"\0")
    predict, view = after_select(run, pool)
    assert predict == ("predict", run, pool, "--out", "masks")
    assert view == ("view", pool, run, "--masks", "masks", "--worklist", "next.csv")


def test_where_an_export_lies_is_said(run: str) -> None:
    for form in ("torch-export", "onnx", "pretrained"):
        settings = from_values("export", {"run": run, "out": "ex", "format": form})
        assert [*ending("export", settings, Path("ex"))] == ["the export is in ex"]


def test_predict_says_nothing_of_the_tables_of_the_training_data(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    films("data/images", "ab")
    films("data/labels", "ab")
    Path("data/patients.csv").write_text("image,patient\na,1\nb,2\ngone,3\n")
    write_json(Path("run/data.json"), {"root": "data", "split": {"train": ["a", "b"]}})
    assert main(["predict", run, films("pool", "xyz", seed=5), "--out", "masks"]) == 0
    said = capsys.readouterr().err
    assert "patients.csv" not in said
    assert "next: radiffuse select pool" in said
    assert main(["select", "pool", "--from", run, "--count", "1", "--out", "next.csv"]) == 0
    assert "patients.csv: lists 1 images that are no cases here: gone" in capsys.readouterr().err


def test_check_proposes_what_it_planned_and_the_folder_that_holds_the_labels(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    films("data/images", "ab")
    films("data/labels", "ab")
    assert main(["check", "data/images"]) == 0
    said = capsys.readouterr().err
    assert "data/images: holds no labelled image. Give the folder" in said
    assert "both images and labels: data.\n" in said
    for hours, labelled, line in (
        (None, True, "next: radiffuse fit data --out runs/seg"),
        (3.0, True, "next: radiffuse fit data --hours 3 --out runs/seg"),
        (None, False, "next: radiffuse pretrain data --out runs/pre"),
        (3.0, False, "next: radiffuse pretrain data --hours 3 --out runs/pre"),
    ):
        assert after_check(Check(data="data", plan=True, hours=hours), 2, labelled=labelled) == line


def test_a_path_or_run_that_is_not_there_is_guessed(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    films("labelled/images", "ab")
    finished_run(Path("runs/seg"), Plan(2, ("image",), ("background", "a"), (16, 16)), 1)
    for words, said in (
        (["check", "labeled"], "labeled: does not exist. Did you mean labelled?"),
        (["check", "labeled/images"], "Did you mean labelled/images?"),
        (["check", "labelled/imags"], "Did you mean labelled/images?"),
        (["check", "labeled/masks"], "Check the spelling of the path."),
        (["info", "runs"], "Give the folder of a run, such as runs/seg."),
        (["info", "labelled"], "Give the folder of a run."),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err.endswith(f"{said}\n")
