"""The cache is listed, and what nobody uses goes; what is in use and splits stay, and deleted arrays come back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import radiffuse
from radiffuse.commands.cache import held
from radiffuse.config import PlanSettings
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.prepare import prepare
from radiffuse.errors import InputError
from radiffuse.system.files import locked

LONG_AGO = 1_000_000_000


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the arrays of two films, used long ago, and splits."""
    films = tmp_path / "films"
    films.mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(pixels).save(films / f"{number}.png")
    use(tmp_path)
    (tmp_path / "cache" / "splits").mkdir()
    (tmp_path / "cache" / "splits" / "a.json").write_text("{}")
    (entry,) = held(tmp_path / "cache")
    os.utime(entry.path / ".lock", (LONG_AGO, LONG_AGO))
    return tmp_path / "cache"


def use(folder: Path) -> None:
    dataset = open_dataset(folder / "films")
    prepare(
        dataset,
        make_plan(dataset, PlanSettings(), labelled=False),
        labelled=False,
        cache=folder / "cache",
    )


def test_what_is_unused_is_said_and_deleted(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = held(cache)
    assert entry.bytes > 2 * 16 * 16 * 2
    radiffuse.cache(cache=str(cache))
    assert "unused for 30 days" in capsys.readouterr().out
    with locked(entry.path):
        radiffuse.cache(cache=str(cache), delete="all")
    assert "stays: it is in use by another process" in capsys.readouterr().err
    os.utime(entry.path / ".lock", (LONG_AGO, LONG_AGO))
    radiffuse.cache(cache=str(cache), delete="unused")
    assert not list(held(cache))
    assert (cache / "splits" / "a.json").is_file()
    use(cache.parent)
    assert [again.path for again in held(cache)] == [entry.path]


def test_what_was_used_stays(cache: Path) -> None:
    use(cache.parent)
    radiffuse.cache(cache=str(cache), delete="unused")
    assert len(list(held(cache))) == 1
    radiffuse.cache(cache=str(cache), delete="all")
    assert not list(held(cache))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        radiffuse.cache(cache=str(tmp_path / "none"))
