"""What a study cannot change once it has begun: finished parts would be told as made by the new settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from radiffuse.cli.settings import from_values
from radiffuse.errors import InputError
from radiffuse.studies.augment import run_augment
from radiffuse.studies.study import run_study


class Begun(Exception):
    """A part was reached."""


def part(*_: Any) -> Any:
    raise Begun


def test_the_share_of_likely_films(classes: Path, tmp_path: Path) -> None:
    given = {"data": classes, "out": tmp_path / "out", "with_run": (str(classes),), "pools": (4,)}
    given |= {"classify": {"reader": {"cache": str(tmp_path / "cache")}}}
    for likely, ended in ((0.5, Begun), (0.5, Begun), (0.6, InputError)):
        with pytest.raises(ended, match="settings of likely" if ended is InputError else None):
            run_augment(from_values("augment", given | {"likely": likely}), part, part)


def test_pools_without_a_class_are_refused_before_any_is_trained_on(
    classes: Path, tmp_path: Path
) -> None:
    given = {"data": classes, "out": tmp_path / "out", "with_run": (str(classes),)}
    given |= {"classify": {"reader": {"cache": str(tmp_path / "cache")}}, "pools": (8, 1)}
    with pytest.raises(InputError, match="--pools 1: has no film of the class .* in draw 0"):
        run_augment(from_values("augment", given), part, part)


def test_the_number_of_pseudo_labels(films: Path, unlabelled: Path, tmp_path: Path) -> None:
    reader = {"reader": {"cache": str(tmp_path / "cache")}}
    given = {"data": films, "out": tmp_path / "out", "unlabelled": str(unlabelled), "labels": (2,)}
    given |= {"methods": ("scratch", "pseudo-labels"), "reference": "scratch"}
    given |= {"pretrain": reader, "finetune": reader | {"split": {"test": 0.4}}}
    for number, ended in ((20, Begun), (20, Begun), (30, InputError)):
        with pytest.raises(
            ended, match="settings of pseudo_labels" if ended is InputError else None
        ):
            run_study(from_values("study", given | {"pseudo_labels": number}), part, part, part)
