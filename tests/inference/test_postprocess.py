"""Masks after the network: what is kept, and that the published recipe does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from radiffuse.inference.postprocess import largest_pieces, muscle_ultrasound, octagon, postprocess


def test_the_largest_piece_of_each_class_stays() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[1:4, 1:4], mask[10:18, 1:9] = 1, 1
    mask[1:9, 10:18], mask[15, 15] = 2, 2
    expected = mask.copy()
    expected[1:4, 1:4] = expected[15, 15] = 0
    assert np.array_equal(largest_pieces(mask), expected)
    assert np.array_equal(postprocess(mask, "largest"), expected)
    assert postprocess(mask, "none") is mask


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    mask[0, 3, 3] = mask[0, 3, 2] = 1
    assert largest_pieces(mask).sum() == 3


def test_the_discs_are_those_of_matlab() -> None:
    assert octagon(9, 2).sum(1).tolist() == [5, 7, 9, 9, 9, 9, 9, 7, 5]
    assert octagon(19, 4).sum(1).tolist() == [11, 13, 15, 17, *[19] * 11, 17, 15, 13, 11]


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
