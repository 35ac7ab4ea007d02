"""What a command says while it works and when it is done, and what it leaves behind."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import radiffuse
from conftest import TINY, pretrain_settings
from radiffuse.cli import main
from radiffuse.cli.settings import from_arguments, from_values
from radiffuse.commands._ending import NEXT, next_line
from radiffuse.data import copies
from radiffuse.errors import InputError
from radiffuse.system import saying
from radiffuse.system.files import write_json
from radiffuse.system.leftovers import leaves_nothing_empty
from radiffuse.train.progress import Countdown
from radiffuse.train.run import RUN_VERSION, Run


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
    finished: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(finished[finished.index("--out") + 1])
    assert main(finished) == 0
    said = capsys.readouterr().err
    assert f"{out} is finished, nothing is left to train" in said
    assert "validation: Dice 0." in said
    assert re.search(r"HD95 [\d.]+ px\b", said), said  # films whose files state no spacing
    assert f"report: {out / 'report.html'}" in said
    assert (
        f"next: radiffuse predict {out} SCANS --out masks   (SCANS: the scans to segment)" in said
    )
    assert "goes on from" not in said
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SCANS").mkdir()  # as in the README: then it needs no word about it
    assert main(finished) == 0
    assert re.search(r"SCANS --out masks$", capsys.readouterr().err, re.MULTILINE)


def hints(said: str) -> list[list[str]]:
    """The words of each next command, as a shell reads them."""
    lines = [line for line in said.splitlines() if line.startswith("radiffuse: next: radiffuse ")]
    return [shlex.split(line.removeprefix("radiffuse: next: radiffuse ")) for line in lines]


def test_each_next_command_can_be_copied(
    finished: list[str],
    unlabelled: Path,
    films: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From predict over select to the page, with blanks in the names of all folders; folders in use are left alone."""
    monkeypatch.chdir(tmp_path)
    for name, source in (("a run", finished[finished.index("--out") + 1]), ("a pool", unlabelled)):
        Path(name).symlink_to(source)
    Path("runs/eval").mkdir(parents=True)
    assert main(["predict", "a run", "a pool", "--out", "my masks"]) == 0
    said = capsys.readouterr().err
    assert "the masks are in my masks" in said
    view, select = hints(said)
    assert view == ["view", "a pool", "a run", "--masks", "my masks"]
    assert select == ["select", "a pool", "--from", "a run", "--count", "5", "--out", "next.csv"]
    assert main(select) == 0
    (again,) = hints(capsys.readouterr().err)
    assert again == [*view, "--worklist", "next.csv"]
    page = from_arguments("view", again[1:]).settings
    assert (page.paths, page.masks, page.worklist) == (("a pool", "a run"), "my masks", "next.csv")
    assert main(["predict", "a run", str(films), "--out", "more masks"]) == 0
    _, evaluate = hints(capsys.readouterr().err)
    assert evaluate == ["evaluate", "more masks", str(films), "--out", "runs/eval-2"]
    assert main(evaluate) == 0


def test_select_is_proposed_where_it_has_something_to_choose_from(
    finished: list[str],
    films: Path,
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One film, which the run has a label for though nothing beside it says so, one of two such, and none known."""
    monkeypatch.chdir(tmp_path)
    run = finished[finished.index("--out") + 1]
    one, two = sorted((films / "images").iterdir())[:2]
    assert main(["predict", run, str(one), "--out", "one"]) == 0
    assert [words[0] for words in hints(capsys.readouterr().err)] == ["view"]
    Path("mixed").mkdir()
    shutil.copy(two, "mixed/copy.png")
    shutil.copy(sorted(unlabelled.rglob("*.png"))[0], "mixed/new.png")
    assert main(["predict", run, "mixed", "--out", "masks"]) == 0
    _, select = hints(capsys.readouterr().err)
    assert select[select.index("--count") + 1] == "1"
    assert main(select) == 0
    capsys.readouterr()
    shutil.copytree(run, "moved")
    config = Path("moved/data.json")
    config.write_text(config.read_text().replace(str(films), str(tmp_path / "gone")))
    assert main(["predict", "moved", str(one), "--out", "other"]) == 0
    _, select = hints(capsys.readouterr().err)  # nobody knows of the label, and select chooses it
    assert main(select) == 0


def test_to_propose_select_little_is_read(
    finished: list[str], films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large files of one size, such as raw volumes, the start, middle and end, and of no more than matter."""
    looked: list[str] = []
    glance = copies._glance
    monkeypatch.setattr(copies, "hash_of_files", lambda _: pytest.fail("read a whole scan"))
    monkeypatch.setattr(copies, "_glance", lambda case: looked.append(case.name) or glance(case))
    run, films_there = finished[finished.index("--out") + 1], sorted((films / "images").iterdir())
    pool = tmp_path / "pool"
    pool.mkdir()
    given = {"runs": [run], "data": str(pool), "out": str(tmp_path / "masks")}
    for number in range(9):
        shutil.copy(films_there[0], pool / f"c{number}.png")
    assert [words[0] for words in NEXT["predict"](from_values("predict", given), "masks")] == [
        "view"
    ]
    looked.clear()
    content = bytearray(films_there[0].read_bytes())
    for number in range(9):
        content[len(content) // 2] = (content[len(content) // 2] + 1) % 256
        (pool / f"a{number}.png").write_bytes(content)
    _, select = NEXT["predict"](from_values("predict", given), "masks")
    assert select[select.index("--count") + 1] == "5"
    assert len([name for name in looked if name[0] in "ac"]) == 5


def test_the_truth_of_predicted_masks_is_read_as_the_run_read_its_labels(
    finished: list[str], films: Path, tmp_path: Path
) -> None:
    """``predict`` reads no label map and refuses ``--label-values``; the line after it must name them nonetheless."""
    run = shutil.copytree(finished[finished.index("--out") + 1], tmp_path / "run")
    config = (run / "config.yaml").read_text()
    assert config.count("label_values: null") == 1
    (run / "config.yaml").write_text(
        config.replace("label_values: null", "label_values: [0, 1, 255]")
    )
    given = {"runs": [str(run)], "data": str(films), "out": str(tmp_path / "masks")}
    _, words = NEXT["predict"](from_values("predict", given), given["out"])
    assert words[:3] == ("evaluate", given["out"], str(films))
    assert from_arguments("evaluate", list(words[1:])).settings.reader.label_values == (0, 1, 255)


def test_after_a_training_its_own_folders_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fit the pool, else the test part is segmented; after pretrain what it was for is fitted."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    write_json(Path("run/splits.json"), {"train": ["b"], "test": ["a"]})
    given = {"data": "my films", "out": "run", "method": "scratch", "group": r"^(\w+)_"}
    settings = from_values("fit", given)
    ((*words,),) = NEXT["fit"](settings, "run")
    assert words[:5] == ["predict", "run", "my films", "--cases", "test"]
    assert words[5:] == ["--out", "masks", "--reader.group", r"^(\w+)_"]
    Path("masks").mkdir()
    pooled = from_values("fit", given | {"unlabelled": ["a pool"]})
    ((*other,),) = NEXT["fit"](pooled, "run")
    assert other == ["predict", "run", "a pool", "--out", "masks-2", *words[7:]]
    from_arguments("predict", other[1:])
    # What predict would refuse, since it keeps nothing, is left out.
    kept = from_values("fit", given | {"cache": "arrays"})
    ((*again,),) = NEXT["fit"](kept, "run")
    assert again == [*words[:6], "masks-2", *words[7:]]
    from_arguments("predict", again[1:])
    pretrained = from_values("pretrain", {"data": "p", "out": "pre", "for_": "my films"})
    ((*words,),) = NEXT["pretrain"](pretrained, "pre")
    line = next_line(*words)
    assert line == ("next: radiffuse fit 'my films' --from pre --method finetune --out runs/seg")
    assert shlex.split(line)[2:] == words


def test_the_hint_after_a_check_names_what_was_given(
    films: Path, unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["check", str(films), "--only", "bitewing-00000[0-5]", "--header-only"]
    assert main(given) == 0
    (words,) = hints(capsys.readouterr().err)
    assert words[:4] == ["fit", str(films), "--hours", "2"]
    parsed = from_arguments("fit", words[1:]).settings
    assert parsed.reader.only == "bitewing-00000[0-5]"
    assert main(["check", str(unlabelled), "--header-only"]) == 0
    assert hints(capsys.readouterr().err)[0][:2] == ["select", str(unlabelled)]
    first, *_ = sorted(unlabelled.glob("**/*.png"))
    assert main(["check", str(first), "--header-only"]) == 0
    words = hints(capsys.readouterr().err)[0]
    assert words[words.index("--count") + 1] == "1"  # select refuses more than there are


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
    saying.soon("importing")
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # it was the last line
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


def test_an_automatic_run_shows_the_curves_of_its_members(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        f"command: fit\nrun_version: {RUN_VERSION}\nsettings: {{}}\n"
    )
    assert "<svg" not in radiffuse.Run(tmp_path)._repr_html_()
    for name in ("one", "two"):
        (tmp_path / "members" / name).mkdir(parents=True)
        lines = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / "members" / name / "log.jsonl").write_text(text)
    page = radiffuse.Run(tmp_path)._repr_html_()
    assert page.count("<svg") == 2
    assert page.index("<p>one</p>") < page.index("<p>two</p>")


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
