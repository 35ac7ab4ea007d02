"""Calibration against a case worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radiffuse.evaluation.calibration import Calibration, expected_calibration_error


def test_foreground_pixels_are_counted_by_their_confidence() -> None:
    """Ten bins. Three pixels at .95 of which two are right, one at .55 that is right; the others do not count."""
    confidence = np.array([0.95, 0.95, 0.95, 0.55, 0.15, 0.95])
    mask = np.array([1, 2, 1, 2, 0, 1])
    truth = np.array(
        [1, 2, 0, 2, 0, 255]
    )  # last: background that is called so, and what is ignored
    calibration = Calibration(bins=10)
    calibration.add(confidence[:3], mask[:3], truth[:3])
    calibration.add(confidence[3:], mask[3:], truth[3:])
    table = calibration.table()
    assert table["pixels"].tolist() == [1, 3]
    assert table["low"].tolist() == pytest.approx([0.5, 0.9])
    assert table["confidence"].tolist() == pytest.approx([0.55, 0.95])
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    expected = (1 * (1 - 0.55) + 3 * (0.95 - 2 / 3)) / 4
    assert expected_calibration_error(table) == pytest.approx(expected)


def test_missed_foreground_counts_and_certainty_lies_in_the_last_bin() -> None:
    calibration = Calibration(bins=4)
    calibration.add(np.array([1.0, 1.0]), np.array([0, 0]), np.array([1, 0]))
    table = calibration.table()
    assert table["pixels"].tolist() == [1]
    assert table["accuracy"].tolist() == [0]
    assert table["high"].tolist() == [1]
    assert expected_calibration_error(table) == 1
    assert math.isnan(expected_calibration_error(Calibration().table()))
