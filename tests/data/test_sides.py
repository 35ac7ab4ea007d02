"""Whether left and right may be exchanged: by the names of classes, and by where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radiffuse.config import PlanSettings
from radiffuse.data.fingerprint import ClassFacts, Fingerprint, Intensities
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import make_plan
from radiffuse.data.scan import Scan
from radiffuse.data.sides import sides
from radiffuse.data.structures import measure_case


def found(places: dict[str, tuple[float, ...]], dims: int = 2) -> Fingerprint:
    facts = tuple(
        ClassFacts(name, len(where), 0.1, 1, 1, 1, where) for name, where in places.items()
    )
    body = (Intensities(0, 0),)
    shape = (8,) * dims
    return Fingerprint(1, 1, 1, False, "px", (shape,), ((1.0,) * dims,), (shape,), body, (), facts)


def allowed(*names: str, dims: int = 2, **places: tuple[float, ...]) -> tuple[int, ...]:
    return sides(("background", *names), found(places, dims))[0]


@pytest.mark.parametrize(
    "name",
    [
        "left lung", "lung_right", "kidney_left", "KidneyR", "LeftVentricle", "L lung", "rib_l_3", "rkid", "LV",
        "linke Niere", "poumon gauche", "liver", "Spleen", "Heart", "aorta", "Gall Bladder", "liver tumor", "colon",
    ],
)  # fmt: skip
def test_a_name_with_a_side_or_of_a_lone_organ_forbids_it(name: str) -> None:
    assert allowed(name) == allowed("lung", name) == allowed(name, dims=3) == ()


@pytest.mark.parametrize(
    "name",
    ["lung", "lungs", "bright lesion", "cleft palate", "enamel", "L1", "brain", "tumor core", "effusion", "tooth"],
)  # fmt: skip
def test_other_names_permit_it_from_left_to_right(name: str) -> None:
    assert allowed(name) == (1,)
    assert allowed(name, dims=3) == (0,)


def test_a_class_that_is_always_on_the_same_side_has_one() -> None:
    assert allowed("organ x", **{"organ x": (0.2, 0.15, 0.3, 0.2, 0.25)}) == ()
    assert allowed("lesion", lesion=(0.2, -0.15, 0.3, 0.2, 0.25)) == (1,)
    assert allowed("lung", lung=(0.02, 0.03, 0.01, 0.04, 0.02)) == (1,)
    assert allowed("lesion", lesion=(0.3,)) == (1,)  # a single one may be anywhere


def test_a_name_that_says_nothing_needs_a_place_in_the_middle() -> None:
    for name in ("class-1", "label 7", "11", "tooth 36", "mask"):
        assert allowed(name, **{name: (0.02, -0.01)}) == (1,)
        assert allowed(name, **{name: (0.02, 0.3)}) == ()
        assert allowed(name) == ()
        assert allowed(name, **{name: (0.3, -0.3, 0.2, -0.2, 0.1)}) == (1,)


def test_without_classes_nothing_is_mirrored() -> None:
    assert sides((), found({}))[0] == sides(("background",), found({}))[0] == ()


@pytest.mark.parametrize("reverse", [False, True])
def test_where_a_structure_is_goes_by_the_body_and_the_orientation(reverse: bool) -> None:
    """A body from 10 to 49 along the axis to the right; the structure's center is at 41, or mirrored at 18."""
    array = np.zeros((1, 60, 20, 20), np.float32)
    array[:, 10:50] = 1 + np.random.default_rng(0).random((1, 40, 20, 20))
    label = np.zeros((1, 60, 20, 20), np.uint8)
    label[:, 40:43, 5:9, 5:9] = 1
    affine = np.diag([-2.0 if reverse else 2.0, 2.0, 2.0, 1.0])
    facts = measure_case(Scan(array, affine=affine, spacing=(2.0,) * 3), Scan(label, affine=affine))
    expected = (41 - 29.5) / 40
    assert facts.structures[1].side == pytest.approx(-expected if reverse else expected)


def test_the_plan_says_it_with_its_reason(films: Path) -> None:
    plan = make_plan(open_dataset(films), PlanSettings(size=(32,)), labelled=True)
    assert plan.mirror == (1,)
    assert plan.reasons == {"mirror": "no class has a side"}
    assert "mirror" not in plan.treatment
    blind = make_plan(open_dataset(films), PlanSettings(size=(32,)), labelled=False)
    assert (blind.mirror, blind.reasons) == ((), {})
