"""Room on the disk is claimed before memory is mapped onto it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from radiffuse.config import Data, PlanSettings
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.errors import InputError
from radiffuse.files import reserve


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
