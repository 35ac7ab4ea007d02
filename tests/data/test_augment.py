"""Changes of images as the field has them: each against SciPy, a formula or a map made by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional

from radiffuse.config import FIT_AUGMENTATION, IGNORE, Augmentation, Pool
from radiffuse.data.augment import Change, apply_changes, draw_change
from radiffuse.data.batches import Batches
from radiffuse.data.crops import CropPairBatches
from radiffuse.data.dataset import Case
from radiffuse.data.plan import Intensity, Plan
from radiffuse.data.prepared import Prepared
from radiffuse.data.shading import shaded
from radiffuse.train.ahead import Ahead
from radiffuse.train.planning.measuring import Blank

OLD_MATRIX = [[0.99269135, 0.00949982, 0.09957231], [0.03842387, 0.93378334, 0.05546869]]
OLD_INTENSITY = (0.04121825739572485, 0.042101592195900144)
OLD_SEED = 1480844242
EVERY = dataclasses.replace(FIT_AUGMENTATION, flip=(1,), chance=1.0, inverted=1.0)


def noise(*shape: int) -> torch.Tensor:
    """Values that stay away from the ends of the range, where results are clipped."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 0.5


def changed(change: Change, image: torch.Tensor) -> torch.Tensor:
    return apply_changes([change], image, None)[0]


@pytest.mark.parametrize("shape", [(32, 48), (24, 20, 28)])
def test_blur_is_that_of_scipy(shape: tuple[int, ...]) -> None:
    image = noise(1, 2, *shape)
    blurred = changed(Change(None, blur=1.2), image).numpy()
    inner = (slice(6, -6),) * len(shape)
    for channel in range(2):
        expected = ndimage.gaussian_filter(image[0, channel].numpy(), 1.2, truncate=6)
        np.testing.assert_allclose(blurred[0, channel][inner], expected[inner], atol=2e-4)
    flat = changed(Change(None, blur=1.2), torch.full((1, 1, *shape), 0.3))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


@pytest.mark.parametrize("shape", [(33, 49), (25, 21, 29)])
def test_shading_is_a_spline_through_random_values_and_moves_no_label(
    shape: tuple[int, ...],
) -> None:
    image = noise(1, 2, *shape) / 2
    labels = torch.randint(0, 3, (1, *shape), generator=torch.Generator().manual_seed(1))
    change = Change(None, shading=0.4, seed=7)
    shaded, kept = apply_changes([change], image, labels)
    assert kept is not None
    assert torch.equal(kept, labels)
    field = (shaded - image)[0] / 0.4
    assert torch.allclose(field[0], field[1], atol=1e-5)  # the same in every channel
    generator = torch.Generator().manual_seed(9)
    points = 2 * torch.rand((5,) * len(shape), generator=generator).numpy() - 1
    knots = tuple(slice(None, None, (n - 1) // 4) for n in shape)
    np.testing.assert_allclose(field[0].numpy()[knots], points, atol=1e-5)
    moved = apply_changes([Change(None, elastic=0.05, seed=7)], image, None)[0]
    assert not torch.allclose(moved, shaded)


@pytest.mark.parametrize(("intensity", "most"), [("percentiles", 0.8), ("window", 0.0)])
def test_shading_that_is_left_open_spares_intensities_that_mean_the_same_in_every_image(
    intensity: Intensity, most: float
) -> None:
    strong = Pool().strong
    assert strong.shading is None
    plan = Plan(2, ("film",), ("background", "lung"), (8, 8), intensity=intensity)
    blank = Blank.like(plan, (8, 8), labelled=True)
    batches = Batches(blank, batch_size=1, seed=0, augmentation=strong)
    crops = CropPairBatches(blank, (4, 4), batch_size=1, seed=0, augmentation=strong, indices=[0])
    assert batches.augmentation == dataclasses.replace(strong, shading=most) == crops.augmentation
    given = shaded(dataclasses.replace(strong, shading=0.3), intensity)
    assert given.shading == 0.3


@pytest.mark.parametrize("dims", [2, 3])
def test_a_coarser_image_has_means_of_blocks_at_their_centers_and_keeps_ramps(dims: int) -> None:
    image = noise(1, 1, *(24,) * dims)
    coarse = changed(Change(None, coarser=3.0), image)
    pool = functional.avg_pool2d if dims == 2 else functional.avg_pool3d
    blocks = (slice(None), slice(None), *(slice(1, None, 3),) * dims)
    torch.testing.assert_close(coarse[blocks], pool(image, 3))
    ramp = torch.linspace(-0.9, 0.9, 24).expand(1, 1, *(24,) * dims)
    kept = changed(Change(None, coarser=2.0), ramp)
    torch.testing.assert_close(kept[..., 1:-1], ramp[..., 1:-1])


def test_gamma_acts_on_either_end_of_the_range() -> None:
    image = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).reshape(1, 1, 1, 5)
    dark, bright = (
        changed(Change(None, gamma=2.0, inverted=end), image).flatten() for end in (False, True)
    )
    # In [0, 1]: x^2, and 1 - (1 - x)^2.
    expected = torch.tensor([0.0, 1 / 16, 1 / 4, 9 / 16, 1.0])
    torch.testing.assert_close(dark, 2 * expected - 1)
    torch.testing.assert_close(bright, 1 - 2 * expected.flip(0))


def test_zoom_is_uniform_in_the_logarithm_and_the_same_for_every_axis() -> None:
    settings = Augmentation(zoom=0.5)
    matrices = [
        draw_change(settings, 3, np.random.default_rng(seed)).matrix for seed in range(1500)
    ]
    scales = np.array([1 / np.diag(m[:, :3]) for m in matrices if m is not None])
    assert np.allclose(scales, scales[:, :1])
    logarithms = np.log2(scales[:, 0])
    assert -0.5 <= logarithms.min() < -0.49
    assert 0.49 < logarithms.max() <= 0.5
    assert abs(logarithms.mean()) < 0.03
    assert logarithms.std() == pytest.approx(1 / 12**0.5, rel=0.05)


@pytest.mark.parametrize("shape", [(40, 60), (20, 24, 28)])
def test_a_deformation_moves_each_voxel_smoothly_and_not_too_far(shape: tuple[int, ...]) -> None:
    """Images that name their places say where each voxel came from."""
    axes = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in shape), indexing="ij")
    places = torch.from_numpy(np.stack(axes)).float()[None]
    came = changed(Change(None, elastic=0.08, seed=3), places)[0] - places[0]
    inner = (slice(None), *(slice(n // 5, -(n // 5)) for n in shape))
    moved = came[inner]
    assert 0.03 < float(moved.abs().max()) <= 0.081 * 1.2  # bicubic interpolation overshoots
    for axis in range(len(shape)):
        stretch = torch.diff(moved[axis], dim=axis) * (shape[axis] - 1)
        assert float(stretch.min()) > -1  # no two voxels change places
        assert float(stretch.abs().max()) > 0.05
    again = changed(Change(None, elastic=0.08, seed=3), places)[0] - places[0]
    other = changed(Change(None, elastic=0.08, seed=4), places)[0] - places[0]
    assert torch.equal(came, again)
    assert not torch.allclose(came, other, atol=0.01)


def test_a_deformed_image_and_its_label_stay_one() -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = torch.from_numpy((rows - 30) ** 2 + (columns - 34) ** 2 < 200)
    for seed in range(8):
        change = Change(None, elastic=0.1, seed=seed)
        image, label = apply_changes([change], blob[None, None] * 2.0 - 1, blob[None].long())
        assert label is not None
        assert not torch.equal(label[0].bool(), blob)
        both = int(((image[0, 0] > 0) & label[0].bool()).sum())
        assert 2 * both / int((image[0, 0] > 0).sum() + label.sum()) > 0.97


def test_rare_changes_come_by_chance_each_by_itself() -> None:
    settings = Augmentation(elastic=0.1, blur=2.0, coarser=1.0, shading=0.8, chance=0.3)
    changes = [draw_change(settings, 2, np.random.default_rng(seed)) for seed in range(3000)]
    drawn = np.array([(c.elastic > 0, c.blur > 0, c.coarser > 1, c.shading > 0) for c in changes])
    np.testing.assert_allclose(drawn.mean(0), 0.3, atol=0.03)
    assert drawn.all(1).mean() == pytest.approx(0.3**4, abs=0.006)
    assert max(c.elastic for c in changes) > 0.098
    assert 1.95 < max(c.coarser for c in changes) <= 2
    assert 0.78 < max(c.shading for c in changes) <= 0.8
    never = dataclasses.replace(settings, chance=0.0)
    assert draw_change(never, 2, np.random.default_rng(0)) == Change(None, seed=changes[0].seed)


def test_what_was_drawn_before_these_changes_is_still_drawn() -> None:
    """A change as it was written down before there were others."""
    settings = Augmentation(
        flip=(1,), rotate=10, scale=0.1, shear=0.05, translate=0.05, brightness=0.2, noise=0.05
    )
    change = draw_change(settings, 2, np.random.default_rng((7, 1, 42)))
    assert change.matrix is not None
    np.testing.assert_allclose(change.matrix, OLD_MATRIX, atol=1e-6)
    assert (change.brightness, change.noise) == pytest.approx(OLD_INTENSITY, abs=1e-6)
    assert change.seed == OLD_SEED
    more = dataclasses.replace(settings, elastic=0.05, blur=1.0, coarser=1.0, chance=1.0)
    assert np.array_equal(
        draw_change(more, 2, np.random.default_rng((7, 1, 42))).matrix, change.matrix
    )  # type: ignore[arg-type]


def test_labels_beyond_the_border_are_learned_along_mirrored_axes_alone() -> None:
    """Made by hand: an image of 4 x 4, shifted by half of its extent along both axes."""
    label = torch.arange(16).reshape(1, 4, 4)
    shifted = Change(np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    image = torch.zeros(1, 1, 4, 4)
    inside = torch.tensor([[10, 11], [14, 15]])
    for axes, right, below in (((), None, None), ((1,), True, None), ((0,), None, True)):
        _, moved = apply_changes([shifted], image, label, axes)
        assert moved is not None
        assert torch.equal(moved[0, :2, :2], inside)
        assert torch.equal(
            moved[0, :2, 2:], inside.flip(1) if right else torch.full((2, 2), IGNORE)
        )
        assert torch.equal(
            moved[0, 2:, :2], inside.flip(0) if below else torch.full((2, 2), IGNORE)
        )
        assert (moved[0, 2:, 2:] == IGNORE).all()
    _, moved = apply_changes([shifted], image, label)
    assert moved is not None
    assert torch.equal(moved[0, 2:, 2:], inside.flip(0, 1))


def ramps(folder: Path, mirror: tuple[int, ...]) -> Prepared:
    """Films that are dark on the left and bright on the right, with a label in the left half."""
    image = np.linspace(-1, 1, 16).reshape(1, 1, 1, 16).repeat(16, 2).astype(np.float16)
    np.save(folder / "images.npy", image)
    np.save(folder / "labels.npy", (image[:, 0] < 0).astype(np.uint8))
    plan = Plan(2, ("film",), ("background", "lung"), (16, 16), mirror=mirror)
    return Prepared(folder, plan, (Case("film", ()),), (0,), (), True)


@pytest.mark.parametrize(
    ("mirror", "flip", "mirrored"),
    [((1,), None, True), ((), None, False), ((1,), (), False), ((), (1,), True)],
)
def test_mirroring_is_the_plans_unless_it_is_given(
    tmp_path: Path, mirror: tuple[int, ...], flip: tuple[int, ...] | None, mirrored: bool
) -> None:
    prepared = ramps(tmp_path, mirror)
    batch = Batches(prepared, batch_size=40, seed=0, augmentation=Augmentation(flip=flip))(0)
    turned = batch.images[:, 0, 8, 0] > batch.images[:, 0, 8, -1]
    assert bool(turned.any()) == mirrored
    assert not turned.all()
    assert batch.labels is not None
    assert torch.equal(batch.labels == 1, batch.images[:, 0] < 0)


def test_every_change_replays_and_ranks_add_up(tmp_path: Path) -> None:
    prepared = ramps(tmp_path, (1,))
    source = Batches(prepared, batch_size=6, seed=5, augmentation=EVERY)
    whole, again = source(9), Batches(prepared, batch_size=6, seed=5, augmentation=EVERY)(9)
    assert torch.equal(whole.images, again.images)
    assert len({float(image.mean()) for image in whole.images}) == 6
    parts = [source(9, rank, 2).images for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole.images)
    assert -1 <= float(whole.images.min()) <= float(whole.images.max()) <= 1


def volume_of_ramps(folder: Path, mirror: tuple[int, ...]) -> Prepared:
    """A volume whose channels name the place of each voxel along the axes, with a label in all of it."""
    shape = (40, 36, 32)
    axes = np.meshgrid(*(np.linspace(-0.9, 0.9, n) for n in shape), indexing="ij")
    np.save(folder / "image-000000.npy", np.stack(axes).astype(np.float16))
    np.save(folder / "label-000000.npy", np.ones(shape, np.uint8))
    np.save(folder / "points-000000.npy", np.array([[1, 20, 18, 16]], np.int32))
    plan = Plan(3, ("a", "b", "c"), ("background", "organ"), (12, 10, 8), (1.0,) * 3, mirror=mirror)
    return Prepared(folder, plan, (Case("volume", ()),), (0,), (), True)


def test_a_patch_is_filled_from_what_is_around_it(tmp_path: Path) -> None:
    """Half the patches are around the middle, far from the border: they stay ramps to their last voxel."""
    prepared = volume_of_ramps(tmp_path, (0,))
    moves = Augmentation(flip=None, rotate=15, zoom=0.5, translate=0.1)
    batch = Batches(prepared, batch_size=24, seed=1, augmentation=moves)(0)
    assert batch.images.shape == (24, 3, 12, 10, 8)
    assert batch.labels is not None
    inside = (batch.images > -0.85).flatten(1).all(1) & (batch.images < 0.85).flatten(1).all(1)
    assert int(inside.sum()) >= 8
    scales = []
    for image, label in zip(batch.images[inside], batch.labels[inside], strict=True):
        for axis in range(3):
            steps = torch.diff(image, dim=axis + 1)
            torch.testing.assert_close(
                steps, steps[:, :1, :1, :1].expand_as(steps), atol=3e-3, rtol=0
            )
        assert (label == 1).all()
        scales.append(float(torch.diff(image[0], dim=0)[0, 0, 0].abs()) / (1.8 / 39))
    assert min(scales) < 0.85  # one is enlarged
    assert max(scales) > 1.1
    outside = (batch.images == -1).all(1)
    assert (batch.labels[outside] == IGNORE).all()
    parts = [
        Batches(prepared, batch_size=24, seed=1, augmentation=moves)(0, r, 3) for r in range(3)
    ]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)


def test_a_change_reaches_no_farther_than_it_says() -> None:
    for seed in range(30):
        change = draw_change(FIT_AUGMENTATION, 2, np.random.default_rng(seed))
        size = (20, 32)
        margin = change.reach(size)
        wide = tuple(n + 2 * m for n, m in zip(size, margin, strict=True))
        label = torch.zeros((1, *wide), dtype=torch.uint8)
        _, moved = apply_changes([change], torch.zeros((1, 1, *wide)), label, (), size)
        assert moved is not None
        assert moved.shape == (1, *size)
        assert not moved.any()
    assert Change(None, blur=1.0).reach((8, 8)) == (0, 0)
    eighth = Change(np.diag([8.0, 8.0, 8.0])[:, [0, 1, 2, 2]] * [1, 1, 1, 0])
    assert eighth.reach((32, 16, 8)) == (33, 17, 9)  # memory is bounded


@pytest.mark.parametrize("dims", [2, 3])
def test_images_are_changed_on_their_own_device(dims: int) -> None:
    """On a device without numbers, which nothing of another device can be mixed with."""
    image = torch.zeros((2, 1, *(16,) * dims), device="meta")
    label = torch.zeros((2, *(16,) * dims), dtype=torch.int64, device="meta")
    changes = [draw_change(EVERY, dims, np.random.default_rng(seed)) for seed in range(2)]
    moved, moved_label = apply_changes(changes, image, label, (1,), (12,) * dims)
    assert moved_label is not None
    assert moved.device.type == moved_label.device.type == "meta"
    assert moved.shape[2:] == moved_label.shape[1:] == (12,) * dims


def test_a_gpu_changes_the_images_of_a_training_but_no_other_device_does(tmp_path: Path) -> None:
    prepared = ramps(tmp_path, (1,))
    source = Batches(prepared, batch_size=2, seed=5, augmentation=EVERY)
    for name, chosen in (("cpu", "cpu"), ("mps", "cpu"), ("cuda", "cuda")):
        Ahead(source, torch.device(name))
        assert source.device.type == chosen
    source.device = torch.device("meta")  # stands for a GPU, which the machine may not have
    batch = source(0)
    assert batch.labels is not None
    assert batch.images.device.type == batch.labels.device.type == "meta"
