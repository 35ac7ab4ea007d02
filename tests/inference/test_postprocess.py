"""Masks after the network: what is kept, and that the published recipe does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from radiffuse.cli.recipes import read_recipe
from radiffuse.cli.settings import from_values
from radiffuse.data.plan import Plan, read_plan
from radiffuse.data.scan import Array
from radiffuse.errors import InputError
from radiffuse.inference.postprocess import postprocess, structure

MUSCLE = tuple(read_recipe("recycling-ultrasound-paper")["plan"]["postprocess"])


def largest_pieces(mask: Array) -> Array:
    return postprocess(mask, ("largest",))


def muscle_ultrasound(mask: Array) -> Array:
    return postprocess(mask, MUSCLE)


def test_the_largest_piece_of_each_class_stays() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[1:4, 1:4], mask[10:18, 1:9] = 1, 1
    mask[1:9, 10:18], mask[15, 15] = 2, 2
    expected = mask.copy()
    expected[1:4, 1:4] = expected[15, 15] = 0
    assert np.array_equal(largest_pieces(mask), expected)
    assert postprocess(mask, ("none",)) is postprocess(mask, ()) is mask


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    mask[0, 3, 3] = mask[0, 3, 2] = 1
    assert largest_pieces(mask).sum() == 3


def test_the_discs_are_those_of_matlab() -> None:
    assert structure(2, 9, 2).sum(1).tolist() == [5, 7, 9, 9, 9, 9, 9, 7, 5]
    assert structure(2, 19, 4).sum(1).tolist() == [11, 13, 15, 17, *[19] * 11, 17, 15, 13, 11]


def muscle(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((160, 160), np.uint8)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = 1
    return mask


def test_holes_are_filled_specks_removed_and_the_shape_kept() -> None:
    mask = muscle((40, 120, 40, 120))
    dirty = mask.copy()
    dirty[70:75, 70:75] = 0
    dirty[5:9, 5:9] = 1
    found = muscle_ultrasound(dirty)
    assert found[72, 72] == 1
    assert found[:20, :20].sum() == 0
    overlap = 2 * (found & mask).sum() / (found.sum() + mask.sum())
    assert overlap > 0.95
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("lower", "kept"),
    [((100, 150, 10, 150), "lower"), ((100, 140, 10, 85), "upper")],
    ids=["much larger", "about as large"],
)
def test_of_two_alike_the_more_superficial_stays(
    lower: tuple[int, int, int, int], kept: str
) -> None:
    upper = (20, 60, 80, 150)  # further right: the topmost, not the leftmost, counts
    found = muscle_ultrasound(muscle(upper, lower))
    rows = np.nonzero(found)[0]
    assert (rows.max() < 80) == (kept == "upper")
    assert (rows.min() > 80) == (kept == "lower")


def test_nothing_stays_nothing() -> None:
    empty = np.zeros((40, 40), np.uint8)
    assert not muscle_ultrasound(empty).any()
    assert not largest_pieces(empty).any()


def test_the_recipe_of_the_article_step_by_step() -> None:
    """Written out with scipy, as Marzola et al. 2021 and the code of Fu et al. 2023 say."""
    from scipy import ndimage

    square, five, ten = np.ones((5, 5), bool), structure(2, 9, 2), structure(2, 19, 4)
    rng = np.random.default_rng(0)
    for share in (0.4, 0.5, 0.6):
        blurred = ndimage.gaussian_filter(rng.normal(size=(200, 220)), 9)
        mask = (blurred > np.quantile(blurred, share)).astype(np.uint8)
        region = ndimage.binary_fill_holes(mask > 0)
        region = ndimage.binary_erosion(region, square, border_value=1)
        region = ndimage.binary_dilation(region, five)
        region = ndimage.binary_erosion(region, ten, border_value=1)
        region = ndimage.binary_dilation(region, ten)
        pieces, count = ndimage.label(region, np.ones((3, 3), bool))
        assert count > 1
        sizes = np.bincount(pieces.ravel())[1:]
        second, first = np.argsort(sizes, kind="stable")[-2:] + 1
        tops = [np.nonzero(pieces == piece)[0].min() for piece in (first, second)]
        alike = sizes[second - 1] > 0.75 * sizes[first - 1]
        region = pieces == (second if alike and tops[1] < tops[0] else first)
        expected = ndimage.binary_fill_holes(region).astype(np.uint8)
        assert np.array_equal(muscle_ultrasound(mask), expected)


def test_every_class_goes_through_the_steps_for_itself() -> None:
    mask = np.zeros((30, 30), np.uint8)
    mask[2:12, 2:12], mask[2:12, 16:26] = 1, 2
    mask[6, 6], mask[6, 20] = 0, 0
    mask[25, 2] = 2
    filled = postprocess(mask, ("largest", "fill"))
    assert filled[6, 6] == 1
    assert filled[6, 20] == 2
    assert filled[25, 2] == 0


@pytest.mark.parametrize(
    "step", ["smallest", "erode", "erode:x", "largest:1", "topmost", "open:1:2:3", "erode:-1"]
)
def test_what_is_no_step_is_named(tmp_path: Path, step: str) -> None:
    given = {"data": "d", "out": "o", "postprocess": ["largest", step]}
    with pytest.raises(InputError, match=f"postprocess {step} is not legal.*topmost"):
        from_values("fit", given)
    plan = Plan(2, ("image",), ("background", "a"), (32, 32), postprocess=("largest", step))
    (tmp_path / "plan.json").write_text(plan.to_json())
    with pytest.raises(InputError, match=rf"postprocess\[1\] is {step}, not .*topmost"):
        read_plan(tmp_path / "plan.json")


def test_a_plan_of_one_step_is_read(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (32, 32), postprocess=("largest",))
    text = plan.to_json()
    (tmp_path / "plan.json").write_text(re.sub(r"\[\s+\"largest\"\s+\]", '"largest"', text))
    assert '"postprocess": "largest"' in (tmp_path / "plan.json").read_text()
    assert read_plan(tmp_path / "plan.json") == plan


def test_pieces_are_kept_by_number_and_by_volume_for_one_class() -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[1:7, 1:7], mask[1:6, 10:15], mask[1:3, 20:22] = 1, 1, 1  # 36, 25 and 4 pixels
    mask[12:14, 1:3], mask[12, 20] = 2, 2  # 4 and 1
    two = mask.copy()
    two[1:3, 20:22] = 0
    assert np.array_equal(postprocess(mask, ("1=keep:2",)), two)
    assert np.array_equal(postprocess(mask, ("1=drop:5",)), two)
    assert np.array_equal(postprocess(mask, ("1=drop:4",)), mask)
    assert np.array_equal(postprocess(mask, ("1=drop:8",), (1.5, 1.0)), two)  # 4 pixels are 6 mm²
    assert np.array_equal(postprocess(mask, ("1=drop:6",), (1.5, 1.0)), mask)
    assert np.array_equal(postprocess(mask, ("1=islands:0.008",)), two)  # 4.8 of 600 pixels
    assert np.array_equal(postprocess(mask, ("1=islands:0.006",), (1.5, 1.0)), mask)
    both = two.copy()
    both[12, 20] = 0
    assert np.array_equal(postprocess(mask, ("drop:2", "1=keep:2")), both)
    assert not postprocess(mask, ("drop:99",)).any()
