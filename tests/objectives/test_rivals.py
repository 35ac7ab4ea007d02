"""The rivals of denoising as pre-training: restoring corrupted or masked images, and telling voxels apart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import radiffuse
from conftest import TINY, pretrain_settings
from radiffuse.automatic.candidates import proposals
from radiffuse.config import PRETRAIN, Contrast, Fit, Network, UNetConfig, resolve_network
from radiffuse.data.corruption import Corrupted, corrupt_all
from radiffuse.data.crops import CropPairs
from radiffuse.data.layouts import open_dataset
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.nets.registry import load_network
from radiffuse.nets.unet import UNet
from radiffuse.objectives.contrastive import (
    Contrastive,
    VoxelContrast,
    choose_pairs,
    start_embedder,
)
from radiffuse.objectives.masked import MaskedAutoencoding, masked
from radiffuse.objectives.restorative import Restoring
from radiffuse.train.cases import VALIDATION_IMAGES
from radiffuse.train.planning.measuring import Blank
from radiffuse.train.pretraining import Unlabelled
from radiffuse.train.random import StepRandom


def config(dims: int) -> UNetConfig:
    return resolve_network(
        Network(**TINY),  # type: ignore[arg-type]
        spatial_dims=dims,
        in_channels=1,
        out_channels=1,
    )


def random(total: int, start: int = 0, stop: int | None = None) -> StepRandom:
    return StepRandom(
        0, 1, total=total, start=start, stop=stop or total, device=torch.device("cpu")
    )


def pairs(dims: int, count: int = 3, size: int = 8) -> CropPairs:
    """Crops of random volumes in which every voxel differs, with a shift of two."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.rand((count, 1, *(size + 2,) * dims), generator=generator) * 1.9 - 0.95
    first = whole[(..., *(slice(0, size),) * dims)]
    second = whole[(..., *(slice(2, size + 2),) * dims)]
    places = torch.tensor([[[0.0] * dims, [2.0] * dims]] * count)
    return CropPairs(first.contiguous(), None, ("x",) * count, second.contiguous(), places)


def corrupted(dims: int) -> Corrupted:
    images = pairs(dims).images
    keys = torch.rand((len(images), 1), generator=torch.Generator().manual_seed(1))
    return Corrupted(images, None, ("x",) * len(images), corrupt_all(images, keys))


def network_of(dims: int) -> UNet:
    network = UNet(config(dims))
    network.initialize(torch.Generator().manual_seed(0))
    return network


def contrast_of(dims: int, settings: Contrast, held_out: CropPairs | None = None) -> VoxelContrast:
    generator = torch.Generator().manual_seed(0)
    embedder = start_embedder(UNet(config(dims)), settings.width, generator, None)
    return VoxelContrast(embedder, settings, held_out)


def test_a_patient_of_many_images_is_not_held_in_memory_whole() -> None:
    """A patient is held out with all slices; a pair of each of some hundreds took a gibibyte and more."""
    plan = Plan(2, ("image",), (), (16, 16))
    blank = Blank.like(plan, (16, 16), labelled=False, count=90)
    objective = Contrastive(replace(PRETRAIN["contrastive"], network=Network(preset="tiny")))
    pool = Unlabelled(blank, range(80, 90), range(80))
    found, images = objective.validation_pairs(pool), pool.validation_images()
    assert found is not None
    assert images is not None
    assert len(found) == len(images) == VALIDATION_IMAGES


@pytest.mark.parametrize("dims", [2, 3])
def test_pairs_are_the_same_voxel(dims: int) -> None:
    batch = pairs(dims)
    keys = torch.rand((3, 8**dims), generator=torch.Generator().manual_seed(1))
    first, second, valid = choose_pairs(batch, keys, 6**dims + 5)
    one = batch.images.flatten(2)[:, 0].gather(1, first)
    other = batch.others.flatten(2)[:, 0].gather(1, second)
    assert torch.equal(one[valid], other[valid])
    assert (valid.sum(1) == 6**dims).all()  # the overlap, all of it, before what lies outside
    assert all(len(set(row.tolist())) == len(row) for row in first)


@pytest.mark.parametrize("dims", [2, 3])
def test_contrast_is_perfect_for_perfect_embeddings_and_chance_for_equal_ones(dims: int) -> None:
    batch = pairs(dims)
    task = contrast_of(dims, Contrast(voxels=20), batch)

    class Values(torch.nn.Module):
        """Embeds a voxel by its own value alone, as a point on a circle."""

        def forward(self, images: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
            angle = images.flatten(2)[:, 0].gather(1, voxels) * 3.14159
            return torch.stack([angle.cos(), angle.sin()], dim=2)

    class Equal(torch.nn.Module):
        def forward(self, images: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
            return torch.ones((*voxels.shape, 1))

    device = torch.device("cpu")
    assert task.validate(Values(), device) == {"accuracy": 1.0}
    assert float(task.loss(Equal(), batch, random(3)).value) == pytest.approx(
        torch.tensor(20.0).log().item()
    )
    assert float(task.loss(Values(), batch, random(3)).value) < 2.5


@pytest.mark.parametrize("dims", [2, 3])
def test_micro_batches_change_no_loss(dims: int) -> None:
    contrast = contrast_of(dims, Contrast(voxels=20, width=8))
    restoring = Restoring(network_of(dims))
    hiding = MaskedAutoencoding(network_of(dims), 0.75, (2,) * dims)
    tasks = ((contrast, pairs(dims)), (restoring, corrupted(dims)), (hiding, corrupted(dims)))
    for task, batch in tasks:
        network = task.build().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.02)
            whole = task.loss(network, batch, random(3)).value
            parts = [
                task.loss(network, batch.part(i, i + 1), random(3, i, i + 1)).value
                for i in range(3)
            ]
        torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_restoring_at_its_start_is_as_far_as_zero_is() -> None:
    images = pairs(2).images
    task = Restoring(network_of(2), held_out=images)
    loss = task.loss(task.build(), corrupted(2), random(3)).value
    torch.testing.assert_close(loss, images.square().mean())
    with torch.no_grad():
        validated = task.validate(task.build(), torch.device("cpu"))
    assert validated["loss"] == pytest.approx(loss.item())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.75, 0.95])
def test_whole_blocks_are_masked_as_many_in_each_image(dims: int, share: float) -> None:
    shape, block = (8, 12, 4)[:dims], (4, 2, 4)[:dims]
    number = 12  # 2 x 6 blocks, and one along the third axis
    keys = torch.rand((5, number), generator=torch.Generator().manual_seed(1))
    hidden = masked(keys, share, shape, block)
    assert hidden.shape == (5, 1, *shape)
    count = {0.05: 1, 0.5: 6, 0.75: 9, 0.95: 11}[share]
    assert hidden.flatten(1).sum(1).tolist() == [count * 8 * (4 if dims == 3 else 1)] * 5
    for image, key in zip(hidden[:, 0], keys, strict=True):
        for i in range(2):
            for j in range(6):
                part = image[4 * i : 4 * i + 4, 2 * j : 2 * j + 2]
                assert bool(part.all()) or not bool(part.any())
                assert bool(part.all()) == bool((key < key[6 * i + j]).sum() < count)


@pytest.mark.parametrize("dims", [2, 3])
def test_only_masked_voxels_count_and_none_of_them_is_seen(dims: int) -> None:
    """A network that gives what it is shown is wrong by the masked values alone; what is visible is free."""
    images = pairs(dims).images
    task = MaskedAutoencoding(network_of(dims), 0.5, (2,) * dims, held_out=images)
    keys = torch.rand((3, 4**dims), generator=torch.Generator().manual_seed(2))
    hidden = masked(keys, 0.5, images.shape[2:], (2,) * dims)

    class Shown(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            assert (t == 0).all()
            assert (x[hidden] == 0).all()
            assert torch.equal(x[~hidden], images[~hidden])
            return torch.where(hidden, x, 99.0)

    wanted = [float(i[h].square().mean()) for i, h in zip(images, hidden, strict=True)]
    assert task.error(Shown(), images, keys).tolist() == pytest.approx(wanted)
    with torch.no_grad():
        once, again = (task.validate(task.build(), torch.device("cpu")) for _ in range(2))
    assert once == again
    assert once["loss"] > 0.2


@pytest.mark.parametrize("objective", ["restorative", "contrastive", "masked", "ddep"])
def test_a_rival_starts_a_segmenter_and_is_probed_without_noise(
    objective: str, unlabelled: Path, films: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run = radiffuse.pretrain(
        **pretrain_settings(unlabelled, tmp_path / "pre", cache, objective=objective)
    )
    network = load_network(run.model)
    assert isinstance(network, UNet)
    assert not (run.folder / "samples.npy").exists()
    common = {
        "data": films,
        "from_run": str(run.folder),
        "training": {"steps": 2, "batch_size": 2},
        "split": {"test": 0.4, "validation": 0.2},
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true"},
    }
    assert radiffuse.fit(**common, method="finetune", out=tmp_path / "seg").finished
    given = (
        f"{re.escape(str(run.folder))}:? was pre-trained by {objective}, which knows no timesteps"
    )
    late = common | {"finetune": {"timestep": 50}, "out": tmp_path / "late"}
    with pytest.raises(InputError, match=f"^timestep=50: {given}"):
        radiffuse.fit(**late, method="finetune")
    with pytest.raises(InputError, match=f'^method="pixel": {given}'):
        radiffuse.fit(**common, method="pixel", out=tmp_path / "pixel")
    with pytest.raises(InputError, match=f"^{given}"):
        radiffuse.generate(run=run.folder, out=tmp_path / "drawn", count=1, steps=2)
    started = Fit(data=str(films), from_run=str(run.folder))
    names = [name for name, *_ in proposals(started, open_dataset(films))]
    assert names == ["finetune", "imagenet", "scratch", "probe"]
    probing = common | {"method": "probe", "out": tmp_path / "probe"}
    with pytest.raises(InputError, match=r'probe={"timesteps".*knows no timesteps'):
        radiffuse.fit(**probing, probe={"timesteps": (10, 20), "width": 8})
    probed = radiffuse.fit(**probing, probe={"width": 8})
    heads = load_network(probed.model).configs  # type: ignore[union-attr]
    assert {head.timesteps for head in heads} == {(0,)}  # type: ignore[operator, union-attr]
    with pytest.raises(InputError, match='is for objective="ddpm"'):
        radiffuse.pretrain(
            **pretrain_settings(unlabelled, tmp_path / "x", cache, objective=objective),
            coordinates="runs/where",
        )


def test_a_single_block_is_refused_and_masked_volumes_are_learned(
    unlabelled: Path, tmp_path: Path
) -> None:
    from radiffuse.phantoms import write_dataset

    cache = tmp_path / "cache"
    with pytest.raises(InputError, match="size 8x8: is one block"):
        radiffuse.pretrain(**pretrain_settings(
            unlabelled, tmp_path / "x", cache, objective="masked", plan={"size": (8, 8)},
            network=TINY | {"multipliers": (1, 1, 1, 1)},
        ))  # fmt: skip
    write_dataset("abdomen", tmp_path / "ct", count=3, labelled=False, seed=0, size=(24, 24, 20))
    run = radiffuse.pretrain(**pretrain_settings(
        tmp_path / "ct", tmp_path / "run", cache, objective="masked", mask_ratio=0.5,
        plan={"size": (16, 16, 16)}, training={"steps": 12, "batch_size": 2, "learning_rate": 3e-3},
    ))  # fmt: skip
    rows = [row for row in run.log() if "loss" in row]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["images"] == 24


def test_contrast_is_learned_in_volumes_and_resumes(tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    write_dataset("abdomen", tmp_path / "ct", count=3, labelled=False, seed=0, size=(24, 24, 20))
    settings = pretrain_settings(
        tmp_path / "ct", tmp_path / "run", tmp_path / "cache", objective="contrastive",
        plan={"size": (16, 16, 16)}, contrast={"voxels": 64, "width": 16},
        training={"steps": 6, "batch_size": 2},
    )  # fmt: skip
    run = radiffuse.pretrain(**settings)
    rows = [row for row in run.log() if "loss" in row]
    assert rows[0]["loss"] == pytest.approx(torch.tensor(64.0).log().item(), rel=0.2)
    assert rows[-1]["images"] == 24  # 6 steps of 2 pairs of crops
    assert "Images seen" in (run.folder / "report.html").read_text()


def test_contrast_by_hand() -> None:
    """Two voxels; of the similarities, over a temperature of 1/2, rows and columns are compared with log 2 and so on.

    One voxel has the embeddings (1, 0) and (1, 0), the other (0, 1) and (1, 0): similarities 1, 1 and 0, 0.
    """

    class Known(torch.nn.Module):
        calls = 0

        def forward(self, images: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            first = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
            return first if self.calls == 1 else torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])

    task = contrast_of(2, Contrast(voxels=2, temperature=0.5))
    loss = float(task.loss(Known(), pairs(2, count=1), random(1)).value)
    log = torch.tensor(2.0).log()
    # Rows: (2, 2) and (0, 0), both undecided. Columns: (2, 0) twice, the first right, the second wrong.
    right, wrong = torch.tensor([2.0, 0.0]).log_softmax(0).neg()
    assert loss == pytest.approx(float((log + log + right + wrong) / 4))
