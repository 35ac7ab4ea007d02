"""Post-processing is chosen class by class, and only where no left-out case suffers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radiffuse.automatic.folds import Folds
from radiffuse.automatic.refine import refine
from radiffuse.data.dataset import Case
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Array, Scan
from radiffuse.inference.postprocess import postprocess

CLASSES = ("background", "lung", "heart")


def truth() -> Array:
    """Two lungs of 200 pixels, and a heart of 100 between them."""
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 5:15] = mask[10:30, 45:55] = 1
    mask[15:25, 25:35] = 2
    return mask


def specks(mask: Array, value: int, count: int) -> Array:
    for i in range(count):
        mask[35:38, 3 + 6 * i : 6 + 6 * i] = value
    return mask


@dataclass
class Stub:
    """Segments case i as the i-th mask; its truth is the i-th, too."""

    masks: list[Array]
    truths: list[Array]
    spacings: list[tuple[float, ...] | None]
    folds: Folds = field(default_factory=lambda: Folds(()))

    def read(self, case: Case) -> tuple[Scan, Scan]:
        """The label map has no spacing of its own, as beside a DICOM film."""
        true, spacing = self.truths[int(case.name)], self.spacings[int(case.name)]
        return Scan(np.zeros((1, *true.shape), np.float32), spacing), Scan(true[None])

    def mask(self, case: Case, image: Scan) -> Array:
        return self.masks[int(case.name)]


def chosen(
    masks: list[Array],
    truths: list[Array] | None = None,
    usual: tuple[str, ...] = (),
    spacings: list[tuple[float, ...] | None] | None = None,
) -> list[str]:
    stub = Stub(masks, truths or [truth() for _ in masks], spacings or [None] * len(masks))
    found: Any = stub
    cases = [Case(str(i), (Path("x"),), group=str(i)) for i in range(len(masks))]
    plan = Plan(2, ("image",), CLASSES, (40, 60), postprocess=usual)
    steps, why = refine(found, cases, plan)
    assert not any("keep:" in said or "drop:" in said for said in why)  # words, for people
    return steps


MM = (2.0, 0.5)
"""Of a pixel; its area is 1 mm², as many as there are pixels."""


@pytest.mark.parametrize(
    ("spacings", "step"),
    [
        ([MM] * 5, "1=drop:20"),  # a tenth of the smallest lung, in mm²
        ([(2.0, 2.0)] * 5, "1=drop:80"),
        ([None] * 5, "1=islands:0.00833333"),  # of 2400 pixels
        ([MM, MM, None, MM, MM], "1=islands:0.00833333"),
    ],
)
def test_specks_go_and_both_lungs_stay(spacings: list[tuple[float, ...] | None], step: str) -> None:
    """The mildest of the steps that remove all specks."""
    steps = chosen([specks(truth(), 1, 1 + i % 2) for i in range(5)], spacings=spacings)
    assert steps == [step]
    cleaned = postprocess(specks(truth(), 1, 2), steps, spacings[0])
    assert np.array_equal(cleaned, truth())


def test_films_of_another_size_keep_their_lungs() -> None:
    """Of a film a fifth as wide, a whole lung has 8 pixels, fewer than the specks of the others."""
    steps = chosen([specks(truth(), 1, 1 + i % 2) for i in range(5)])
    small = truth()[::5, ::5]
    assert (small == 1).sum() == 2 * 8
    assert np.array_equal(postprocess(small, steps), small)


def test_specks_of_one_class_say_nothing_of_another() -> None:
    steps = chosen([specks(truth(), 2, 2) for _ in range(4)])
    assert [step.split("=")[0] for step in steps] == ["2"]


def test_a_good_mask_is_left_alone() -> None:
    assert chosen([truth() for _ in range(5)]) == []


def test_what_harms_a_single_case_is_not_taken() -> None:
    """Keeping one piece gains .05 in four cases and loses .07 in the fifth, which has two: .02 in the mean."""
    one = np.zeros((40, 60), np.uint8)
    one[10:30, 5:25] = 1
    two = one.copy()
    two[10:20, 40:46] = 1
    false = one.copy()
    false[32:36, 40:50] = 1
    truths = [one, one, one, one, two]
    assert chosen([false, false, false, false, two], truths) == []
    assert chosen([false] * 4, [one] * 4) != []


def test_with_few_cases_nothing_is_chosen() -> None:
    assert chosen([specks(truth(), 1, 2) for _ in range(2)]) == []


def test_the_usual_step_is_taken_unless_it_costs() -> None:
    """Two lungs, as in all label maps: kept where masks have no more; not where a third piece is true."""
    usual = ("1=keep:2", "2=keep:5")
    assert chosen([truth() for _ in range(4)], usual=usual) == [*usual]
    three = truth()
    three[32:38, 20:40] = 1
    assert chosen([three] * 4, [three] * 4, usual) == ["2=keep:5"]
    assert chosen([truth() for _ in range(2)], usual=usual) == [*usual]


def test_classes_of_one_step_share_a_sentence() -> None:
    """Thirteen organs whose largest piece is kept are a line, not thirteen."""
    stub: Any = Stub([truth()] * 4, [truth()] * 4, [None] * 4)
    cases = [Case(str(i), (Path("x"),), group=str(i)) for i in range(4)]
    plan = Plan(2, ("image",), CLASSES, (40, 60), postprocess=("1=keep:2", "2=keep:2"))
    _, why = refine(stub, cases, plan)
    assert [said.partition(":")[0] for said in why] == [", ".join(CLASSES[1:])]


def test_the_usual_step_goes_before_another_that_gains_as_much() -> None:
    """Specks fall to a milder step as well; but all label maps have two lungs, and the next island may be larger."""
    masks = [specks(truth(), 1, 1 + i % 2) for i in range(5)]
    assert chosen(masks, usual=("1=keep:2",)) == ["1=keep:2"]


def test_a_usual_number_beyond_those_that_are_tried() -> None:
    """Four large pieces are true, and a fifth, of 60 pixels beside their 100, is not: no other step removes it."""
    true = np.zeros((40, 60), np.uint8)
    for place in range(4):
        true[5:15, 3 + 14 * place : 13 + 14 * place] = 1
    false = true.copy()
    false[25:31, 20:30] = 1
    assert chosen([false] * 4, [true] * 4) == []
    assert chosen([false] * 4, [true] * 4, ("1=keep:4",)) == ["1=keep:4"]


def test_steps_of_a_run_to_start_from_stay() -> None:
    """They may be of any kind, and of classes that are not here: nothing is looked for beside them."""
    masks = [specks(truth(), 1, 2) for _ in range(4)]
    for usual in (("largest",), ("none",), ("1=fill", "1=keep:2"), ("9=keep:2",)):
        assert chosen(masks, usual=usual) == [*usual]
