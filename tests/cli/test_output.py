"""What hostile names reach: the terminal, pages and cards show them written out; and files that others cannot read."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import radiffuse
from radiffuse.cli import main
from radiffuse.cli.output import plain_output
from radiffuse.errors import InputError, printable
from radiffuse.release.documents import harmless
from radiffuse.reports.html import Report

HOSTILE = "a\x1b[31m\u202eb\u2066c\u200fd\x9b\x07"
SHOWN = "a\\x1b[31m\\u202eb\\u2066c\\u200fd\\x9b\\x07"


def test_control_and_format_characters_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("\u00e9 \u4e2d\u3000\u00a0\u0645") == "\u00e9 \u4e2d\u3000\u00a0\u0645"
    assert printable("a\nb", "\n") == "a\nb"
    assert str(InputError(HOSTILE, "p", "r")) == f"{SHOWN}: p. r."
    with plain_output(), plain_output():
        print(HOSTILE, "\tb")
        print(HOSTILE, file=sys.stderr)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{SHOWN} \tb\n", f"{SHOWN}\n")


def test_a_command_and_a_function_print_no_escape_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"{HOSTILE}.png")
    (tmp_path / "plan.json").write_text("{}")
    assert main(["check", str(tmp_path), "--header-only", "true"]) in (0, 2)
    assert main(["info", str(tmp_path / HOSTILE)]) == 2
    radiffuse.check(data=str(tmp_path), header_only=True)
    text = "".join(capsys.readouterr())
    assert not set("\x1b\u202e\u2066\u200f\x9b\x07") & set(text)
    assert "\\u202e" in text


def test_reports_and_cards_show_them_written_out() -> None:
    report = Report(HOSTILE)
    report.text(HOSTILE)
    report.details("settings", f"{HOSTILE}\n\tb")
    page = report.render()
    assert not set("\x1b\u202e\u2066\u200f\x9b\x07") & set(page)
    assert "\n\tb" in page
    assert harmless(HOSTILE) == "a  31m\\u202eb\\u2066c\\u200fd\\x9b"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_what_comes_of_patients_is_private_and_what_is_given_away_is_not(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, cache = tmp_path / "films", tmp_path / "cache"
    before = os.umask(umask)
    try:
        radiffuse.anatomy(kind="bitewing", count=4, size=(32, 32), out=films)
        shared = {0o666 & ~umask} if umask != 0o077 else {0o600}
        assert {stat.S_IMODE(p.stat().st_mode) for p in films.rglob("*.png")} == shared
        radiffuse.pretrain(
            data=films, out=tmp_path / "run", reader={"cache": str(cache)}, size=(16, 16),
            network={"width": 8, "multipliers": (1, 2), "blocks": 1, "attention_factors": ()},
            training={"steps": 1, "batch_size": 2},
            machine={"accelerator": "cpu", "precision": "32-true"},
        )  # fmt: skip
        assert os.umask(umask) == umask  # as it was
    finally:
        os.umask(before)
    for folder in (tmp_path / "run", cache):
        for path in (folder, *folder.rglob("*")):
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path


CHECK = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from radiffuse.data.checking.processes import _pool
with _pool(1) as pool:  # as the check does: without it, Python's own exit may write into a pipe just closed
    worker = pool.submit(os.getpid).result()
    pool.submit(time.sleep, 100)
    print(worker, flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_check_leaves_no_workers(kind: int) -> None:
    check = subprocess.Popen([sys.executable, "-c", CHECK], stdout=subprocess.PIPE, text=True)
    assert check.stdout is not None
    worker = psutil.Process(int(check.stdout.readline()))
    check.send_signal(kind)
    check.wait(10)
    _, left = psutil.wait_procs([worker], timeout=10)
    for process in left:
        process.kill()
    assert not left


def test_an_interrupted_check_prints_no_traceback_of_its_workers() -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", CHECK]
    with subprocess.Popen(command, start_new_session=True, **streams) as check:  # type: ignore[call-overload]
        check.stdout.readline()
        os.killpg(check.pid, signal.SIGINT)  # as a terminal does
        said = check.communicate(timeout=20)[1]
    assert said.count("Traceback") == 1, said  # of the script itself


def test_no_command_uses_the_network(
    films: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        pytest.fail(f"opens a connection: {arguments[1:]}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    machine = {"accelerator": "cpu", "precision": "32-true"}
    training = {"steps": 1, "batch_size": 2}
    run = radiffuse.fit(
        data=films,
        method="finetune",
        from_=pretrained,
        out=tmp_path / "run",
        training=training,
        machine=machine,
    ).folder
    masks = radiffuse.predict(
        runs=run, data=films, out=tmp_path / "masks", cases="test", machine=machine
    )
    radiffuse.evaluate(masks=masks, truth=films, out=tmp_path / "scores")
    radiffuse.export(run=run, out=tmp_path / "published")
