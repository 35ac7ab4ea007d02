"""Scores against hand-computed shapes, brute force, and MONAI's independent code."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from radiffuse.data.surfaces import surface_distances
from radiffuse.evaluation.segmentation import ClassScore, score

CLASSES = ("background", "lung")


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), np.int64)
    mask[top : top + side, left : left + side] = 1
    return mask


def one(prediction: np.ndarray, truth: np.ndarray, spacing=None, tolerance=2.0) -> ClassScore:
    return score(prediction, truth, CLASSES, spacing, tolerance)[0]


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_overlap_of_two_shifted_squares(shift: int) -> None:
    result = one(square(32, 8, 8 + shift, 10), square(32, 8, 8, 10))
    shared = 10 * (10 - shift)
    assert result.dice == pytest.approx(2 * shared / 200)
    assert result.iou == pytest.approx(shared / (200 - shared))
    assert (result.truth_voxels, result.predicted_voxels) == (100, 100)
    assert result.counted
    assert result.unit == "px"


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_surface_distance_of_two_shifted_squares(shift: int) -> None:
    # The 11 pixels of one side lie outside the other square, at the distance of the shift. No
    # surface pixel is farther away, and 11 of 40 are more than 5%.
    result = one(square(40, 8, 8 + shift, 11), square(40, 8, 8, 11))
    assert result.hd95 == pytest.approx(shift)


def test_surface_dice_counts_pixels_within_the_tolerance() -> None:
    # Of the 40 surface pixels of each square, 16 are 3 pixels from the other surface: the 11 of the
    # side that lies outside, and 5 in the middle of the side that lies inside, whose ends are
    # closer to the other square's upper and lower sides.
    a, b = square(40, 8, 11, 11), square(40, 8, 8, 11)
    assert one(a, b, tolerance=2.5).nsd == pytest.approx(24 / 40)
    assert one(a, b, tolerance=3.0).nsd == 1.0


@pytest.mark.parametrize(("axis", "millimeters"), [(0, 2.5), (1, 0.7)])
def test_distances_honor_anisotropic_spacing(axis: int, millimeters: float) -> None:
    prediction = np.roll(square(40, 8, 8, 11), 3, axis=axis)
    result = one(prediction, square(40, 8, 8, 11), spacing=(2.5, 0.7))
    assert result.unit == "mm"
    assert result.hd95 == pytest.approx(3 * millimeters)


def test_distance_equal_to_the_tolerance_is_within_it() -> None:
    prediction, truth = square(40, 8, 11, 11), square(40, 8, 8, 11)
    assert one(prediction, truth, spacing=(0.7, 0.7), tolerance=2.1).nsd == 1.0


def test_ignored_voxels_count_for_neither_mask() -> None:
    truth, prediction = square(32, 8, 8, 10), square(32, 8, 8, 10)
    prediction[20:25, 20:25] = 1
    assert one(prediction, truth).dice < 1
    truth[18:28, 18:28] = 255
    result = one(prediction, truth)
    assert (result.dice, result.iou, result.nsd, result.hd95) == (1, 1, 1, 0)
    truth[8:13, 8:13] = 255
    assert one(prediction, truth).truth_voxels == one(prediction, truth).predicted_voxels == 75


def test_both_empty_is_not_counted() -> None:
    result = one(np.zeros((8, 8), int), np.zeros((8, 8), int))
    assert not result.counted
    assert all(math.isnan(v) for v in (result.dice, result.iou, result.hd95, result.nsd))


@pytest.mark.parametrize("empty", ["prediction", "truth"])
def test_one_empty_scores_zero_and_the_diagonal(empty: str) -> None:
    mask, nothing = square(30, 4, 4, 5), np.zeros((30, 30), int)
    pair = (nothing, mask) if empty == "prediction" else (mask, nothing)
    result = one(*pair, spacing=(1.0, 4 / 3))
    assert (result.dice, result.iou, result.nsd, result.counted) == (0, 0, 0, True)
    assert result.hd95 == pytest.approx(50.0)  # 30 mm x 40 mm
    assert one(*pair).hd95 == pytest.approx(30 * math.sqrt(2))


def test_classes_are_scored_apart_and_the_background_not_at_all() -> None:
    truth = square(20, 2, 2, 5)
    truth[12:15, 12:15] = 2
    prediction = np.where(truth == 2, 0, truth)
    lung, heart = score(prediction, truth, ("background", "lung", "heart"), None)
    assert (lung.class_name, lung.dice) == ("lung", 1.0)
    assert (heart.class_name, heart.dice) == ("heart", 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prediction": np.zeros((4, 5), int)}, "equal shapes"),
        ({"spacing": (1.0,)}, "spacing"),
        ({"spacing": (1.0, 0.0)}, "spacing"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    given_ = {"prediction": np.zeros((4, 4), int), "truth": np.zeros((4, 4), int)}
    with pytest.raises(ValueError, match=message):
        score(**{**given_, "classes": CLASSES, "spacing": None, **arguments})


shapes = st.one_of(
    st.tuples(*[st.integers(2, 7)] * 2),
    st.tuples(*[st.integers(2, 4)] * 3),
)
spacings = st.sampled_from([0.5, 0.7, 1.0, 2.5])


def brute_force_surface(mask: np.ndarray) -> np.ndarray:
    points = []
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for way in (-1, 1):
                other = index.copy()
                other[axis] += way
                inside = all(0 <= i < n for i, n in zip(other, mask.shape, strict=True))
                if not (inside and mask[tuple(other)]):
                    points.append(tuple(index))
    return np.array(sorted(set(points)), dtype=float)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_distances_equal_brute_force(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    masks = hnp.arrays(bool, shape).filter(lambda m: bool(m.any()))
    predicted, true = data.draw(masks), data.draw(masks)
    step = np.array([data.draw(spacings) for _ in shape])
    a, b = brute_force_surface(predicted) * step, brute_force_surface(true) * step
    table = np.linalg.norm(a[:, None] - b[None], axis=2)
    to_true, to_predicted = surface_distances(predicted, true, step)
    np.testing.assert_allclose(np.sort(to_true), np.sort(table.min(1)), atol=1e-9)
    np.testing.assert_allclose(np.sort(to_predicted), np.sort(table.min(0)), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_scores_are_symmetric_and_bounded(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    a, b = (data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 1))) for _ in range(2))
    first, second = one(a, b), one(b, a)
    if not first.counted:
        assert not second.counted
        return
    assert first.dice == second.dice
    assert first.hd95 == pytest.approx(second.hd95)
    assert first.nsd == pytest.approx(second.nsd)
    assert 0 <= first.iou <= first.dice <= 1
    assert 0 <= first.nsd <= 1
    assert first.dice == pytest.approx(2 * first.iou / (1 + first.iou))
    assert one(a, a).dice == 1 if a.any() else True


def box(shape: tuple[int, ...], corner: tuple[int, ...], sides: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.int64)
    mask[tuple(slice(a, a + n) for a, n in zip(corner, sides, strict=True))] = 1
    return mask


def monai_scores(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...] | None, tolerance: float
) -> tuple[float, float]:
    """HD95 and surface Dice by MONAI."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    masks = [
        torch.stack([torch.from_numpy(m == 0), torch.from_numpy(m == 1)])[None].float()
        for m in (prediction, truth)
    ]
    hd95 = metrics.compute_hausdorff_distance(*masks, percentile=95, spacing=spacing)
    nsd = metrics.compute_surface_dice(*masks, class_thresholds=[tolerance], spacing=spacing)
    return float(hd95), float(nsd)


S, V = (20, 24), (9, 9, 9)
EDGE_CASES = {
    "single pixel on itself": (box(S, (4, 4), (1, 1)), box(S, (4, 4), (1, 1)), None, 2.0),
    "single pixels apart": (box(S, (4, 4), (1, 1)), box(S, (9, 4), (1, 1)), None, 2.0),
    "single pixel and a box": (box(S, (4, 4), (1, 1)), box(S, (9, 4), (5, 6)), None, 2.0),
    "anisotropic": (box(S, (4, 4), (8, 8)), box(S, (7, 4), (8, 8)), (2.5, 0.7), 2.0),
    "in a corner": (box(S, (0, 0), (8, 8)), box(S, (0, 0), (9, 8)), None, 1.0),
    "from border to border": (box(S, (0, 0), (20, 8)), box(S, (0, 0), (20, 10)), None, 1.0),
    "whole image": (box(S, (0, 0), (20, 24)), box(S, (0, 0), (20, 12)), None, 1.0),
    "whole image twice": (box(S, (0, 0), S), box(S, (0, 0), S), None, 1.0),
    "at the tolerance": (box(S, (4, 4), (8, 8)), box(S, (7, 4), (8, 8)), None, 3.0),
    "at 3 x 0.7 mm": (box(S, (4, 4), (8, 8)), box(S, (7, 4), (8, 8)), (0.7, 0.7), 2.1),
    "at a diagonal": (box(S, (4, 4), (1, 1)), box(S, (5, 5), (1, 1)), None, math.sqrt(2)),
    "single voxels": (
        box(V, (2, 2, 2), (1, 1, 1)), box(V, (4, 5, 2), (1, 1, 1)), (1.0, 2.0, 3.0), 2.0
    ),
    "volume at the border": (
        box(V, (0, 0, 0), (9, 4, 3)), box(V, (0, 0, 0), (9, 5, 3)), (1.0, 2.0, 3.0), 2.0
    ),
    "one slice": (
        box((9, 9, 1), (2, 2, 0), (4, 4, 1)), box((9, 9, 1), (3, 2, 0), (4, 4, 1)),
        (1.0, 1.0, 3.0), 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGE_CASES)
def test_monai_agrees_at_the_edges_but_for_single_precision(name: str) -> None:
    """Its distances are float32: the seventh digit differs, which is why tables are not made from them."""
    prediction, truth, spacing, tolerance = EDGE_CASES[name]
    result = one(prediction, truth, spacing, tolerance)
    hd95, nsd = monai_scores(prediction, truth, spacing, tolerance)
    assert result.hd95 == pytest.approx(hd95, rel=1e-6)
    assert result.nsd == pytest.approx(nsd, rel=1e-6)


def test_monai_has_no_distance_where_one_mask_is_empty() -> None:
    """We give the diagonal of the image, so that a method that finds nothing is not spared."""
    hd95, nsd = monai_scores(box(S, (4, 4), (5, 5)), np.zeros(S, np.int64), None, 2.0)
    assert math.isnan(hd95)
    assert nsd == 0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_monai_agrees_on_any_masks(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    masks = hnp.arrays(np.int64, shape, elements=st.integers(0, 1)).filter(lambda m: bool(m.any()))
    prediction, truth = data.draw(masks), data.draw(masks)
    spacing = tuple(data.draw(spacings) for _ in shape)
    tolerance = data.draw(st.sampled_from([0.7, 1.0, 1.4, 2.1, 2.5]))
    result = one(prediction, truth, spacing, tolerance)
    hd95, nsd = monai_scores(prediction, truth, spacing, tolerance)
    assert result.hd95 == pytest.approx(hd95, rel=1e-5, abs=1e-5)
    assert result.nsd == pytest.approx(nsd, rel=1e-6)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_few_far_voxels_do_not_make_the_distance_and_a_twelfth_of_all_does(swapped: bool) -> None:
    """A line of 45 pixels, and further ones 10 pixels away from it: 2 of 47 are below 5 %, 4 of 49 above.

    Of 49 distances the 95th percentile lies at place 45.6 from 0, where all are 10; the 90th at 43.2, where all are 0.
    The other mask is the line alone, all of it on the surface of both, so the distances the other way are 0.
    """
    for far, expected in ((2, 0.0), (4, 10.0)):
        line, more = np.zeros((2, 30, 60), int)
        line[5, 5:50] = more[5, 5:50] = 1
        more[15, 10 : 10 + far] = 1
        pair = (line, more) if swapped else (more, line)
        assert one(*pair).hd95 == expected
