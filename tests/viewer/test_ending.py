"""How the server begins and ends: the address, the page that leads to it, and the folder that goes with it."""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'view': pip install 'radiffuse[view]'")

from radiffuse.viewer.ending import PREFIX, server_folder, sweep_folders
from radiffuse.viewer.serve import way_to
from viewer_files import film_bytes

SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT")


def heed() -> None:
    """What runs in the background of a script, as all tests may, inherits that some signals are ignored."""
    for name in SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(temporary: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, whose browser is a script that writes down what it was given."""
    temporary.mkdir(exist_ok=True)
    browser = temporary / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$@\" > {temporary}/given\ncp ${{1#file://}} {temporary}/page\n")  # fmt: skip
    browser.chmod(0o700)
    server = subprocess.Popen(
        [sys.executable, "-m", "radiffuse", "view", *words],
        env=os.environ | {"TMPDIR": str(temporary), "BROWSER": f"{browser} %s"},
        stderr=subprocess.PIPE, text=True, preexec_fn=heed,
    )  # fmt: skip
    assert server.stderr is not None
    return server, server.stderr.readline().split()[-1]


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_takes_the_dropped_scans_along(tmp_path: Path, name: str) -> None:
    server, address = start(tmp_path / "tmp")
    with urllib.request.urlopen(address) as page:  # it listens as soon as it says so
        assert page.status == 200
    (folder,) = (tmp_path / "tmp").glob(f"{PREFIX}*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "dropped" / "scan.png").write_bytes(b"a patient")
    server.send_signal(getattr(signal, name))
    assert server.wait(20) == 143
    assert not folder.exists()
    if name == "SIGTERM":
        token = address.rstrip("/").rpartition("/")[2]
        assert len(base64.urlsafe_b64decode(token + "=")) == 32  # 256 bits
        assert token not in (tmp_path / "tmp" / "given").read_text()
        assert f"url={address}" in (tmp_path / "tmp" / "page").read_text()


def test_ctrl_c_twice_ends_without_a_traceback(tmp_path: Path) -> None:
    server, address = start(tmp_path / "tmp")
    assert server.stderr is not None
    assert server.stderr.readline() == "Ctrl-C ends it.\n"
    urllib.request.urlopen(address).close()
    server.send_signal(signal.SIGINT)
    time.sleep(0.05)  # it waits for 0.1 s for what is still being answered
    server.send_signal(signal.SIGINT)
    server.wait(20)
    said = server.stderr.read()  # one line, if the second came after the server's end
    assert "Traceback" not in said
    assert said.count("\n") <= 1


def test_a_correction_is_for_its_user_alone(tmp_path: Path) -> None:
    film = tmp_path / "a.png"
    film.write_bytes(film_bytes(tmp_path, (4, 5)))
    before = os.umask(0)
    try:
        server, address = start(tmp_path / "tmp", str(film), "--corrections", str(tmp_path / "out"))
    finally:
        os.umask(before)
    query = "?classes=background&classes=lung"
    asked = f"{address}api/scans/1/correction{query}"
    try:
        with urllib.request.urlopen(asked, data=zlib.compress(bytes(20))) as answer:
            assert answer.status == 200
    finally:
        server.terminate()
        server.wait(20)
    modes = {
        p: stat.S_IMODE(p.stat().st_mode)
        for p in [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    }
    assert len(modes) >= 6
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


def test_the_page_that_leads_to_the_address_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = way_to("http://127.0.0.1:1/secret/", tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "http://127.0.0.1:1/secret/" in path.read_text()
    assert "secret" not in path.as_uri()


def test_folders_of_dead_servers_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, young, other = (tmp_path / f"{PREFIX}{n}" for n in ("dead", "young", "link"))
    for folder in (dead, young, tmp_path / "kept"):
        folder.mkdir()
        (folder / "scan.png").write_bytes(b"a patient")
    other.symlink_to(tmp_path / "kept")
    with server_folder() as alive:
        for folder in (dead, alive):
            os.utime(folder, (1, 1))
        sweep_folders()
        assert sorted(p.name for p in tmp_path.glob(f"{PREFIX}*")) == sorted(
            [alive.name, young.name, other.name]
        )
    assert (tmp_path / "kept" / "scan.png").exists()
    assert not alive.exists()
