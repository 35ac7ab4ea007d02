"""The plan: what the fingerprint decides, what a person may edit, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout_files import volume

from radiffuse.config import Data, PlanSettings
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan, read_plan
from radiffuse.errors import InputError


def film_plan(dataset: Dataset) -> Plan:
    return make_plan(dataset, PlanSettings(size=(32,)), labelled=True)


def test_a_plan_survives_its_file_and_an_edit(films: Path, tmp_path: Path) -> None:
    plan = film_plan(open_dataset(films))
    assert plan.size == (32, 32)
    assert plan.classes[:2] == ("background", "enamel")
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json())
    assert read_plan(path) == plan
    path.write_text(plan.to_json().replace('"stretch"', '"fit"'))
    assert read_plan(path).resize == "fit"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"version": 1', '"version": 9', "version 9"),
        ('"low": 0.5', '"low": 99.9', "empty"),
        ('"spatial_dims": 2', '"spatial_dims": 3', "spatial axes"),
        ('"size"', '"siz"', "not a plan"),
        ("{", "", "not a plan"),
    ],
)
def test_a_bad_plan_is_refused(films: Path, tmp_path: Path, old: str, new: str, word: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(film_plan(open_dataset(films)).to_json().replace(old, new, 1))
    with pytest.raises(InputError, match=word):
        read_plan(path)


def test_ct_gets_a_window_in_hu(tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    write_dataset("abdomen", tmp_path, count=2, labelled=True, seed=0, size=(32, 32, 16))
    plan = make_plan(open_dataset(tmp_path), PlanSettings(), labelled=True)
    assert (plan.intensity, plan.low, plan.high) == ("window", -1350.0, 1000.0)
    assert plan.spatial_dims == 3
    assert len(plan.classes) == 14


def test_the_body_is_only_looked_for_in_ct(films: Path, tmp_path: Path) -> None:
    volume(tmp_path / "ct" / "a.nii.gz")
    plan = make_plan(open_dataset(tmp_path / "ct"), PlanSettings(crop="body"), labelled=False)
    assert plan.crop == "body"
    with pytest.raises(InputError, match=r"--plan\.crop body: finds the body in CT"):
        make_plan(open_dataset(films), PlanSettings(crop="body"), labelled=False)


def test_masks_of_0_and_255_get_a_hint(tmp_path: Path) -> None:
    from layout_files import film, film_label

    for i in range(3):
        film(tmp_path / "images" / f"{i}.png", seed=i)
        film_label(tmp_path / "masks" / f"{i}.png", values=(0, 255))
    with pytest.raises(InputError, match="--label-values 0,255"):
        make_plan(open_dataset(tmp_path), PlanSettings(size=(32,)), labelled=True)
    chosen = open_dataset(tmp_path, Data(label_values=(0, 255)))
    assert len(make_plan(chosen, PlanSettings(size=(32,)), labelled=True).classes) == 2


def test_air_is_no_body() -> None:
    ct = Plan(3, ("ct",), (), (16, 16, 16), intensity="window", low=-1350.0, high=1000.0)

    def prepared(hu: float) -> float:
        return 2 * (hu + 1350) / 2350 - 1

    assert prepared(-1000) < ct.body < prepared(-200)  # air, fat
    assert Plan(2, ("film",), (), (64, 64)).body == pytest.approx(-0.98)
    assert Plan(3, ("mr",), (), (16, 16, 16), intensity="window", low=0.0, high=9.0).body == -0.98
