"""A mask comes back on exactly its scan's grid, whatever its axes, spacing and orientation."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from radiffuse.config import IGNORE
from radiffuse.data.body import content_box
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Array, Scan, canonical_spacing, resampled_shape
from radiffuse.data.transform import (
    image_to_plan,
    label_to_plan,
    map_to_scan,
    scores_to_scan,
)
from radiffuse.errors import InputError

CLASSES = ("background", "a", "b")
ORIENTATIONS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))
)


def affine_of(order: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> Array:
    """File axis i runs along the world axis ``order[i]``."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * spacing[axis]
    affine[:3, 3] = (-31.0, 12.5, 400.0)
    return affine


def one_hot(label: Array) -> torch.Tensor:
    whole = torch.from_numpy(label.astype(np.int64))
    counted = whole.masked_fill(whole == IGNORE, 0)
    return torch.nn.functional.one_hot(counted, len(CLASSES)).movedim(-1, 0).float()


def markers(shape: tuple[int, ...]) -> Array:
    """A label map that no flip and no permutation leaves as it is."""
    label = np.zeros(shape, np.uint8)
    label[: shape[0] // 2, : shape[1] // 3, shape[2] // 4 :] = 1
    label[shape[0] // 2 :, shape[1] // 2 :, : shape[2] // 2] = 2
    return label


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_volume_at_the_plans_spacing_comes_back_voxel_for_voxel(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    target = (1.5, 0.75, 2.0)
    spacing = tuple(target[world] for world in order)
    label = markers((10, 9, 8))
    scan = Scan(label[None], spacing, affine_of(order, signs, spacing))
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), target)
    planned = label_to_plan(scan, plan)
    assert planned.shape == tuple(label.shape[order.index(world)] for world in range(3))
    _, undo = image_to_plan(scan, plan)
    mask, score = scores_to_scan(one_hot(planned), undo)
    assert np.array_equal(mask, label)
    assert score.shape == label.shape


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_orientations_of_one_body_look_alike(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    target = (1.0, 2.0, 3.0)
    body = markers((10, 9, 8)).astype(np.float32)  # on right, anterior, superior axes
    stored = body[tuple(slice(None, None, signs[order.index(w)]) for w in range(3))]
    stored = stored.transpose(order)
    spacing = tuple(target[world] for world in order)
    scan = Scan(np.ascontiguousarray(stored)[None], spacing, affine_of(order, signs, spacing))
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), target, intensity="window", low=0, high=2)
    assert canonical_spacing(scan) == target
    np.testing.assert_allclose(image_to_plan(scan, plan)[0][0], body - 1, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 14)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 4.0)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_any_volume_gets_a_mask_of_its_own_shape(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    orientation: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    scan = Scan(np.ones((1, *shape), np.int16), spacing, affine_of(*orientation, spacing))
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), (1.3, 1.7, 0.9), intensity="window", high=2)
    image, undo = image_to_plan(scan, plan)
    assert image.shape[1:] == resampled_shape(scan, (1.3, 1.7, 0.9)) == undo.inner
    scores = torch.zeros(3, *image.shape[1:])
    scores[2] = 1
    mask, score = scores_to_scan(scores, undo)
    assert mask.shape == score.shape == shape
    assert (mask == 2).all()


def test_an_oblique_volume_keeps_its_axes() -> None:
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] @= np.diag((-1.5, 1.5, 3.0))
    label = markers((12, 10, 8))
    scan = Scan(label[None], (1.5, 1.5, 3.0), affine)
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), (1.5, 1.5, 3.0))
    planned = label_to_plan(scan, plan)
    assert np.array_equal(planned, label[::-1])
    mask, _ = scores_to_scan(one_hot(planned), image_to_plan(scan, plan)[1])
    assert np.array_equal(mask, label)


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (33, 64), (64, 64), (7, 200), (1, 5)])
@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_a_film_gets_a_mask_of_its_own_shape(shape: tuple[int, int], resize: str) -> None:
    film = np.linspace(0, 255, np.prod(shape)).reshape(1, *shape).astype(np.uint8)
    plan = Plan(2, ("image",), CLASSES, (32, 48), resize=resize)  # type: ignore[arg-type]
    image, undo = image_to_plan(Scan(film), plan)
    assert image.shape == (1, 32, 48)
    assert image.dtype == np.float32
    assert -1 <= image.min() <= image.max() <= 1
    mask, score = scores_to_scan(torch.eye(3)[1][:, None, None].expand(3, 32, 48), undo)
    assert mask.shape == score.shape == shape
    assert (mask == 1).all()


def test_fitting_keeps_the_aspect_and_does_not_count_the_padding() -> None:
    film = np.full((1, 20, 40), 100, np.uint8)
    film[0, :, 20:] = 200
    plan = Plan(2, ("image",), CLASSES, (32, 32), resize="fit")
    image, undo = image_to_plan(Scan(film), plan)
    assert undo.inner == (16, 32)
    assert undo.offset == (8, 0)
    assert (image[0, :8] == -1).all()
    assert (image[0, 24:] == -1).all()
    np.testing.assert_allclose(image[0, 8:24, 20:], 1, atol=1e-6)
    label = label_to_plan(Scan((film > 150).astype(np.uint8)), plan)
    assert (label[:8] == IGNORE).all()
    assert (label[24:] == IGNORE).all()
    assert (label[8:24, 16:] == 1).all()
    assert (label[8:24, :16] == 0).all()


def test_what_is_ignored_stays_ignored() -> None:
    label = np.zeros((1, 40, 40), np.uint8)
    label[0, :20] = IGNORE
    label[0, 20:, 20:] = 2
    planned = label_to_plan(Scan(label), Plan(2, ("image",), CLASSES, (20, 20)))
    assert (planned[:9] == IGNORE).all()
    assert set(np.unique(planned)) == {0, 2, IGNORE}
    assert (planned[11:, 11:] == 2).all()


def test_a_window_is_mapped_and_clipped() -> None:
    volume = np.array([-2000, -1000, 0, 1000, 5000], np.int16).reshape(1, 5, 1, 1)
    plan = Plan(3, ("CT",), (), (8, 8, 8), (1, 1, 1), intensity="window", low=-1000, high=1000)
    image, _ = image_to_plan(Scan(volume, (1.0, 1.0, 1.0), np.eye(4)), plan)
    assert image.ravel().tolist() == [-1, -1, 0, 1, 1]


def test_percentiles_are_each_channels_own() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(0, 1, (2, 16, 16)).astype(np.float32)
    array[1] = array[1] * 1000 + 7000
    image, _ = image_to_plan(Scan(array), Plan(2, ("t1", "t2"), (), (16, 16)))
    for channel, source in zip(image, array, strict=True):
        low, high = np.percentile(source, (0.5, 99.5))
        expected = np.clip((source - low) / (high - low) * 2 - 1, -1, 1)
        np.testing.assert_allclose(channel, expected, atol=1e-4)


def test_shrinking_averages_instead_of_picking() -> None:
    film = np.zeros((1, 64, 64), np.float32)
    film[0, ::2] = 1.0  # stripes of one pixel
    plan = Plan(2, ("image",), (), (16, 16), intensity="window", low=0, high=1)
    image, _ = image_to_plan(Scan(film), plan)
    assert np.abs(image[:, 2:-2]).max() < 0.1
    volume = np.broadcast_to(film[0][:, :, None], (64, 64, 16))[None]
    plan = Plan(3, ("CT",), (), (8, 8, 8), (4, 4, 1), intensity="window", low=0, high=1)
    image, _ = image_to_plan(Scan(volume, (1.0, 1.0, 1.0), np.eye(4)), plan)
    assert image.shape == (1, 16, 16, 16)
    assert np.abs(image[:, 2:-2]).max() < 0.1


def test_the_scan_is_left_as_it_was() -> None:
    film = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    before = film.copy()
    image_to_plan(Scan(film), Plan(2, ("image",), (), (8, 8)))
    assert np.array_equal(film, before)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_what_is_cropped_comes_back_where_it_was(
    order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    spacing = (1.0, 1.5, 2.0)
    label = np.zeros((14, 12, 11), np.uint8)
    label[3:11, 2:11, 4:10] = markers((8, 9, 6))
    image = np.zeros((2, *label.shape), np.int16)
    image[0, 3:11, 2:11, 4:9] = 5
    image[1, 3:11, 2:11, 5:10] = -7  # the box is that of both channels
    affine = affine_of(order, signs, spacing)
    placed = tuple(spacing[order.index(world)] for world in range(3))
    plan = Plan(3, ("a", "b"), CLASSES, (8, 8, 8), placed, crop="nonzero")
    planned, undo = image_to_plan(Scan(image, spacing, affine), plan)
    assert sorted(planned.shape[1:]) == [6, 8, 9]
    found = label_to_plan(Scan(label[None], spacing, affine), plan, undo)
    mask, score = scores_to_scan(one_hot(found), undo)
    assert np.array_equal(mask, label)
    assert score.shape == label.shape
    assert (score == 1).all()
    inside = np.zeros(label.shape)
    inside[3:11, 2:11, 4:10] = 1
    assert np.array_equal(map_to_scan(torch.ones(planned.shape[1:]), undo), inside)


def test_a_body_is_cropped_without_its_table() -> None:
    """An ellipse with a lung in it, and under it a table that is one pixel thin and does not touch."""
    x, y = np.meshgrid(np.arange(60), np.arange(50), indexing="ij")
    ellipse = ((x - 30) / 20) ** 2 + ((y - 28) / 12) ** 2 <= 1
    slices = np.full((60, 50), -1000, np.int16)
    slices[ellipse] = 40
    slices[25:30, 25:30] = -900
    slices[5:55, 10] = 300
    image = np.repeat(slices[:, :, None], 8, axis=2)
    image[2:5, 45:48, 3] = 50  # a tube
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), (1.0, 1.0, 1.0), crop="body")
    planned, undo = image_to_plan(Scan(image[None], (1.0, 1.0, 1.0), np.eye(4)), plan)
    assert undo.box == np.s_[10:51, 16:41, 0:8]
    assert planned.shape == (1, 41, 25, 8)
    label = np.zeros(image.shape, np.uint8)
    label[20:40, 20:40, 2:6] = 1
    found = label_to_plan(Scan(label[None], (1.0, 1.0, 1.0), np.eye(4)), plan, undo)
    assert np.array_equal(scores_to_scan(one_hot(found), undo)[0], label)


def test_the_box_of_a_body_loses_none_of_it() -> None:
    """A large scan is looked at on a coarse grid; the box must hold every voxel of the body all the same."""
    generator = np.random.default_rng(0)
    for _ in range(5):
        first = generator.integers(5, (90, 90, 20))
        last = first + generator.integers(15, 200, 3)
        image = np.full((1, 300, 310, 40), -1000, np.int16)
        inside = tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        image[(0, *inside)] = 0
        box = content_box(image, "body")
        assert box is not None
        for side, a, b, n in zip(box, first, last, (300, 310, 40), strict=True):
            assert a - 3 < side.start <= a
            assert min(b, n) <= side.stop < min(b, n) + 3


def test_both_legs_are_the_body() -> None:
    image = np.full((1, 60, 30, 10), -1000, np.int16)
    image[0, 5:25, 8:20] = 0
    image[0, 40:55, 5:15] = 0
    assert content_box(image, "body") == np.s_[5:55, 5:20, 0:10]


def test_a_body_that_fills_the_scan_or_is_not_there() -> None:
    assert content_box(np.zeros((1, 20, 20, 3)), "body") == np.s_[0:20, 0:20, 0:3]
    assert content_box(np.full((1, 20, 20, 3), -1000), "body") is None


def test_a_film_is_cropped_and_fitted() -> None:
    film = np.zeros((1, 40, 30), np.uint8)
    film[0, 10:30, 5:25] = 200
    plan = Plan(2, ("image",), CLASSES, (16, 32), resize="fit", crop="nonzero")
    _, undo = image_to_plan(Scan(film), plan)
    assert undo.box == np.s_[10:30, 5:25]
    assert undo.inner == (16, 16)
    mask, _ = scores_to_scan(torch.stack([torch.zeros(16, 32), torch.ones(16, 32)]), undo)
    assert np.array_equal(mask, film[0] // 200)
    empty, undo = image_to_plan(Scan(np.zeros((1, 40, 30), np.uint8)), plan)
    assert undo.box is None
    assert empty.shape == (1, 16, 32)


def test_a_film_has_the_window_of_its_plan() -> None:
    """Gray values of 0, 50, 100, 150 and 250 in a window from 50 to 150; every film is mapped alike."""
    film = np.repeat(np.uint8([[0, 50, 100, 150, 250, 125, 75, 0]]), 8, axis=0)[None]
    plan = Plan(2, ("image",), CLASSES, (8, 8), intensity="window", low=50, high=150)
    found, _ = image_to_plan(Scan(film), plan)
    assert np.allclose(found[0], [[-1, -1, 0, 1, 1, 0.5, -0.5, -1]] * 8, atol=1e-3)


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_a_film_label_comes_back_on_its_own_grid(resize: str) -> None:
    label = np.zeros((1, 90, 60), np.uint8)
    label[0, 20:70, 10:40] = 1
    plan = Plan(2, ("image",), ("background", "box"), (64, 64), resize=resize)  # type: ignore[arg-type]
    image, undo = image_to_plan(Scan(label * 200), plan)
    assert image.shape == (1, 64, 64)
    planned = torch.from_numpy(label_to_plan(Scan(label), plan).astype(np.int64))
    scores = torch.nn.functional.one_hot(planned.masked_fill(planned == IGNORE, 0), 2).movedim(
        -1, 0
    )
    mask, _ = scores_to_scan(scores.float(), undo)
    assert mask.shape == (90, 60)
    overlap = 2 * (mask * label[0]).sum() / (mask.sum() + label.sum())
    assert overlap > 0.95


def test_colors_become_gray_and_a_constant_film_is_dark() -> None:
    plan = Plan(2, ("image",), (), (16, 16))
    color = np.zeros((3, 16, 16), np.uint8)
    color[1, :, 8:] = 200
    image, _ = image_to_plan(Scan(color), plan)
    assert image.shape == (1, 16, 16)
    assert image[0, 0, 0] == -1
    assert image[0, 0, -1] == 1
    constant, _ = image_to_plan(Scan(np.full((1, 16, 16), 7, np.uint8)), plan)
    assert (constant == -1).all()


# -------------------------------------------------------------------------- resampling, against closed forms

ASKEW = ((2, 0, 1), (-1, 1, -1), (0.7, 1.3, 2.5))
"""World axis and sign along each axis of the file, and mm per voxel."""
COARSE = (1.9, 1.6, 1.1)
FINE = (1.7, 0.6, 0.9)


def turned(degrees: float) -> Array:
    """The affine of ``ASKEW``, turned about two axes."""
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    about_z, about_x = np.eye(4), np.eye(4)
    about_z[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    about_x[1:3, 1:3] = [[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]]
    return about_z @ about_x @ affine_of(*ASKEW)


def world_of_plan(shape: tuple[int, ...], planned: tuple[int, ...], affine: Array) -> Array:
    """Where the voxels of the plan's grid lie, in mm, ``(3, *planned)``: both grids fill the same box.

    The center of voxel j of m is at (j + 1/2) / m of the box, so at (j + 1/2) n / m - 1/2 in voxels of the file.
    """
    order, signs, _ = ASKEW
    index = np.empty((3, *planned))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        n, m = shape[axis], planned[world]
        place = (np.arange(m) + 0.5) * n / m - 0.5
        place = place if sign > 0 else n - 1 - place
        index[axis] = place.reshape([-1 if i == world else 1 for i in range(3)])
    return np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("spacing", [COARSE, FINE, (1.3, 2.5, 0.7)])
def test_a_ramp_stays_the_same_ramp_in_space(degrees: float, spacing: tuple[float, ...]) -> None:
    """Smoothing and linear interpolation leave a linear function alone, so any shift of the grid shows."""
    shape, affine = (45, 31, 23), turned(degrees)
    index = np.indices(shape)
    world = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3].reshape(3, 1, 1, 1)

    def ramp(place: Array) -> Array:
        return 0.003 * place[0] - 0.002 * (place[1] - 12) + 0.004 * (place[2] - 400)

    volume = ramp(world).astype(np.float32)[None]
    plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), spacing, intensity="window", low=-1, high=1)
    image, undo = image_to_plan(Scan(volume, ASKEW[2], affine), plan)
    expected = ramp(world_of_plan(shape, image.shape[1:], affine))
    inner = (slice(3, -3),) * 3
    np.testing.assert_allclose(image[0][inner], expected[inner], atol=1e-4)
    back = map_to_scan(torch.from_numpy(image[0]), undo)
    inner = (slice(9, -9), slice(6, -6), slice(5, -5))
    np.testing.assert_allclose(back[inner], volume[0][inner], atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("spacing", [COARSE, FINE])
def test_a_ball_stays_in_its_place(degrees: float, spacing: tuple[float, ...]) -> None:
    """A ball near one corner: its center and volume on the plan's grid, and on the scan's own again."""
    shape, affine, radius = (57, 35, 19), turned(degrees), 11.0
    center = affine[:3, :3] @ (17.3, 23.6, 7.7) + affine[:3, 3]

    def inside(world: Array) -> Array:
        return ((world - center.reshape(3, 1, 1, 1)) ** 2).sum(0) < radius**2

    world = np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    label = inside(world).astype(np.uint8)
    scan = Scan(label[None], ASKEW[2], affine)
    plan = Plan(3, ("CT",), ("background", "ball"), (8, 8, 8), spacing)
    planned = label_to_plan(scan, plan)
    grid = world_of_plan(shape, planned.shape, affine)
    assert np.abs(grid[:, planned == 1].mean(1) - center).max() < 0.2  # mm
    assert (planned == 1).mean() == pytest.approx(label.mean(), rel=0.05)
    scores = one_hot(planned)[:2]
    mask, _ = scores_to_scan(scores, image_to_plan(scan, plan)[1])
    assert np.abs(world[:, mask == 1].mean(1) - center).max() < 0.2
    assert 2 * (mask * label).sum() / (mask.sum() + label.sum()) > 0.95


@pytest.mark.parametrize("size", [(70, 51), (70, 33), (23, 51)])
def test_a_ramp_on_a_film_stays_where_it_is(size: tuple[int, int]) -> None:
    rows, columns = 47, 35
    film = (0.02 * np.arange(rows)[:, None] - 0.01 * np.arange(columns)).astype(np.float32)[None]
    plan = Plan(2, ("image",), (), size, intensity="window", low=-1, high=1)
    image, undo = image_to_plan(Scan(film), plan)
    i = (np.arange(size[0]) + 0.5) * rows / size[0] - 0.5
    j = (np.arange(size[1]) + 0.5) * columns / size[1] - 0.5
    inner = (slice(2, -2),) * 2
    # Going down, the filter's few taps are not quite symmetric: a twentieth of a pixel.
    expected = 0.02 * i[:, None] - 0.01 * j
    np.testing.assert_allclose(image[0][inner], expected[inner], atol=0.001)
    back = map_to_scan(torch.from_numpy(expected.astype(np.float32)), undo)
    inner = (slice(3, -3),) * 2
    np.testing.assert_allclose(back[inner], film[0][inner], atol=1e-5)


def test_films_are_shrunk_as_pillow_shrinks_them() -> None:
    from PIL import Image

    film = np.random.default_rng(0).uniform(-1, 1, (61, 90)).astype(np.float32)
    plan = Plan(2, ("image",), (), (24, 17), intensity="window", low=-1, high=1)
    expected = Image.fromarray(film).resize((17, 24), Image.Resampling.BILINEAR)
    image = image_to_plan(Scan(film[None]), plan)[0][0]
    np.testing.assert_allclose(image, np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 4])
def test_volumes_are_smoothed_by_half_of_what_they_shrink(axis: int, factor: int) -> None:
    """An edge, after a Gaussian of (factor - 1) / 2 voxels and the mean of the two voxels in the middle.

    The width is the one that scikit-image and MONAI document for their anti-aliasing.
    """
    edge = np.where(np.arange(64) < 32, 0.0, 1.0).astype(np.float32)
    shape = [64 if i == axis else 8 for i in range(3)]
    volume = np.broadcast_to(edge.reshape([-1 if i == axis else 1 for i in range(3)]), shape)
    spacing = tuple(float(factor) if i == axis else 1.0 for i in range(3))
    plan = Plan(3, ("CT",), (), (8, 8, 8), spacing, intensity="window", low=0, high=1)
    image, _ = image_to_plan(Scan(volume[None].copy(), (1.0, 1.0, 1.0), np.eye(4)), plan)
    found = (np.moveaxis(image[0], axis, 0)[:, 3, 3] + 1) / 2

    sigma, reach = (factor - 1) / 2, np.arange(-20, 21)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    weights /= weights.sum()
    smooth = [
        sum(w for w, k in zip(weights, reach, strict=True) if place + k >= 32)
        for place in range(64)
    ]
    first = (np.arange(64 // factor) * factor + factor // 2 - 1).tolist()
    expected = [(smooth[place] + smooth[place + 1]) / 2 for place in first]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_tie_goes_to_the_lower_label(dims: int) -> None:
    """Two classes meet in the middle of the fifth of nine planned voxels: half of it is of either."""
    for low, high in ((0, 2), (1, 2), (2, 1)):
        label = np.full((18, *(8,) * (dims - 1)), low, np.uint8)
        label[9:] = high
        plan = Plan(2, ("image",), CLASSES, (9, 8))
        if dims == 3:
            plan = Plan(3, ("CT",), CLASSES, (8, 8, 8), (2.0, 1.0, 1.0))
        affine = np.eye(4) if dims == 3 else None
        planned = label_to_plan(Scan(label[None], (1.0,) * dims, affine), plan)
        lines = planned.reshape(9, -1)
        assert (lines[:4] == low).all()
        assert (lines[4] == min(low, high)).all()
        assert (lines[5:] == high).all()


def test_equal_scores_go_to_the_lower_class_as_with_argmax() -> None:
    film = np.zeros((1, 8, 8), np.uint8)
    _, undo = image_to_plan(Scan(film), Plan(2, ("image",), CLASSES, (8, 8)))
    scores = np.random.default_rng(0).integers(0, 3, (3, 8, 8)).astype(np.float32)
    mask, best = scores_to_scan(torch.from_numpy(scores), undo)
    assert np.array_equal(mask, scores.argmax(0))
    assert np.array_equal(best, scores.max(0))


def test_gray_is_what_pillow_makes_of_colors() -> None:
    from PIL import Image

    color = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    gray = np.asarray(Image.fromarray(color).convert("L"), np.float32)
    plan = Plan(2, ("image",), (), (16, 16), intensity="window", low=0, high=255)
    image, _ = image_to_plan(Scan(np.moveaxis(color, -1, 0)), plan)
    np.testing.assert_allclose((image[0] + 1) / 2 * 255, gray, atol=1)


def test_the_resampled_shape_is_the_nearest_one() -> None:
    scan = Scan(np.zeros((1, 11, 9, 5)), (1.0, 1.0, 1.0), np.eye(4))
    assert resampled_shape(scan, (0.8, 0.8, 0.8)) == (14, 11, 6)  # 13.75, 11.25, 6.25
    assert resampled_shape(scan, (1.2, 1.2, 20.0)) == (9, 8, 1)  # 9.17, 7.5, 0.25


def test_films_have_a_window_and_no_body_without_hu() -> None:
    film = np.zeros((16, 16), np.uint8)
    film[4:12, 4:12] = 150
    plan = Plan(2, ("image",), CLASSES, (16, 16), intensity="window", low=100.0, high=200.0)
    assert set(np.unique(image_to_plan(Scan(film[None]), plan)[0])) == {-1.0, 0.0}
    body = dataclasses.replace(plan, crop="body")
    with pytest.raises(InputError, match=r"plan\.json: .*crop body, which is found by HU"):
        image_to_plan(Scan(film[None]), body)
    slice_of_ct = np.where(film == 0, -1000, 40).astype(np.int16)
    _, undo = image_to_plan(Scan(slice_of_ct[None], unit="HU"), body)
    assert undo.box == (slice(4, 12), slice(4, 12))
