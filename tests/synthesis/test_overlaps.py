"""Names by overlap: sets of greatest Dice against all sets, and counts by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from radiffuse.synthesis.overlaps import (
    dice_of_names,
    matched_across,
    name_by_overlap,
    overlap_of,
)


def test_overlaps_by_hand() -> None:
    """Two segments and outside, two classes; a voxel to be ignored and one of an unknown class are left out."""
    segments = np.array([[0, 1, 1, 1], [2, 2, 2, 0]], np.uint8)
    label = np.array([[0, 1, 1, 255], [0, 1, 7, 1]], np.uint8)
    found = overlap_of(segments, label, 2, 2, voxel=0.5)
    assert found.tolist() == [[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]]


def test_a_class_gets_the_set_of_segments_with_the_greatest_dice_of_all_sets() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        overlap = rng.integers(0, 50, (7, 2)).astype(float)
        overlap[:, 0] *= 3
        names = name_by_overlap(overlap)
        assert names[0] == 0
        best = 0.0
        for picked in itertools.product((0, 1), repeat=6):
            best = max(best, dice_of_names(overlap, np.array([0, *picked]))[0])
        assert dice_of_names(overlap, names)[0] == pytest.approx(best)


def test_a_segment_that_two_classes_want_goes_to_the_one_of_which_it_holds_most() -> None:
    # Background, liver, spleen. Segment 1 is mostly liver with half of the spleen, segment 2 is fat, 3 nothing at all.
    overlap = np.array([[0, 0, 9], [5, 60, 30], [300, 2, 1], [0, 0, 0]], float)
    assert name_by_overlap(overlap).tolist() == [0, 1, 0, 0]
    liver = 2 * 60 / (95 + 62)
    dice = dice_of_names(overlap, np.array([0, 1, 0, 0]))
    assert dice == pytest.approx([liver, 0.0])
    assert name_by_overlap(overlap, least=liver).tolist() == [0, 0, 0, 0]
    assert name_by_overlap(overlap, least=liver - 0.01).tolist() == [0, 1, 0, 0]


def test_classes_that_are_nowhere_have_no_dice() -> None:
    overlap = np.array([[4, 0, 0], [1, 3, 0]], float)
    dice = dice_of_names(overlap, name_by_overlap(overlap))
    assert dice[0] == pytest.approx(6 / 7)
    assert np.isnan(dice[1])


def test_matched_names_come_from_other_patients() -> None:
    """Segments 1 and 2 mean the same in all patients but one, who is scored with the names of the others."""
    usual = np.array([[10, 0, 0], [0, 8, 0], [0, 0, 8]], float)
    swapped = usual[[0, 2, 1]]
    groups = list("abcdef")
    for odd in range(6):
        dice = matched_across([swapped if i == odd else usual for i in range(6)], groups)
        assert np.all(dice[odd] == 0)
        assert np.all(np.delete(dice, odd, 0) == 1)
    assert np.isnan(matched_across([usual, usual], ["a", "a"])).all()
