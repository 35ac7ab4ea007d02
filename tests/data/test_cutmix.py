"""CutMix: boxes of other labelled images come whole, with their labels, the same on any number of processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import line_of
from radiffuse.config import FIT_AUGMENTATION, IGNORE, Augmentation
from radiffuse.data.batches import Batch, Batches
from radiffuse.data.cutmix import giver
from radiffuse.data.dataset import Case
from radiffuse.data.plan import Plan
from radiffuse.data.prepared import Prepared

COUNT = 5
SHAPES = [(24, 30), (14, 12, 16)]


def numbered(folder: Path, shape: tuple[int, ...]) -> Prepared:
    """Images whose gray value and class are their number, from 0; the first rows are ignored, more of each next one."""
    images = np.stack([np.full((1, *shape), i / 8, np.float16) for i in range(COUNT)])
    labels = np.stack([np.full(shape, i, np.uint8) for i in range(COUNT)])
    for i in range(COUNT):
        labels[i, : i + 1] = IGNORE
        np.save(folder / f"image-{i:06d}.npy", images[i])
        np.save(folder / f"label-{i:06d}.npy", labels[i])
        np.save(folder / f"points-{i:06d}.npy", np.zeros((0, 1 + len(shape)), np.int32))
    np.save(folder / "images.npy", images)  # of films
    np.save(folder / "labels.npy", labels)
    classes = tuple("abcde")
    plan = Plan(len(shape), ("x",), classes, shape, (1.0,) * 3 if len(shape) == 3 else None)
    cases = tuple(Case(f"c{i}", ()) for i in range(COUNT))
    return Prepared(folder, plan, cases, tuple(range(COUNT)), (), True)


def batches(prepared: Prepared, cutmix: float, **changes: object) -> Batches:
    augmentation = Augmentation(cutmix=cutmix, **changes)  # type: ignore[arg-type]
    return Batches(prepared, batch_size=COUNT, seed=3, augmentation=augmentation)


def labels_of(batch: Batch) -> torch.Tensor:
    assert batch.labels is not None
    return batch.labels


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_of_another_image_comes_with_its_label(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    source, pairs, shares = batches(numbered(tmp_path, shape), 1.0), set(), []
    for step in range(12):
        batch = source(step)
        seen, labels = (8 * batch.images[:, 0]).round().long(), labels_of(batch)
        for image, label, name in zip(seen, labels, batch.cases, strict=True):
            own = int(name[1:])
            (other,) = set(image.unique().tolist()) - {own}  # a single one, which is not itself
            places = (image == other).nonzero()
            sides = places.amax(0) - places.amin(0) + 1
            assert int(sides.prod()) == len(places)  # one solid box
            shares.append(len(places) / image.numel())
            rows = torch.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))
            # Ignored as in the image that each voxel is of, and of its class elsewhere.
            assert torch.equal(label, torch.where(rows <= image, IGNORE, image))
            pairs.add((own, other))
    assert len(pairs) > 15  # of 20
    assert 0.05 < min(shares) < 0.2
    assert 0.4 < max(shares) < 0.6


def test_it_comes_as_often_as_said_and_all_else_stays_as_it_was(tmp_path: Path) -> None:
    prepared = numbered(tmp_path, SHAPES[0])
    others = dataclasses.replace(FIT_AUGMENTATION, flip=(1,))
    less, plain = (
        Batches(
            prepared,
            batch_size=COUNT,
            seed=3,
            augmentation=dataclasses.replace(others, cutmix=cutmix),
        )
        for cutmix in (0.3, 0.0)
    )
    mixed = []
    for step in range(80):
        one, other = less(step), plain(step)
        assert one.cases == other.cases
        same = (one.images == other.images).flatten(1).float().mean(1)
        assert (same > 0.35).all()  # what lies outside of the box
        mixed += (same < 1).tolist()
    assert np.mean(mixed) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_replays_and_processes_see_their_part_of_it(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    prepared = numbered(tmp_path, shape)
    source = batches(prepared, 0.7, rotate=20, noise=0.1)
    whole = source(7)
    source(2)
    for world in (1, 5):
        parts = [source(7, rank, world) for rank in range(world)]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([labels_of(part) for part in parts]), labels_of(whole))
        assert sum((part.cases for part in parts), ()) == whole.cases
    assert not torch.equal(source(8).images, whole.images)


def test_any_other_image_of_the_batch_gives_a_box() -> None:
    for count in (2, 5):
        found = {
            (n, giver((u, 0.5, 0.5), n, count)) for n in range(count) for u in np.linspace(0, 0.999)
        }
        assert found == {(a, b) for a in range(count) for b in range(count) if a != b}
    assert giver((), 3, 5) == 3


def test_boxes_are_pasted_on_the_device_of_the_images(tmp_path: Path) -> None:
    source = batches(numbered(tmp_path, SHAPES[0]), 1.0)
    source.device = torch.device("meta")  # which nothing of another device can be mixed with
    batch = source(0)
    assert batch.images.device.type == labels_of(batch).device.type == "meta"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["fit", "FILMS", "--method", "scratch", "--batch-size", "1"],
            "--augmentation.cutmix 0.5: pastes parts of other images of a batch in, and a batch has one image",
        ),
        (["fit", "FILMS", "--method", "joint"], "--augmentation.cutmix: takes no effect, since"),
        (["pretrain", "FILMS"], "--augmentation.cutmix: takes no effect, since no label map"),
        (["classify", "FILMS"], "--augmentation.cutmix: takes no effect, since no label map"),
        (["study", "FILMS", "--unlabelled", "u"], "--pretrain.augmentation.cutmix: takes no"),
        (["augment", "FILMS", "--with", "r"], "--classify.augmentation.cutmix: takes no effect"),
        (["synthesize", "FILMS"], "--vae.augmentation.cutmix: takes no effect, since no label"),
        (["synthesize", "FILMS"], "--dino.augmentation.cutmix: takes no effect, since no label"),
        (
            ["pretrain", "FILMS", "--objective", "contrastive"],
            "--contrast.views.cutmix: takes no effect, since no label map",
        ),
        (
            ["fit", "FILMS", "--method", "scratch", "--unlabelled", "p"],
            "--pool.strong.cutmix: takes no effect, since --pool.cutmix says it",
        ),
    ],
)
def test_it_is_refused_by_name_where_it_cannot_apply(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    flag = said.split(":")[0].split()[0]
    given = [str(films) if word == "FILMS" else word for word in words]
    assert said in line_of([*given, "--out", str(tmp_path / "run"), flag, "0.5"], capsys)
