"""The corruptions of Models Genesis: what each keeps and what it changes."""

from __future__ import annotations

import numpy as np
import pytest

from radiffuse.data import corruption
from radiffuse.data.corruption import bend, corrupt, paint_inside, paint_outside, shuffle


def image(dims: int, seed: int = 99) -> np.ndarray:
    shape = (2, *(24, 20, 16)[:dims])
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("dims", [2, 3])
def test_it_stays_in_range_and_replays_from_its_seed(dims: int) -> None:
    source = image(dims) * 2 - 1
    before = source.copy()
    for seed in range(20):
        result = corrupt(source, np.random.default_rng(seed))
        assert result.shape == source.shape
        assert result.dtype == np.float32
        assert -1 <= result.min() <= result.max() <= 1
        assert np.array_equal(result, corrupt(source, np.random.default_rng(seed)))
    assert np.array_equal(source, before)


def test_bending_is_monotone_and_keeps_the_ends() -> None:
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[None]
    falls = 0
    for seed in range(40):
        steps = np.diff(bend(ramp, np.random.default_rng(seed))[0])
        falls += bool((steps <= 0).all())
        assert (steps >= 0).all() or (steps <= 0).all()
        ends = bend(ramp, np.random.default_rng(seed))[0, [0, -1]]
        np.testing.assert_allclose(np.sort(ends), [0, 1], atol=1e-6)
    assert 10 < falls < 30


@pytest.mark.parametrize("dims", [2, 3])
def test_shuffling_moves_pixels_by_less_than_a_window(dims: int) -> None:
    # Each channel holds the coordinate along an axis, so that its change is a distance.
    shape = (40, 30, 20)[:dims]
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")).astype(np.float32)
    moved = np.abs(shuffle(places, np.random.default_rng(0)) - places)
    assert (moved.sum(0) > 0).mean() > 0.2
    for axis, n in enumerate(shape):
        assert moved[axis].max() < max(2, n // 10)


@pytest.mark.parametrize("dims", [2, 3])
def test_painting_leaves_the_rest_as_it_was(dims: int) -> None:
    source = image(dims)
    size = source[0].size
    for seed in range(10):
        inside = paint_inside(source, np.random.default_rng(seed))
        outside = paint_outside(source, np.random.default_rng(seed))
        kept_inside = (inside == source).all(0).sum() / size
        kept_outside = (outside == source).all(0).sum() / size
        assert 0 < 1 - kept_inside < corruption.PAINTED / 3**dims + 0.05
        assert 3**dims / 7**dims * 0.9 < kept_outside < 0.99
