"""Bad input of every kind: exit code 2, one line on stderr that names what is at fault, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import line_of
from radiffuse.cli import main

TINY = [
    "--size",
    "32",
    "--steps",
    "1",
    "--batch-size",
    "2",
    "--width",
    "8",
    "--multipliers",
    "1,2",
    "--attention-factors",
    "2",
]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "0"], "training.steps 0"),
        (["--batch-size", "0"], "--training.batch-size 0"),
        (["--log-every", "0"], "training.log-every 0"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--seed=-1"], "training.seed -1"),
        (["--steps"], "has no value"),
        (["--steps", "1.5"], "1.5"),
        (["--size", "32,32,32"], "spatial axes"),
        (["--percentiles", "99,1"], "Put the lower value first"),
        (["--flip", "2"], "flip 2"),
        (["--preset", "huge"], "huge"),
        (
            ["--attention-factors", "8"],
            "this network has the factors [1, 2], so give some of these",
        ),
        (["--prediction-type", "noise"], "noise"),
        (["--zero-terminal-snr"], "zero_terminal_snr"),
        (["--layout", "zip"], "zip"),
        (["--group", "(", "--layout", "images"], "("),
        (["--from", "nope"], "neither a run"),
        (["--accelerator", "abacus"], "abacus"),
        (["--config"], "neither a file nor a recipe"),
    ],
)
def test_bad_settings(
    unlabelled: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    given = ["pretrain", str(unlabelled), "--out", str(tmp_path / "run"), *TINY, *words]
    assert expected in line_of(given, capsys)


def test_what_is_missing_is_said_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    line = line_of(["fit", "data"], capsys)
    assert line == "radiffuse: fit: --out is missing. See radiffuse fit --help."


def damaged(content: bytes | None) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content is None else content)

    return change


@pytest.mark.parametrize(
    "change",
    [damaged(b""), damaged(b"plain text"), damaged(None), lambda p: (p.unlink(), p.mkdir())],
    ids=["empty", "text", "short", "folder"],
)
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_a_bad_file_is_named(
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    change: Callable[[Path], None],
) -> None:
    data = tmp_path / "data"
    shutil.copytree(films, data)
    bad = sorted((data / kind).iterdir())[0]
    change(bad)
    given = ["fit", str(data), "--out", str(tmp_path / "run"), "--method", "scratch", *TINY]
    assert bad.stem in line_of([*given, "--split.test", "0", "--split.validation", "0"], capsys)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("plan.json", "{", "plan.json"),
        ("plan.json", '{"version": 1}', "plan.json"),
        ("config.yaml", "]", "config.yaml"),
        ("model/config.json", "{}", "model/config.json"),
        ("model/config.json", '{"kind": "denoiser", "unet": {"width": -1}}', "model/config.json"),
        ("model/model.safetensors", "", "model.safetensors"),
        ("model/model.safetensors", "x" * 999, "model.safetensors"),
    ],
)
def test_a_damaged_run_is_named(
    films: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    content: str,
    expected: str,
) -> None:
    run = tmp_path / "pre"
    shutil.copytree(pretrained, run)
    (run / file).write_text(content)
    words = ["--method", "finetune", "--from", str(run), *TINY]
    given = ["fit", str(films), "--out", str(tmp_path / "run"), *words]
    assert expected in line_of(given, capsys)


@pytest.mark.parametrize("command", ["info", "info --report", "generate"])
def test_what_is_no_run_is_named(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    name, *more = command.split()
    more += ["--out", str(tmp_path / "o")] if name == "generate" else []
    assert str(films) in line_of([name, str(films), *more], capsys)
    missing = str(tmp_path / "missing")
    assert missing in line_of([name, missing, *more], capsys)


def test_a_bad_splits_file_is_named(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "splits.json"
    words = ["--method", "scratch", *TINY, "--file", str(file)]
    given = ["fit", str(films), "--out", str(tmp_path / "run"), *words]
    for content in ("{", "[]", "3", json.dumps({"version": 1, "train": 3})):
        file.write_text(content)
        assert "splits.json" in line_of(given, capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    try:
        given = ["pretrain", str(unlabelled), "--out", str(tmp_path / "run"), *TINY]
        assert "cannot be written" in line_of(given, capsys)
    finally:
        tmp_path.chmod(0o700)


def test_out_below_a_file(
    unlabelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    for out in ("file", "file/run"):
        line = line_of(["pretrain", str(unlabelled), "--out", str(tmp_path / out), *TINY], capsys)
        assert str(tmp_path / out) in line
    assert (tmp_path / "file").read_text() == "precious"


def test_a_name_with_a_line_break_stays_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "two\nlines"
    assert "two\\nlines" in line_of(["pretrain", str(data), "--out", str(tmp_path / "o")], capsys)


def test_help_of_a_command_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from radiffuse.cli import main\n"
        "main(['pretrain', '--help'])\n"
        "heavy = {'torch', 'numpy', 'monai', 'pandas', 'nibabel'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--steps" in done.stdout


def test_an_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("radiffuse.cli.functions.load_act", interrupted)
    assert main(["info", "x"]) == 130
    assert "The same command starts again" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    for words in (["-h"], ["fit", "--help", "all"], ["doctor"]):
        command = [sys.executable, "-m", "radiffuse", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b"", words
        assert process.returncode == 141


@pytest.mark.parametrize(
    "words", [["FILMZ"], ["FILMS", "--unlabelled", "FILMZ"], ["FILMS", "--with", "FILMZ"]]
)
def test_a_folder_that_does_not_exist_is_refused_before_torch_is_loaded(
    tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "FILMS").mkdir()
    code = (
        "import sys\n"
        "from radiffuse.cli import main\n"
        f"assert main(['fit', *{words}, '--out', 'seg']) == 2\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "radiffuse: FILMZ: does not exist. Did you mean FILMS?\n"


NO_RUN = "RUNZ: is neither a run nor shipped weights. "


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "FILMS", "--from", "RUNZ", "--out", "seg"], NO_RUN),
        (
            ["fit", "FILMS", "--method", "dino", "--encoder", "./ENC", "--out", "seg"],
            "--encoder ./ENC: does not exist. ",
        ),
        (["pretrain", "FILMS", "--from", "RUNZ", "--out", "pre"], NO_RUN),
        (["predict", "FILMS", "FILMS", "--out", "masks"], "FILMS: is not a run: "),
        (["predict", "RUNZ", "FILMS", "--out", "masks"], "RUNZ: does not exist. "),
        (["generate", "RUNZ", "--out", "images"], NO_RUN),
        (["export", "RUNZ", "--out", "published"], NO_RUN),
        (["zeroshot", "films-64", "FILMZ", "--out", "masks"], "FILMZ: does not exist. "),
        (["select", "FILMZ", "--out", "next.csv"], "FILMZ: does not exist. "),
        (["judge", "FILMS", "FILMZ"], "FILMZ: does not exist. "),
        (["evaluate", "FILMS", "FILMZ", "--out", "scores"], "FILMZ: does not exist. "),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_wrong_folder_is_said_by_every_command_before_what_is_heavy_is_loaded(
    tmp_path: Path, words: list[str], said: str
) -> None:
    """Torch and pandas take seconds; a word typed wrong is known without them."""
    (tmp_path / "FILMS").mkdir()
    code = (
        "import sys\n"
        "from radiffuse.cli import main\n"
        f"assert main({words}) == 2\n"
        "assert not {'torch', 'pandas', 'monai'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"radiffuse: {said}"), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["FILMS"]
