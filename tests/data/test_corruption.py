"""The corruptions of Models Genesis: what each keeps and what it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radiffuse.config import Augmentation
from radiffuse.data import corruption
from radiffuse.data.batches import Batch, Batches
from radiffuse.data.corruption import (
    CorruptedBatches,
    bend,
    corrupt,
    paint_inside,
    paint_outside,
    shuffle,
)
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.data.prepare import prepare
from radiffuse.train.random import StepRandom


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


def test_a_batch_brings_corrupted_copies_of_its_images(unlabelled: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("image",), (), (24, 24))
    prepared = prepare(open_dataset(unlabelled), plan, labelled=False, cache=tmp_path)
    plain, batches = (
        kind(prepared, batch_size=6, seed=3, augmentation=Augmentation(noise=0.1))
        for kind in (Batches, CorruptedBatches)
    )
    assert isinstance(batches, CorruptedBatches)
    whole = batches(5)
    assert torch.equal(whole.images, plain(5).images)
    # The seeds are the first numbers that a loss of this step would draw.
    keys = StepRandom(3, 5, total=6, start=0, stop=6, device=torch.device("cpu")).uniform((1,))
    for image, copy, key in zip(whole.images, whole.corrupted, keys, strict=True):
        rng = np.random.default_rng((int(float(key) * 2**24), 9))
        assert np.array_equal(copy.numpy(), corrupt(image.numpy(), rng))
    assert not torch.equal(batches(6).corrupted, whole.corrupted)
    halves = [batches(5, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([half.corrupted for half in halves]), whole.corrupted)
    assert torch.equal(whole.part(1, 3).corrupted, whole.corrupted[1:3])


class OnCard(torch.Tensor):
    """An image on a device that numpy cannot see."""

    def numpy(self, *, force: bool = False) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self, *_: object) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)


def test_images_that_a_card_changed_are_corrupted_as_others(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(2, ("image",), (), (24, 24))
    prepared = prepare(open_dataset(unlabelled), plan, labelled=False, cache=tmp_path)
    batches = CorruptedBatches(prepared, batch_size=2, seed=3, augmentation=Augmentation())
    expected, collate = batches(0).corrupted, Batches.collate

    def collated(self: Batches, samples: Any) -> Batch:
        batch = collate(self, samples)
        return replace(batch, images=batch.images.as_subclass(OnCard))

    monkeypatch.setattr(Batches, "collate", collated)
    assert torch.equal(batches(0).corrupted, expected)
