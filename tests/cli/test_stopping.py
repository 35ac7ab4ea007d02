"""A command that is asked to stop says in one line what it kept, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from radiffuse.cli import main
from radiffuse.cli.stopping import stopped
from radiffuse.commands import COMMANDS, _ending, generate
from radiffuse.phantoms import writer
from radiffuse.train import act

SIGNALS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
CPU = ("--machine.accelerator", "cpu", "--machine.precision", "32-true")
TINY = (
    "--size 32,32 --network.preset tiny --network.width 8 --network.multipliers 1,2 --network.blocks 1 "
    "--network.attention-factors 2 --network.head-channels 8"
)
TRAINING = "--training.steps 2 --training.batch-size 2 --training.checkpoint-every 1"


@pytest.fixture(autouse=True)
def obeyed() -> Iterator[None]:
    """Both signals do what they do in a new process, however the tests were started."""
    kinds = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {kind: signal.signal(kind, handler) for kind, handler in kinds.items()}
    yield
    for kind, handler in before.items():
        assert signal.getsignal(kind) == kinds[kind]
        signal.signal(kind, handler)


def sending(number: int, function: Callable[..., Any], after: int = 0) -> Callable[..., Any]:
    """The function, whose call after so many sends this process a signal first."""
    calls = []

    def called(*values: Any, **named: Any) -> Any:
        calls.append(values)
        if len(calls) == after + 1:
            os.kill(os.getpid(), number)
        return function(*values, **named)

    return called


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code, and what was said beside progress."""
    capsys.readouterr()
    code = main(words)
    lines = capsys.readouterr().err.splitlines()
    return code, [line for line in lines if line.startswith("radiffuse: ") or "Traceback" in line]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_drawing_says_that_it_goes_on_and_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    words = ["anatomy", "bitewing", "--count", "4", "--size", "16,16", "--out", str(tmp_path / "a")]
    with monkeypatch.context() as patch:
        patch.setattr(writer, "draw", sending(number, writer.draw, after=2))
        line = f"radiffuse: {tmp_path / 'a'}: stopped, as asked. Kept: what was finished. "
        assert said(words, capsys) == (code, [line + "The same command goes on from there."])
    there = {path: path.read_bytes() for path in (tmp_path / "a" / "images").iterdir()}
    assert len(there) == 2
    assert main(words) == 0
    assert len(list((tmp_path / "a" / "images").iterdir())) == 4
    assert all(path.read_bytes() == content for path, content in there.items())


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_training_without_a_step_or_without_one_left_says_what_it_kept(
    unlabelled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    out = tmp_path / "run"
    words = ["pretrain", str(unlabelled), "--out", str(out), *TINY.split(), *TRAINING.split(), *CPU]
    for place, kept in (("train", "what was finished"), ("compare_costs", "step 2")):
        with monkeypatch.context() as patch:
            patch.setattr(act, place, sending(number, getattr(act, place)))
            line = f"radiffuse: {out}: stopped, as asked. Kept: {kept}. "
            found = said(words, capsys)
        assert found == (code, [line + "The same command goes on from there."])
    assert main(words) == 0


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_what_is_done_is_said_to_be_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    code: int,
) -> None:
    out = tmp_path / "a"
    monkeypatch.setattr(_ending, "ending", sending(number, _ending.ending))
    words = ["anatomy", "bitewing", "--count", "1", "--size", "16,16", "--out", str(out)]
    line = f"radiffuse: {out}: anatomy is done; only its last lines were stopped, as asked."
    assert said(words, capsys) == (code, [line])


def test_what_is_kept_of_stages_and_studies(tmp_path: Path) -> None:
    def kept(name: str) -> str:
        return stopped(name, str(tmp_path / "out")).partition("Kept: ")[2].partition(".")[0]

    assert "before anything was written there" in stopped("synthesize", str(tmp_path / "out"))
    (tmp_path / "out" / "encoder" / "model").mkdir(parents=True)
    (tmp_path / "out" / "encoder" / "model" / "config.json").touch()
    (tmp_path / "out" / "autoencoder" / "state" / "step-00000020").mkdir(parents=True)
    (tmp_path / "out" / "autoencoder" / "state" / "step-00000100").mkdir()
    assert kept("synthesize") == "autoencoder (step 100), encoder (trained)"
    (tmp_path / "out" / "state" / "step-00000003").mkdir(parents=True)
    assert kept("synthesize") == "autoencoder (step 100), encoder (trained), step 3"
    for number in range(2):
        (tmp_path / "out" / "runs" / f"50-real-{number}").mkdir(parents=True)
        (tmp_path / "out" / "runs" / f"50-real-{number}" / "report.html").touch()
    assert kept("augment").startswith("2 finished runs")


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if one.anew])
def test_what_is_written_at_the_end_starts_again(name: str, tmp_path: Path) -> None:
    assert stopped(name, str(tmp_path)).endswith("and the same command starts again.")


def test_a_second_one_ends_the_process_and_an_ignored_one_stays_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []

    def act_of(name: str) -> Callable[[Any], None]:
        def run(settings: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))
            if seen[-1] == signal.SIG_IGN:
                return
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                seen.append(signal.getsignal(signal.SIGTERM))

        return run

    monkeypatch.setattr("radiffuse.cli.functions.load_act", act_of)
    assert main(["info", "x"]) == 143
    assert seen[0] not in (signal.SIG_DFL, signal.SIG_IGN)
    assert seen[1] == signal.SIG_DFL
    monkeypatch.setenv("RANK", "1")  # of processes that train together
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert main(["info", "x"]) == 0
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_one_that_comes_where_errors_are_lost_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    """As in the callback of a weak reference, while garbage is collected."""

    class Garbage:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            for _ in range(1000):  # here it is raised
                pass

    waited = []

    def act_of(name: str) -> Callable[[Any], None]:
        def run(settings: Any) -> None:
            Garbage()
            began = time.monotonic()
            try:
                time.sleep(60)
            finally:
                waited.append(time.monotonic() - began)

        return run

    monkeypatch.setattr("radiffuse.cli.functions.load_act", act_of)
    assert said(["info", "x"], capsys) == (
        code,
        ["radiffuse: stopped, as asked. The same command starts again."],
    )
    assert all(seconds < 50 for seconds in waited)  # none: it came before the wait began


def test_a_generation_says_that_it_goes_on(
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["generate", str(pretrained), "--count", "2", "--steps", "2", *CPU]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    words += ["--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(generate, "_write_table", sending(signal.SIGTERM, generate._write_table))
        code, lines = said(words, capsys)
    assert code == 143
    assert len(lines) == 1
    assert lines[0].endswith("Kept: what was finished. The same command goes on from there.")
    assert main(words) == 0
    whole, out = (
        {p.name: p.read_bytes() for p in (tmp_path / name).rglob("*.*") if p.is_file()}
        for name in ("whole", "out")
    )
    assert whole == out
