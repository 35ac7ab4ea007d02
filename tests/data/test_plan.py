"""The plan: what the fingerprint decides, what a person may edit, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from layout_files import volume

from radiffuse.config import Data, PlanSettings, TrainingPlan
from radiffuse.config.values import verify_ranges
from radiffuse.data.dataset import Dataset
from radiffuse.data.fingerprint import Fingerprint, Intensities
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan, read_plan, target_spacing
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
    path.write_text(plan.to_json().replace('"fit"', '"stretch"'))
    assert read_plan(path).resize == "stretch"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"version": 1', '"version": 9', "version 9"),
        ('"low": 0.5', '"low": 99.9', "empty"),
        (
            '"postprocess": []',
            '"postprocess": ["erode"]',
            "postprocess.0. is erode, not none, largest",
        ),
        ('"crop": null', '"crop": "all"', "crop is all, not one of nonzero, body"),
        ('"spatial_dims": 2', '"spatial_dims": 3', "spatial axes"),
        ('"mirror": [\n    1\n', '"mirror": [\n    2\n', "mirror.*axes from 0 to 1"),
        ('"size"', '"siz"', "not a plan"),
        ("{", "", "not readable JSON"),
    ],
)
def test_a_bad_plan_is_refused(films: Path, tmp_path: Path, old: str, new: str, word: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(film_plan(open_dataset(films)).to_json().replace(old, new, 1))
    with pytest.raises(InputError, match=word):
        read_plan(path)


def test_how_films_are_resized_is_no_part_of_a_plan_of_volumes(tmp_path: Path) -> None:
    plan = Plan(3, ("ct",), ("background", "liver"), (16, 16, 8), (1.0, 1.0, 2.0), resize="fit")
    path, text = tmp_path / "plan.json", plan.to_json()
    assert {"grid", "resize"}.isdisjoint(json.loads(text))
    path.write_text(text)
    assert read_plan(path) == plan
    for value in ("fit", "stretch"):
        path.write_text(json.dumps(json.loads(text) | {"resize": value}))
        with pytest.raises(InputError, match=rf"plan\.json: resize {value} is for films"):
            read_plan(path)
    path.write_text(json.dumps(dataclasses.asdict(plan)))  # as earlier versions wrote it
    assert read_plan(path) == plan
    volume(tmp_path / "ct" / "a.nii.gz")
    made = make_plan(open_dataset(tmp_path / "ct"), PlanSettings(), labelled=False)
    path.write_text(made.to_json())
    assert read_plan(path) == made  # else a run that goes on would find its plan edited
    with pytest.raises(InputError, match=r"--plan\.resize.* these are volumes"):
        make_plan(open_dataset(tmp_path / "ct"), PlanSettings(resize="fit"), labelled=False)


def test_records_of_masks_know_a_plan_by_all_its_values() -> None:
    """The hash is that of the text as it was written before plans of volumes left values out, and color was one."""
    plan = Plan(3, ("ct",), (), (16, 16, 8), (1.0, 1.0, 2.0))
    values = dataclasses.asdict(plan)
    assert values.pop("colored") is None
    text = json.dumps(values, indent=2) + "\n"
    assert plan.digest == hashlib.sha256(text.encode()).hexdigest()
    assert plan.digest != dataclasses.replace(plan, low=1.0).digest


def test_a_plan_from_before_it_said_how_busy_the_machine_was_reads_and_is_known(
    tmp_path: Path,
) -> None:
    training = TrainingPlan(
        network=None, batch_size=2, micro_batch=2, steps=9, precision="32-true",
        checkpoint_activations=False, compile=False, minutes=1.0, memory_gib=1.0,
    )  # fmt: skip
    plan = Plan(2, ("image",), ("air", "lung"), (64, 48), training=training)
    values = json.loads(plan.to_json())
    assert values["training"].pop("slowed") == 1
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(values))
    assert read_plan(path) == plan
    del values["colored"]
    before = hashlib.sha256((json.dumps(values, indent=2) + "\n").encode()).hexdigest()
    slow = dataclasses.replace(plan, training=dataclasses.replace(training, slowed=2.0))
    assert slow.digest == plan.digest == before


def test_ct_gets_a_window_in_hu(tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    write_dataset("abdomen", tmp_path, count=2, labelled=True, seed=0, size=(32, 32, 16))
    plan = make_plan(open_dataset(tmp_path), PlanSettings(), labelled=True)
    assert plan.intensity == "window"
    assert -1000 < plan.low < 0 < plan.high < 500  # organs with their gas, not compact bone
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


def fingerprint(**changes: object) -> Fingerprint:
    values = Intensities(-100.4, 240.2)
    spacings = ((0.8, 0.8, 5.0),) * 9 + ((0.8, 0.8, 1.5),) * 2
    whole: dict[str, object] = {
        "cases": 11,
        "labelled": 11,
        "channels": 1,
        "ct": True,
        "unit": "mm",
        "shapes": ((512, 512, 60),) * 11,
        "spacings": spacings,
        "bodies": ((400, 300, 60),) * 11,
        "body": (Intensities(-950.5, 900.0),),
        "foreground": (values,),
    }
    return Fingerprint(**(whole | changes))  # type: ignore[arg-type]


def test_spacings_windows_and_percentiles_have_so_many_numbers() -> None:
    """One spacing is that of each axis; whatever else does not fit is refused before anything is read."""
    assert PlanSettings(spacing=(2.0,)).spacing == (2.0,) * 3
    for name, values in (
        ("spacing", (1.0, 2.0)),
        ("window", (100.0,)),
        ("percentiles", (1.0, 5.0, 99.0)),
    ):
        with pytest.raises(InputError, match=rf"^--plan.{name} 1.* takes [23] numbers, not [123]"):
            verify_ranges(PlanSettings(**{name: values}), "plan.")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"spacing 0 is out of range"):
        verify_ranges(PlanSettings(spacing=(0.0, 1.0, 1.0)), "plan.")


def test_thick_slices_take_the_tenth_percentile_as_in_nnunet() -> None:
    found = fingerprint()
    assert found.spacing == (0.8, 0.8, 5.0)
    assert target_spacing(found) == (0.8, 0.8, 1.5)
    many = fingerprint(shapes=((150, 150, 60),) * 11)  # as many slices as a third of the columns
    assert target_spacing(many) == (0.8, 0.8, 5.0)
    thin = fingerprint(spacings=((0.8, 0.8, 2.0),) * 11)
    assert target_spacing(thin) == (0.8, 0.8, 2.0)
    finer = fingerprint(spacings=((0.8, 0.8, 5.0),) * 8 + ((0.8, 0.8, 0.5),) * 3)
    assert target_spacing(finer) == (0.8, 0.8, 0.8)


def test_the_window_is_that_of_the_foreground_else_of_the_body(tmp_path: Path) -> None:
    volume(tmp_path / "a.nii.gz")
    dataset = open_dataset(tmp_path)
    plan = make_plan(dataset, PlanSettings(), labelled=False, found=fingerprint())
    assert (plan.intensity, plan.low, plan.high) == ("window", -101, 241)
    plan = make_plan(dataset, PlanSettings(), labelled=False, found=fingerprint(foreground=()))
    assert (plan.low, plan.high) == (-951, 900)
    given = PlanSettings(window=(-160.0, 240.0))
    assert make_plan(dataset, given, labelled=False, found=fingerprint()).low == -160
    plan = make_plan(dataset, PlanSettings(), labelled=False, found=fingerprint(ct=False))
    assert (plan.intensity, plan.low, plan.high) == ("percentiles", 0.5, 99.5)


def test_percentiles_of_an_edited_plan_are_percentiles(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16), low=-1000.0, high=400.0)
    (tmp_path / "plan.json").write_text(plan.to_json())
    with pytest.raises(InputError, match=r"plan\.json: .*percentiles -1000\.0 to 400\.0 are not"):
        read_plan(tmp_path / "plan.json")
