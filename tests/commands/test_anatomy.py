"""``radiffuse anatomy`` into a folder that holds something already."""

from __future__ import annotations

from pathlib import Path

import pytest

import radiffuse
from radiffuse.errors import InputError


def drawn(out: Path, **changes: object) -> None:
    radiffuse.anatomy(**{"kind": "chest", "count": 1, "size": (32, 32), "out": out} | changes)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        ({"labelled": False}, {}, "holds images that were drawn without labels. Add labelled=False,"),
        ({}, {"labelled": False}, "holds images that were drawn with labels. Leave out labelled=False"),
        ({}, {"kind": "bitewing"}, "holds images of chest, which have other classes. Choose another"),
    ],
)  # fmt: skip
def test_images_of_other_settings_are_named_and_left_alone(
    first: dict[str, object], then: dict[str, object], message: str, tmp_path: Path
) -> None:
    drawn(tmp_path / "films", **first)
    before = content(tmp_path)
    with pytest.raises(InputError, match=f"films: {message}"):
        drawn(tmp_path / "films", **then)
    assert content(tmp_path) == before
    drawn(tmp_path / "films", **first, count=2)  # the same ones go on
    assert len(content(tmp_path)) > len(before)
