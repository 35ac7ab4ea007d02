"""Files and folders are whole or not there, room on the disk is claimed first, and nothing but plain values is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from radiffuse.config import Data, PlanSettings
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.errors import InputError
from radiffuse.system.files import (
    MOST_YAML,
    PARTIAL,
    locked,
    read_json,
    read_yaml,
    remove_partials,
    reserve,
    whole,
    whole_folder,
    write_atomic,
)
from radiffuse.system.leftovers import sweep


def refusing(number: int):  # type: ignore[no-untyped-def]
    def refuse(*given: int) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_room_is_claimed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb") as file:
        reserve(file, path, 10_000)
    assert path.stat().st_size == 10_000
    assert path.stat().st_blocks * 512 >= 10_000  # not a sparse file


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.ENOSPC))
    with (
        (tmp_path / "a").open("wb") as file,
        pytest.raises(InputError, match=r"needs 2 GB.*No space left.*Free the disk"),
    ):
        reserve(file, tmp_path / "a", 2 * 10**9)


def test_a_file_system_without_promises_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", refusing(errno.EOPNOTSUPP))
    with (tmp_path / "a").open("wb") as file:
        reserve(file, tmp_path / "a", 5000)
    assert (tmp_path / "a").stat().st_size == 5000


def test_a_preparation_that_finds_no_room_leaves_nothing_and_goes_on_later(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(films, Data())
    plan = make_plan(dataset, PlanSettings(size=(32, 32)), labelled=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refusing(errno.ENOSPC))
        with pytest.raises(InputError, match=r"images\.npy.*No space left"):
            prepare(dataset, plan, labelled=True, cache=tmp_path)
    assert not list(tmp_path.rglob("*.npy*"))
    assert len(prepare(dataset, plan, labelled=True, cache=tmp_path)) == len(dataset)


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "old")
    with pytest.raises(ZeroDivisionError), whole(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "old"
    with whole(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with (
        pytest.raises(InputError, match=r"a\.txt: cannot be written \(No space left"),
        whole(path) as file,
    ):
        raise OSError("4096 requested and 512 written")  # numpy's words, without a number
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def fail(folder: Path, error: Exception) -> None:
    (folder / "b").write_text("2")
    raise error


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    final = tmp_path / "model"
    with whole_folder(final) as partial:
        (partial / "a").write_text("1")
    for error in (
        OSError(28, "No space left on device"),
        ValueError("I/O: No space left on device"),
    ):
        with (
            pytest.raises(InputError, match="model: cannot be written .*No space left"),
            whole_folder(final) as partial,
        ):
            fail(partial, error)
    with pytest.raises(KeyError), whole_folder(final):
        raise KeyError
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "a"]
    with whole_folder(final) as partial:
        (partial / "c").write_text("3")
    assert [p.name for p in tmp_path.rglob("*")] == ["model", "c"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    inner = tmp_path / "state"
    (inner / f".step-1.77{PARTIAL}").mkdir(parents=True)
    (inner / f".step-1.77{PARTIAL}" / "w").write_text("half")
    (tmp_path / f".a.json.77.9{PARTIAL}").write_text("half")
    for kept in (".lock", f"film{PARTIAL}", ".hidden"):
        (tmp_path / kept).write_text("whole")
    remove_partials(tmp_path)
    assert {p.name for p in tmp_path.rglob("*")} == {"state", ".lock", f"film{PARTIAL}", ".hidden"}


def test_sweeping_leaves_no_lock_and_heeds_one(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (half := tmp_path / "inner" / f".a.77.9{PARTIAL}").touch()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["inner"]
    with locked(tmp_path):
        half.touch()
        sweep(tmp_path)
        assert half.exists()
    sweep(tmp_path)
    assert not half.exists()
    sweep(tmp_path / "nothing")


def test_a_locked_folder_is_waited_for_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, "somebody is at it"):
            order.append("second")

    with locked(tmp_path):
        with pytest.raises(InputError, match="in use by another process"), locked(tmp_path):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "somebody is at it" in capsys.readouterr().err


def test_a_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from radiffuse.system.files import locked\n"
        "with locked(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("fcntl.flock", refusing(number))
    with locked(tmp_path):
        (tmp_path / "a").write_text("1")
    (tmp_path / f".b{PARTIAL}").touch()  # which another process may be writing
    with locked(tmp_path, "nobody is at it"):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "a", f".b{PARTIAL}"}
    monkeypatch.undo()
    with locked(tmp_path):
        assert {p.name for p in tmp_path.iterdir()} == {".lock", "a"}


def test_a_folder_that_cannot_be_written_cannot_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", refusing(errno.EROFS))
    with pytest.raises(InputError, match="cannot be written .*Read-only"), locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x [1, 2]\nb: *x\n", "aliases are not read"),
        ("a: !!python/object/apply:os.system ['touch hacked']\n", "not readable YAML"),
        ("a: 2001-99-99\n", "not readable YAML"),
        ("a: " + "[" * 5000, "not readable YAML"),
        ("a: " + "[" * 60_000 + "]" * 60_000, "more than 64 levels"),
        ("- 1\n", "holds no settings"),
        ("", "holds no settings"),
        ("x" * (MOST_YAML + 1), "is larger than"),
    ],
    ids=["alias", "object", "date", "deep", "deepest", "list", "empty", "large"],
)
def test_yaml_holds_plain_values_only(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=problem) as error:
        read_yaml(path)
    assert "\n" not in str(error.value)


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000)
    with pytest.raises(InputError, match="not readable JSON"):
        read_json(path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    from radiffuse.system.files import refuse_foreign

    refuse_foreign(tmp_path / "new", "mine.json")
    (tmp_path / ".lock").write_text("")
    refuse_foreign(tmp_path, "mine.json")
    (tmp_path / "a.png").write_text("")
    with pytest.raises(InputError, match="is not empty"):
        refuse_foreign(tmp_path, "mine.json")
    with pytest.raises(InputError, match="is a file"):
        refuse_foreign(tmp_path / "a.png", "mine.json")
    (tmp_path / "mine.json").write_text("")
    refuse_foreign(tmp_path, "other.json", "mine.json")
