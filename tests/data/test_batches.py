"""Patches of volumes, ranks, epochs, and augmentation in two and three dimensions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from radiffuse.config import IGNORE, Augmentation, PlanSettings
from radiffuse.data.augment import Change, apply_changes, draw_change
from radiffuse.data.batches import Batch, Batches, BatchSource
from radiffuse.data.dataset import Case
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan, make_plan
from radiffuse.data.prepare import prepare
from radiffuse.data.prepared import Prepared
from radiffuse.data.scan import Array
from radiffuse.errors import InputError

STRONG = Augmentation(flip=(0, 1), rotate=30, scale=0.2, translate=0.1, brightness=0.3, noise=0.1)
GEOMETRIC = Augmentation(flip=(0, 1, 2), rotate=20, scale=0.15, shear=0.1, translate=0.1)


def volumes(
    folder: Path, shapes: list[tuple[int, ...]], size: tuple[int, int, int], labelled: bool = True
) -> Prepared:
    """Volumes whose values name their voxels, with one small lesion each."""
    for i, shape in enumerate(shapes):
        image = np.linspace(-1, 1, int(np.prod(shape))).reshape(1, *shape).astype(np.float16)
        label = np.zeros(shape, np.uint8)
        label[tuple(n - 2 for n in shape)] = 1
        np.save(folder / f"image-{i:06d}.npy", image)
        np.save(folder / f"label-{i:06d}.npy", label)
        np.save(
            folder / f"points-{i:06d}.npy", np.insert(np.argwhere(label), 0, 1, 1).astype(np.int32)
        )
    plan = Plan(3, ("CT",), ("background", "lesion"), size, (1, 1, 1))
    cases = tuple(Case(f"v{i}", ()) for i in range(len(shapes)))
    return Prepared(folder, plan, cases, tuple(range(len(shapes))), (), labelled)


def numbers(prepared: Prepared, index: int) -> set[float]:
    return set(np.unique(prepared.image(index)).tolist())


def test_patches_lie_inside_a_larger_volume(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(12, 10, 9)], (4, 4, 4))
    batches = Batches(prepared, batch_size=40, seed=0, augmentation=Augmentation())
    batch = batches(0)
    assert batch.images.shape == (40, 1, 4, 4, 4)
    assert batch.labels is not None
    assert batch.labels.shape == (40, 4, 4, 4)
    whole = prepared.image(0)[0]
    starts = set()
    for image, label in zip(batch.images[:, 0].numpy(), batch.labels.numpy(), strict=True):
        start = np.argwhere(whole == np.float16(image[0, 0, 0]))[0]
        window = tuple(slice(s, s + 4) for s in start)
        assert np.array_equal(image, whole[window].astype(np.float32))
        assert np.array_equal(label, prepared.label(0)[window])
        starts.add(tuple(start))
    assert len(starts) > 5
    with_lesion = float((batch.labels == 1).flatten(1).any(1).float().mean())
    assert 0.3 < with_lesion < 0.9  # half are centered on the lesion, chance adds few


def test_a_patch_larger_than_its_volume_is_filled_up(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(3, 6, 5)], (8, 6, 4))
    batch = Batches(prepared, batch_size=20, seed=0, augmentation=Augmentation())(3)
    assert batch.labels is not None
    for image, label in zip(batch.images[:, 0], batch.labels, strict=True):
        outside = torch.ones(8, dtype=torch.bool)
        outside[2:5] = False  # three slices in the middle of eight
        assert (image[outside] == -1).all()
        assert (label[outside] == IGNORE).all()
        assert not (label[2:5] == IGNORE).any()
        assert set(image[2:5].flatten().tolist()) <= numbers(prepared, 0)


def test_unlabelled_volumes_have_no_labels(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(8, 8, 8)] * 2, (4, 4, 4), labelled=False)
    assert Batches(prepared, batch_size=3, seed=0, augmentation=Augmentation())(0).labels is None


def test_patches_and_their_augmentation_replay_and_ranks_add_up(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(9, 8, 7), (6, 9, 8), (10, 10, 10)], (6, 6, 6))
    strong = dataclasses.replace(GEOMETRIC, noise=0.2, gamma=0.3, contrast=0.2, brightness=0.1)

    def batches() -> Batches:
        return Batches(prepared, batch_size=4, seed=7, augmentation=strong)

    whole = batches()(11)
    again = batches()
    again(2)
    assert torch.equal(again(11).images, whole.images)
    parts = [batches()(11, rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([p.images for p in parts]), whole.images)
    assert whole.labels is not None
    assert torch.equal(torch.cat([p.labels for p in parts]), whole.labels)  # type: ignore[misc]
    assert sum((p.cases for p in parts), ()) == whole.cases


class Numbers(BatchSource[tuple[int, float], Batch]):
    """Batches whose images are the index of a case and a random number."""

    def sample(self, index: int, rng: np.random.Generator) -> tuple[int, float]:
        return index, float(rng.random())

    def collate(self, samples: Sequence[tuple[int, float]]) -> Batch:
        names = tuple(str(index) for index, _ in samples)
        return Batch(torch.tensor([number for _, number in samples]), None, names)


@pytest.mark.parametrize("world", [1, 2])
def test_the_order_is_of_the_epoch_and_the_numbers_are_of_the_position(world: int) -> None:
    indices = (7, 3, 5, 11, 2)
    source = Numbers(indices, batch_size=4, seed=9)
    order = [
        str(indices[place])
        for epoch in range(4)
        for place in np.random.default_rng((9, 0, epoch)).permutation(5)
    ]
    for step in (0, 1, 3, 4):
        parts = [source(step, rank, world) for rank in range(world)]
        positions = range(4 * step, 4 * step + 4)
        assert sum((part.cases for part in parts), ()) == tuple(order[p] for p in positions)
        numbers = [float(np.float32(np.random.default_rng((9, 1, p)).random())) for p in positions]
        assert torch.cat([part.images for part in parts]).tolist() == numbers


def test_no_two_epochs_have_the_same_order(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(4, 4, 4)] * 12, (4, 4, 4))
    batches = Batches(prepared, batch_size=12, seed=0, augmentation=Augmentation())
    orders = {batches(epoch).cases for epoch in range(5)}
    assert len(orders) == 5
    assert all(len(set(order)) == 12 for order in orders)


def test_a_part_of_a_batch_is_that_part(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(4, 4, 4)] * 5, (4, 4, 4))
    batch = Batches(prepared, batch_size=5, seed=0, augmentation=Augmentation())(0)
    part = batch.part(1, 3)
    assert len(part) == 2
    assert torch.equal(part.images, batch.images[1:3])
    assert part.cases == batch.cases[1:3]


def test_no_case_is_an_error(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(4, 4, 4)], (4, 4, 4))
    with pytest.raises(ValueError, match="at least one case"):
        Batches(prepared, batch_size=1, seed=0, augmentation=Augmentation(), indices=())


@pytest.mark.parametrize("axis", [3, -1])
def test_an_axis_that_is_not_there_is_named(tmp_path: Path, axis: int) -> None:
    prepared = volumes(tmp_path, [(4, 4, 4)], (4, 4, 4))
    with pytest.raises(InputError, match=f"flip {axis}.*axes 0 to 2"):
        Batches(prepared, batch_size=1, seed=0, augmentation=Augmentation(flip=(axis,)))


# -------------------------------------------------------------------------------------------- augmentation


def ball(shape: tuple[int, ...], center: tuple[float, ...], radius: float) -> Array:
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, center, strict=True))) < radius


@pytest.mark.parametrize(
    ("shape", "center", "radius"),
    [((32, 48), (13, 28), 7.0), ((20, 24, 28), (9, 13, 12), 6.0)],
)
def test_image_and_label_stay_one(
    shape: tuple[int, ...], center: tuple[float, ...], radius: float
) -> None:
    blob = ball(shape, center, radius)
    image = torch.from_numpy(blob * 2.0 - 1)[None, None].float()
    label = torch.from_numpy(blob.astype(np.int64))[None]
    settings = dataclasses.replace(GEOMETRIC, flip=tuple(range(len(shape))))
    moved_away = 0
    for seed in range(15):
        change = draw_change(settings, len(shape), np.random.default_rng(seed))
        moved, moved_label = apply_changes([change], image, label)
        assert moved_label is not None
        found = moved[0, 0] > 0
        both = int((found & (moved_label[0] == 1)).sum())
        assert 2 * both / int(found.sum() + moved_label.sum()) > 0.93
        moved_away += int(not torch.equal(moved_label, label))
    assert moved_away == 15


@pytest.mark.parametrize("dims", [2, 3])
def test_each_flip_mirrors_its_own_axis(dims: int) -> None:
    shape = (5, 6, 7)[:dims]
    image = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    for axis in range(dims):
        seen = set()
        for seed in range(12):
            change = draw_change(Augmentation(flip=(axis,)), dims, np.random.default_rng(seed))
            moved, _ = apply_changes([change], image, None)
            flipped = torch.flip(image, (axis + 2,))
            same = torch.allclose(moved, image, atol=1e-5)
            assert same or torch.allclose(moved, flipped, atol=1e-5)
            seen.add(same)
        assert seen == {True, False}


def test_a_positive_shift_moves_the_sampling_point_by_that_share() -> None:
    image = torch.full((1, 1, 20, 40), -1.0)
    image[0, 0, 10, 20] = 1
    for seed in range(10):
        change = draw_change(Augmentation(translate=0.1), 2, np.random.default_rng(seed))
        assert change.matrix is not None
        shift = change.matrix[:, -1] / 2 * (20, 40)
        assert (np.abs(shift) <= (2, 4)).all()
        moved, _ = apply_changes([change], image, None)
        weight = moved[0, 0] + 1
        rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(40.0), indexing="ij")
        found = [float((weight * axis).sum() / weight.sum()) for axis in (rows, columns)]
        np.testing.assert_allclose(found, (10 - shift[0], 20 - shift[1]), atol=0.05)


def test_ignored_pixels_are_never_mixed_with_classes() -> None:
    label = torch.zeros(1, 24, 24, dtype=torch.int64)
    label[0, :8] = IGNORE
    label[0, 16:] = 7
    image = torch.zeros(1, 1, 24, 24)
    for seed in range(10):
        change = draw_change(GEOMETRIC_2D, 2, np.random.default_rng(seed))
        _, moved = apply_changes([change], image, label)
        assert moved is not None
        assert set(moved.unique().tolist()) <= {0, 7, IGNORE}


GEOMETRIC_2D = dataclasses.replace(GEOMETRIC, flip=(0, 1))


def test_intensity_changes_leave_labels_alone_and_stay_in_range() -> None:
    settings = Augmentation(brightness=0.5, contrast=0.5, gamma=1, noise=0.3)
    image = torch.rand((1, 1, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    label = torch.arange(256).reshape(1, 16, 16) % 5
    change = draw_change(settings, 2, np.random.default_rng(3))
    assert change.matrix is None
    first, same = apply_changes([change], image, label)
    second, _ = apply_changes([change], image, label)
    assert same is not None
    assert torch.equal(same, label)
    assert torch.equal(first, second)
    assert not torch.equal(first, image)
    assert -1 <= float(first.min()) <= float(first.max()) <= 1


def test_never_means_never() -> None:
    settings = dataclasses.replace(GEOMETRIC, flip=(), probability=0.0, noise=0.5, gamma=1.0)
    image = torch.rand((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    for seed in range(5):
        changed, _ = apply_changes(
            [draw_change(settings, 3, np.random.default_rng(seed))], image, None
        )
        assert torch.equal(changed, image)


@pytest.fixture
def prepared(films: Path, tmp_path: Path) -> Prepared:
    dataset = open_dataset(films)
    plan = make_plan(dataset, PlanSettings(size=(32,)), labelled=True)
    return prepare(dataset, plan, labelled=True, cache=tmp_path)


def test_a_batch_depends_on_its_step_alone(prepared: Prepared) -> None:
    first, second = (Batches(prepared, batch_size=6, seed=3, augmentation=STRONG) for _ in range(2))
    for step in (0, 7, 3):
        a, b = first(step), second(step)
        assert torch.equal(a.images, b.images)
        assert a.labels is not None
        assert b.labels is not None
        assert torch.equal(a.labels, b.labels)
    assert not torch.equal(first(0).images, first(1).images)
    other = Batches(prepared, batch_size=6, seed=4, augmentation=STRONG)
    assert not torch.equal(first(0).images, other(0).images)


def test_an_epoch_sees_every_case_once(prepared: Prepared) -> None:
    batches = Batches(
        prepared, batch_size=6, seed=3, augmentation=Augmentation(), indices=(1, 4, 5, 9)
    )
    names = [name for step in range(2) for name in batches(step).cases]
    assert (
        sorted(names[:4])
        == sorted(names[4:8])
        == sorted(prepared.cases[i].name for i in (1, 4, 5, 9))
    )


def test_a_rotation_keeps_its_angle_on_an_oblong_image() -> None:
    image = torch.full((1, 1, 32, 64), -1.0)
    image[..., 16, 12:52] = 1.0  # a horizontal bar of 40 pixels
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
    turned, _ = apply_changes([Change(quarter)], image, None)
    rows = (turned[0, 0] > 0).any(1).sum()
    columns = (turned[0, 0] > 0).any(0).sum()
    assert int(rows) == 32  # it now fills the height and is as thin as before
    assert int(columns) <= 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 5.0), (4.0, 1.0, 1.0)])
def test_a_ball_stays_a_ball_where_voxels_are_longer_along_an_axis(
    tmp_path: Path, spacing: tuple[float, ...]
) -> None:
    shape = [round(44 / mm) for mm in spacing]
    prepared = volumes(tmp_path, [tuple(shape)], (shape[0], shape[1], shape[2]))
    places = np.indices(shape).T - (np.array(shape) - 1) / 2
    ball = (np.linalg.norm(places * spacing, axis=-1).T < 16).astype(np.uint8)
    np.save(tmp_path / "image-000000.npy", (2.0 * ball - 1)[None].astype(np.float16))
    np.save(tmp_path / "label-000000.npy", ball)
    plan = dataclasses.replace(prepared.plan, spacing=spacing, mirror=(0,))
    turned = Batches(
        dataclasses.replace(prepared, plan=plan),
        batch_size=6,
        seed=0,
        augmentation=Augmentation(rotate=45, probability=1),
    )(0)
    assert turned.labels is not None
    for image, label in zip(turned.images[:, 0].numpy() > 0, turned.labels.numpy(), strict=True):
        for moved in (image, label == 1):
            assert 2 * (moved & (ball == 1)).sum() / (moved.sum() + ball.sum()) > 0.85


def test_the_spacing_matters_only_where_it_differs_between_axes() -> None:
    for seed in range(20):
        plain = draw_change(GEOMETRIC, 3, np.random.default_rng(seed), (0,)).matrix
        cubes = draw_change(GEOMETRIC, 3, np.random.default_rng(seed), (0,), (0.7,) * 3).matrix
        slices = draw_change(GEOMETRIC, 3, np.random.default_rng(seed), (0,), (1, 1, 5)).matrix
        if plain is None:
            assert cubes is slices is None
            continue
        assert cubes is not None
        assert slices is not None
        assert np.array_equal(cubes, plain)  # bit for bit
        assert np.array_equal(np.diag(slices), np.diag(plain))
        assert np.array_equal(slices[:, 3], plain[:, 3])
        assert np.allclose(slices[0, 2], 5 * plain[0, 2])


def test_no_change_is_no_change(prepared: Prepared) -> None:
    batch = Batches(prepared, batch_size=4, seed=0, augmentation=Augmentation())(0)
    index = [case.name for case in prepared.cases].index(batch.cases[0])
    assert np.array_equal(batch.images[0].numpy(), prepared.image(index).astype(np.float32))


def draws(count: int = 2000, **settings: float) -> list[Change]:
    chosen = Augmentation(**settings)  # type: ignore[arg-type]
    return [draw_change(chosen, 2, np.random.default_rng(seed)) for seed in range(count)]


def test_changes_reach_as_far_as_the_settings_say() -> None:
    """Each is uniform: over the range, between -1 and 1 of its largest, with a mean of 0."""
    changes = draws(scale=0.5, translate=0.1)
    matrices = np.stack([change.matrix for change in changes if change.matrix is not None])
    assert len(matrices) == 2000
    exponents = draws(gamma=1.0, contrast=0.5, brightness=0.25)
    for name, values, largest in (
        # The map goes from the output to the input, which is enlarged where the map is small.
        ("scale", 1 / matrices[:, 0, 0] - 1, 0.5),
        ("translate", matrices[:, 1, 2] / 2, 0.1),  # the grid is 2 wide
        ("gamma", np.log2([change.gamma for change in exponents]), 1.0),
        ("contrast", np.array([change.contrast for change in exponents]) - 1, 0.5),
        ("brightness", np.array([change.brightness for change in exponents]), 0.25),
    ):
        assert 0.98 * largest < values.max() <= largest * (1 + 1e-9), name
        assert -0.98 * largest > values.min() >= -largest * (1 + 1e-9), name
        assert abs(values.mean()) < 0.06 * largest, name


def test_an_enlarged_square_is_larger() -> None:
    image = torch.full((1, 1, 40, 40), -1.0)
    image[0, 0, 14:26, 14:26] = 1
    grown = 0
    for seed in range(10):
        change = draw_change(Augmentation(scale=0.3), 2, np.random.default_rng(seed))
        assert change.matrix is not None
        moved, _ = apply_changes([change], image, None)
        area = float((moved + 1).sum() / 2)
        assert area == pytest.approx(144 / float(np.prod(np.diag(change.matrix))), rel=0.05)
        grown += area > 144
    assert 0 < grown < 10


def test_noise_has_its_strength_and_a_seed_of_its_own() -> None:
    images = torch.zeros(2, 1, 64, 64)
    changes = [Change(None, noise=0.1, seed=1), Change(None, noise=0.2, seed=2)]
    one, other = apply_changes(changes, images, None)[0].flatten(1)
    assert float(one.std()) == pytest.approx(0.1, rel=0.05)
    assert float(other.std()) == pytest.approx(0.2, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.08


def test_a_patch_around_a_lesion_has_it_in_the_middle(tmp_path: Path) -> None:
    prepared = volumes(tmp_path, [(40, 30, 20)], (8, 6, 4))
    label = np.zeros((40, 30, 20), np.uint8)
    label[23, 14, 9] = 1
    np.save(tmp_path / "label-000000.npy", label)
    np.save(
        tmp_path / "points-000000.npy",
        np.ascontiguousarray(np.insert(np.argwhere(label), 0, 1, 1), np.int32),
    )
    batches = Batches(prepared, batch_size=200, seed=0, augmentation=Augmentation())
    labels = batches(0).labels
    assert labels is not None
    places = torch.nonzero(labels)[:, 1:]
    middle = (places == torch.tensor([4, 3, 2])).all(1)
    # Half of the patches are placed by the lesion; of the others one in two hundred holds it.
    assert 75 <= int(middle.sum()) <= 125
    assert len(places) - int(middle.sum()) < 10


# ------------------------------------------------------------------------------------------------- of films


def film_of_ramps(folder: Path, grid: tuple[int, int], size: tuple[int, int]) -> Prepared:
    """A film whose pixels name their row and column, without labels."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid), indexing="ij")
    np.save(folder / "images.npy", np.stack([rows, columns])[None].astype(np.float16))
    plan = Plan(2, ("row", "column"), (), size, grid=grid)
    return Prepared(folder, plan, (Case("film", ()),), (0,), (), False)


def extents(images: torch.Tensor) -> torch.Tensor:
    """Between the outermost pixels of patches of such a film: (B, 2) of the film's [-1, 1]."""
    rows = images[:, 0, -1, 0] - images[:, 0, 0, 0]
    return torch.stack([rows, images[:, 1, 0, -1] - images[:, 1, 0, 0]], dim=1)


def test_a_film_larger_than_the_patch_is_seen_in_its_own_pixels(tmp_path: Path) -> None:
    prepared = film_of_ramps(tmp_path, (64, 48), (16, 16))
    batch = Batches(prepared, batch_size=50, seed=0, augmentation=Augmentation())(0)
    assert batch.images.shape == (50, 2, 16, 16)
    expected = torch.tensor([15 * 2 / 63, 15 * 2 / 47])
    assert torch.allclose(extents(batch.images), expected.expand(50, 2), atol=2e-3)
    assert len({round(float(v), 3) for v in batch.images[:, 0, 0, 0]}) > 20


def test_zoomed_patches_go_from_own_pixels_to_the_whole_film(tmp_path: Path) -> None:
    prepared = film_of_ramps(tmp_path, (128, 128), (16, 16))
    options = {"batch_size": 2000, "seed": 0, "augmentation": Augmentation()}
    batch = Batches(prepared, zoom=None, **options)(0)
    # Pixels of a patch are as far apart as the film's, times the factor; anti-aliasing bends a ramp at its ends alone.
    inner = batch.images[:, 0, 10, 0] - batch.images[:, 0, 5, 0]
    factors = (inner / (5 * 2 / 127)).log2()
    assert float(factors.min()) == pytest.approx(0, abs=0.06)
    assert float(factors.max()) == pytest.approx(3, abs=0.06)
    assert float(factors.mean()) == pytest.approx(1.5, abs=0.06)  # uniform from 0 to 3
    assert float(factors.std()) == pytest.approx(3 / 12**0.5, abs=0.05)
    limited = Batches(prepared, zoom=2.0, **options)(0)
    inner = limited.images[:, 0, 10, 0] - limited.images[:, 0, 5, 0]
    assert float((inner / (5 * 2 / 127)).log2().max()) == pytest.approx(1, abs=0.06)


def test_a_zoomed_volume_keeps_its_ramp(tmp_path: Path) -> None:
    ramp = np.linspace(-1, 1, 40, dtype=np.float16)[None, :, None, None]
    np.save(tmp_path / "image-000000.npy", np.broadcast_to(ramp, (1, 40, 40, 40)))
    plan = Plan(3, ("CT",), (), (8, 8, 8), (1, 1, 1))
    prepared = Prepared(tmp_path, plan, (Case("v", ()),), (0,), (), False)
    images = Batches(prepared, zoom=None, batch_size=60, seed=0, augmentation=Augmentation())(
        0
    ).images
    step = (images[:, 0, 5, 4, 4] - images[:, 0, 2, 4, 4]) / (3 * 2 / 39)
    assert images.shape == (60, 1, 8, 8, 8)
    assert 0.8 < float(step.min()) < 1.3
    assert 3.7 < float(step.max()) < 5.3


def test_small_classes_are_centered_as_often_as_large_ones(tmp_path: Path) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[4:34, 4:34], label[50, 50] = 1, 2
    np.save(tmp_path / "images.npy", np.zeros((1, 1, 64, 64), np.float16))
    np.save(tmp_path / "labels.npy", label[None])
    points = [np.insert(np.argwhere(label == value), 0, value, 1) for value in (1, 2)]
    np.save(tmp_path / "points-000000.npy", np.ascontiguousarray(np.concatenate(points), np.int32))
    plan = Plan(2, ("x-ray",), ("background", "large", "small"), (9, 9), grid=(64, 64))
    prepared = Prepared(tmp_path, plan, (Case("film", ()),), (0,), (), True)
    labels = Batches(prepared, batch_size=600, seed=0, augmentation=Augmentation())(0).labels
    assert labels is not None
    centers = labels[:, 4, 4]
    # A quarter is centered on the small class, of one pixel among 901; by voxels it would be .06 %.
    assert 110 <= int((centers == 2).sum()) <= 190


def test_films_in_patches_are_prepared_whole_with_the_places_of_their_classes(
    tmp_path: Path,
) -> None:
    from PIL import Image

    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    label = np.zeros((50, 100), np.uint8)
    label[10:20, 60:90] = 1
    Image.fromarray(rng.integers(0, 255, (50, 100), np.uint8)).save(tmp_path / "set/images/a.png")
    Image.fromarray(label).save(tmp_path / "set/labels/a.png")
    dataset = open_dataset(tmp_path / "set")
    settings = PlanSettings(size=(16,), grid=(64,), resize="fit")
    plan = make_plan(dataset, settings, labelled=True)
    prepared = prepare(dataset, plan, labelled=True, cache=tmp_path / "cache")
    assert prepared.image(0).shape == (1, 64, 64)
    mask = prepared.label(0)
    # 50 x 100 fitted into 64 x 64 is 32 x 64, with 16 rows of padding above and below.
    assert (mask[:16] == IGNORE).all()
    assert (mask[48:] == IGNORE).all()
    inside = np.zeros((64, 64), bool)
    inside[16 + 7 : 16 + 12, 39:57] = True  # surely in the rectangle, by .64
    assert (mask[inside] == 1).all()
    points = prepared.foreground(0)
    assert (points[:, 0] == 1).all()
    assert {tuple(p) for p in points[:, 1:]} == {tuple(p) for p in np.argwhere(mask == 1)}


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ((16, 16), "smaller than the size"),
        ((64, 64, 64), "not legal"),
        ((64.5, 64), "64.5, not a whole number"),
    ],
)
def test_a_grid_that_cannot_be(grid: tuple[int, ...], words: str, tmp_path: Path) -> None:
    from radiffuse.data.plan import read_plan

    path = tmp_path / "plan.json"
    path.write_text(dataclasses.replace(Plan(2, ("x",), (), (32, 32)), grid=grid).to_json())
    with pytest.raises(InputError, match=words):
        read_plan(path)
