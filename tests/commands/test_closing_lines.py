"""What a command says while it works and when it is done, and what it leaves behind."""

from __future__ import annotations

import re
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import radiffuse
from conftest import TINY, pretrain_settings
from radiffuse.cli import main
from radiffuse.errors import InputError
from radiffuse.system import saying
from radiffuse.system.leftovers import leaves_nothing_empty
from radiffuse.train.progress import Countdown
from radiffuse.train.run import Run


@pytest.fixture(scope="module")
def finished(films: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a fit that came to its end."""
    out = tmp_path_factory.mktemp("fitted")
    words = ["fit", str(films), "--method", "scratch", "--out", str(out / "seg"), "--size", "32"]
    words += ["--steps", "3", "--batch-size", "2", "--validation", "2", "--test", "0"]
    words += ["--cache", str(out / "cache"), "--accelerator", "cpu", "--decay", "constant"]
    for name, value in TINY.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        words += [f"--network.{name}", str(text)]
    assert main(words) == 0
    return words


def test_a_finished_run_says_so_and_what_comes_next(
    finished: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(finished[finished.index("--out") + 1])
    assert main(finished) == 0
    said = capsys.readouterr().err
    assert f"{out} is finished, nothing is left to train" in said
    assert "validation: Dice 0." in said
    assert re.search(r"HD95 [\d.]+ px\b", said), said  # films whose files state no spacing
    assert f"report: {out / 'report.html'}" in said
    assert f"next: radiffuse predict {out} SCANS --out masks" in said
    assert "goes on from" not in said


def test_masks_and_the_next_command_are_named(
    finished: list[str], films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = finished[finished.index("--out") + 1]
    masks = tmp_path / "my masks"
    assert main(["predict", out, str(films / "images"), "--out", str(masks)]) == 0
    said = capsys.readouterr().err
    assert f"the masks are in {masks}" in said
    evaluate = f"radiffuse evaluate '{masks}' LABELLED"
    assert f"next: radiffuse view SCANS --masks '{masks}', or {evaluate}" in said


def test_checkpoints_of_a_finished_run_go(
    finished: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(finished[finished.index("--out") + 1])
    before = (out / "model" / "model.safetensors").read_bytes()
    assert not (out / "state").exists()
    files = [path for path in out.rglob("*") if path.is_file() and "model" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 1e6
    (out / "report.html").unlink()
    assert main(finished) == 0
    assert (out / "report.html").is_file()
    config = (out / "config.yaml").read_bytes()
    more = [*finished, "--steps", "5"]
    capsys.readouterr()
    assert main(more) == 2
    assert "is finished with 3 steps, and kept no checkpoint" in capsys.readouterr().err
    assert (out / "model" / "model.safetensors").read_bytes() == before
    assert (out / "config.yaml").read_bytes() == config


def test_with_its_state_a_finished_run_is_prolonged_from_its_last_step(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"steps": 2, "decay": "constant", "validate_every": 0}
    for steps in (2, 3):
        given = pretrain_settings(
            unlabelled, tmp_path / "run", tmp_path / "cache", training=training | {"steps": steps}
        )
        radiffuse.pretrain(**given)
    assert f"{tmp_path / 'run'} goes on from step 2 of 3" in capsys.readouterr().err
    assert Run(tmp_path / "run").reached == 3
    radiffuse.pretrain(**given | {"training": given["training"] | {"keep_state": False}})  # type: ignore[operator]
    assert Run(tmp_path / "run").reached is None


def test_what_takes_longer_than_a_moment_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(saying, "MOMENT", 0.02)
    saying.soon("reading")
    time.sleep(0.2)
    assert capsys.readouterr().err == "radiffuse: reading\n"
    saying.soon("importing")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", types.ModuleType("torch"))  # half imported
        time.sleep(0.2)
    assert capsys.readouterr().err == "radiffuse: importing\n"
    saying.soon("planning")
    saying.hush()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_the_time_left_counts_the_runs_that_were_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock: Iterator[float] = iter([100.0, 160.0, 400.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    countdown = Countdown(5)
    countdown.skip()
    for name in "abc":
        countdown.begin(name)
    assert capsys.readouterr().err.splitlines() == [
        "radiffuse: run 2 of 5: a",
        "radiffuse: run 3 of 5: b; about 3 min 00 s left of the whole",  # 3 of 60 s
        "radiffuse: run 4 of 5: c; about 5 min 00 s left of the whole",  # 2 of 150 s
    ]


@pytest.mark.parametrize("command", ["predict", "evaluate", "study", "fit", "generate", "judge"])
def test_a_failed_command_leaves_no_folder(
    command: str, finished: list[str], films: Path, tmp_path: Path
) -> None:
    run, none = finished[finished.index("--out") + 1], str(tmp_path / "none")
    words = {
        "predict": [run, none],
        "evaluate": [none, str(films)],
        "study": [none],
        "fit": [none, "--method", "scratch"],
        "generate": [run],
        "judge": [str(films), none],
    }[command]
    assert main([command, *words, "--out", str(tmp_path / "a" / "b")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_what_a_failed_command_found_or_made_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    @leaves_nothing_empty(tmp_path / "mine")
    def one() -> None:
        raise InputError("x", "y", "z")

    @leaves_nothing_empty(tmp_path / "made/new")
    def other() -> None:
        (tmp_path / "made/new/inner").mkdir(parents=True)
        (tmp_path / "made/new/inner/.lock").touch()
        (tmp_path / "made/new/kept").touch()
        raise InputError("x", "y", "z")

    for fails in (one, other):
        with pytest.raises(InputError):
            fails()
    assert (tmp_path / "mine").is_dir()
    assert (tmp_path / "made/new/kept").is_file()
    assert not (tmp_path / "made/new/inner").exists()


@pytest.mark.usefixtures("drawn")
def test_a_run_shows_what_it_is_in_a_notebook(finished: list[str], films: Path) -> None:
    out = Path(finished[finished.index("--out") + 1])
    run = radiffuse.Run.open(out)
    assert isinstance(run, radiffuse.Run)
    assert set(run.scores) <= {"dice", "iou", "hd95", "nsd"}
    assert 0 <= run.scores["dice"] <= 1
    assert (run.plan.size, run.report) == ((32, 32), out / "report.html")
    for text in (repr(run), run._repr_html_()):
        assert all(word in text for word in (str(out), "radiffuse fit", "32 x 32", "Dice"))
    assert "<svg" in run._repr_html_()
    film = sorted((films / "images").glob("*.png"))[0]
    assert run.predict(film).shape == (32, 32)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda logits, labels: logits.mean(dim=1), "the loss: gave .2, 32, 32. for 2 images"),
        (lambda logits, labels: 1.0, "the loss: gave float"),
        (lambda logits, labels: logits.detach().mean(), "does not depend on the network"),
    ],
)
def test_a_loss_of_another_shape_is_refused(
    loss: object, words: str, films: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        radiffuse.fit_custom(
            data=films,
            out=tmp_path / "run",
            loss=loss,
            steps=1,
            batch_size=2,
            size=32,
            width=8,
            multipliers=(1, 2),
            blocks=1,
            attention_factors=(2,),
            head_channels=8,
            cache=tmp_path / "cache",
            accelerator="cpu",
        )
