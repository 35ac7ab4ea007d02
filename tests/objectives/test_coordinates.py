"""The body-part regressor: exact places, a loss that is zero for the truth, and a map that learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import radiffuse
from conftest import TINY
from radiffuse.config import Augmentation, Network, resolve_network
from radiffuse.config.types import Ramp
from radiffuse.data.crops import CropPairBatches, CropPairs, crop_size
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.inference.coordinates import (
    Quality,
    RegressorErrors,
    carry,
    coordinate_map,
    middle_planes,
    warn_of_guide,
    write_quality,
)
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.registry import load_network, save_network
from radiffuse.objectives.coordinates import CoordinateLearning
from radiffuse.reports.pictures import coordinate_figure
from radiffuse.system.files import read_json, seal
from radiffuse.train.random import StepRandom
from radiffuse.train.run import Run

SHAPES = {2: (24, 20), 3: (12, 10, 14)}
CROPS = {2: (16, 12), 3: (8, 8, 8)}


class Scans:
    """Prepared scans whose voxels say where they are."""

    def __init__(self, dims: int, count: int = 3) -> None:
        shape = SHAPES[dims]
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
        self.images = [(grid + 1).astype(np.float16) / 64 for _ in range(count)]
        self.cases = [type("Case", (), {"name": f"c{i}"}) for i in range(count)]
        self.plan = Plan(dims, ("x",) * dims, (), shape)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


def pairs(dims: int, step: int = 0, **changes: float) -> CropPairs:
    batches = CropPairBatches(
        Scans(dims),  # type: ignore[arg-type]
        CROPS[dims],
        batch_size=4,
        seed=0,
        augmentation=Augmentation(**changes),  # type: ignore[arg-type]
        indices=(0, 1, 2),
    )
    return batches(step)


def random(total: int = 4, step: int = 0) -> StepRandom:
    return StepRandom(0, step, total=total, start=0, stop=total, device=torch.device("cpu"))


def regressor(dims: int, channels: int = 1, ramp: Ramp = "none") -> CoordinateRegressor:
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2, 2), blocks=1, attention_factors=(), head_channels=8),
        spatial_dims=dims,
        in_channels=channels + dims * (ramp == "input"),
        out_channels=dims,
    )
    network = CoordinateRegressor(unet, (4.0, 3.0, 5.0)[:dims], ramp, (2.0, 1.5, 1.0)[:dims])
    network.initialize(torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_places_are_where_the_crops_lie(dims: int) -> None:
    for step in range(5):
        batch = pairs(dims, step)
        for images, side in ((batch.images, 0), (batch.others, 1)):
            corner = images.flatten(2)[:, :, 0] * 64 - 1
            torch.testing.assert_close(corner, batch.places[:, side], atol=0.05, rtol=0)
    seen = torch.cat([pairs(dims, step).places for step in range(20)])
    assert (seen.amin((0, 1)) == 0).all()
    room = torch.tensor(SHAPES[dims]) - torch.tensor(CROPS[dims])
    assert torch.equal(seen.amax((0, 1)), room.float())


def test_batches_are_functions_of_the_step_and_ranks_share_them() -> None:
    first, again = pairs(2, 3, noise=0.1), pairs(2, 3, noise=0.1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, pairs(2, 4, noise=0.1).images)
    part = first.part(1, 3)
    assert torch.equal(part.others, first.others[1:3])
    assert torch.equal(part.places, first.places[1:3])
    assert len(part) == 2


def test_a_change_that_moves_voxels_is_refused() -> None:
    with pytest.raises(InputError, match=r"augmentation\.rotate 5.*moves voxels"):
        pairs(2, rotate=5)


class Truth(nn.Module):
    """Reads a voxel's place off its values: what a perfect regressor would say, but for an offset."""

    def __init__(self, dims: int, offset: float = 7.0) -> None:
        super().__init__()
        self.scale = torch.tensor((4.0, 3.0, 5.0)[:dims])
        self.offset = offset

    def forward(self, images: Tensor) -> Tensor:
        place = (
            images
            * 64
            * torch.tensor((2.0, 1.5, 1.0)[: len(self.scale)]).reshape(
                1, -1, *[1] * (images.ndim - 2)
            )
        )
        return place / self.scale.reshape(1, -1, *[1] * (images.ndim - 2)) + self.offset


@pytest.mark.parametrize("dims", [2, 3])
def test_the_truth_has_no_loss_and_distances_are_in_millimeters(dims: int) -> None:
    truth = Truth(dims)
    spacing = (2.0, 1.5, 1.0)[:dims]
    task = CoordinateLearning(truth, spacing, voxels=64, agreement=1.0, held_out=pairs(dims))  # type: ignore[arg-type]
    for step in range(4):
        found = task.loss(truth, pairs(dims, step), random(step=step))
        assert float(found.value) < 1e-4
        assert set(found.terms) == {"loss_distance", "loss_agreement"}
    scores = task.validate(truth, torch.device("cpu"))
    assert scores["correlation"] > 0.999
    assert scores["median_error"] < 0.1
    predicted, true = task.distances(truth, pairs(dims))
    longest = float(np.linalg.norm(np.array(SHAPES[dims]) * spacing))
    assert 0.3 * longest < true.max() <= longest
    np.testing.assert_allclose(predicted, true, atol=0.2)
    wrong = Truth(dims)
    wrong.scale = wrong.scale * 2
    assert float(task.loss(wrong, pairs(dims), random()).value) > 0.05


@pytest.mark.parametrize("dims", [2, 3])
def test_places_are_measured_against_what_sees_no_image(dims: int) -> None:
    """Values of the voxels are their places: the difference without the image lacks that of the crops."""
    truth, held_out, spacing = Truth(dims), pairs(dims), (2.0, 1.5, 1.0)[:dims]
    task = CoordinateLearning(truth, spacing, voxels=1, agreement=0.0)  # type: ignore[arg-type]
    predicted, true, blind = task.differences(truth, held_out)
    torch.testing.assert_close(predicted, true, atol=0.2, rtol=0)
    shift = (held_out.places[:, 0] - held_out.places[:, 1]) * torch.tensor(spacing)
    each = len(true) // len(held_out)
    torch.testing.assert_close(true - blind, shift.repeat_interleave(each, dim=0))

    class Inside(nn.Module):
        """Knows where a voxel is in its crop, and nothing of the image."""

        def forward(self, images: Tensor) -> Tensor:
            axes = [torch.arange(n) * mm for n, mm in zip(images.shape[2:], spacing, strict=True)]
            grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
            return (grid / truth.scale.reshape(-1, *[1] * dims))[None]

    torch.testing.assert_close(task.differences(Inside(), held_out)[0], blind)


def test_a_regressor_that_is_no_better_than_chance_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = RegressorErrors(19.0, 20.0, 30), RegressorErrors(20.0, 20.0, 30)
    for name, quality, faults in (
        ("nothing", Quality("mm"), 0),
        ("fine", Quality("mm", good, good), 0),
        ("places", Quality("mm", bad, good), 1),
        ("landmarks", Quality("mm", good, bad), 1),
        ("worse", Quality("mm", RegressorErrors(21.0, 20.0, 1)), 1),
    ):
        folder = tmp_path / name
        folder.mkdir()
        write_quality(folder, quality)
        lines = capsys.readouterr().err.splitlines()
        warned = [line for line in lines if line.startswith(f"warning: {folder}: ")]
        assert len(warned) == faults, lines
        said = [line for line in lines if line.startswith("radiffuse: on ")]
        assert len(said) == (quality.places is not None) + (quality.landmarks is not None)
    assert said == [
        "radiffuse: on 1 held-out scans, places within a scan are 21 mm off (median), 20 mm without the image"
    ]
    (folder / "quality.json").write_text('{"unit": "mm", "places": 3}')
    with pytest.raises(InputError, match="is damaged"):
        warn_of_guide(folder)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_regressor_ends_at_a_quarter_and_trains_every_weight(dims: int, tmp_path: Path) -> None:
    network = regressor(dims)
    images = torch.rand((2, 1, *(16,) * dims), generator=torch.Generator().manual_seed(0))
    coordinates = network(images)
    assert coordinates.shape == (2, dims, *(16,) * dims)
    coordinates.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    network.eval()
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    assert torch.equal(again.scale, network.scale)  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(again(images), network(images))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("ramp", ["input", "output"])
def test_a_ramp_is_the_place_in_the_patch(dims: int, ramp: Ramp, tmp_path: Path) -> None:
    """It goes by the length of a voxel over that of a unit, 0 in the middle, along each axis alone."""
    network = regressor(dims, ramp=ramp).eval()
    images = torch.rand((2, 1, *(16,) * dims), generator=torch.Generator().manual_seed(0))
    unit = torch.tensor((2 / 4, 1.5 / 3, 1 / 5)[:dims]).reshape(1, dims, *[1] * dims)
    grid = torch.stack(torch.meshgrid(*[torch.arange(16.0) - 7.5] * dims, indexing="ij"))[None]
    seen: list[Tensor] = []
    network.trunk.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert network.image_channels == 1
    with torch.no_grad():
        found = network(images)
        plain = regressor(dims)
        if ramp == "output":
            plain.load_state_dict(network.state_dict())
            torch.testing.assert_close(found, plain.eval()(images) + grid * unit)
            assert torch.equal(seen[0], images)
        else:
            torch.testing.assert_close(seen[0][:, 1:], (grid * unit).expand(2, *[-1] * (dims + 1)))
            assert torch.equal(seen[0][:, :1], images)
        save_network(network, tmp_path)
        assert torch.equal(load_network(tmp_path).eval()(images), found)


def test_a_regressor_from_before_ramps_is_read(tmp_path: Path) -> None:
    network = regressor(2).eval()
    save_network(network, tmp_path)
    description = read_json(tmp_path / "config.json", dict)
    assert [description.pop(name) for name in ("ramp", "step")] == ["none", [2.0, 1.5]]
    seal(tmp_path, "config.json", description)
    images = torch.rand((1, 1, 16, 16))
    assert torch.equal(load_network(tmp_path).eval()(images), network(images))
    seal(tmp_path, "config.json", description | {"ramp": "up"})
    with pytest.raises(InputError, match="ramp"):
        load_network(tmp_path)


def test_a_map_of_a_volume_is_blended_from_patches() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.ones_like(images).expand(-1, 3, -1, -1, -1) * 2

    found = coordinate_map(Constant(), torch.zeros(1, 20, 9, 11), (8, 8, 8))  # type: ignore[arg-type]
    assert found.shape == (3, 20, 9, 11)
    torch.testing.assert_close(found, torch.full_like(found, 2.0))


def test_points_are_carried_to_the_nearest_coordinates() -> None:
    grid = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij"))
    moved = grid - torch.tensor([2.0, -1.0]).reshape(2, 1, 1)
    assert carry((3, 4), grid, moved, torch.ones(2)) == (5, 3)
    # A unit that is ten times as long makes its axis count more.
    bent = moved.clone()
    bent[:, 5, 3] = 100
    assert carry((3, 4), grid, bent, torch.tensor([1.0, 10.0])) in {(4, 3), (6, 3)}


def arguments(data: Path, out: Path, cache: Path, **changes: object) -> dict[str, object]:
    return {
        "data": data,
        "out": out,
        "network": TINY | {"multipliers": (1, 2, 2)},
        "plan": {"size": (32, 32)},
        "training": {"steps": 60, "batch_size": 4, "learning_rate": 3e-3, "warmup_steps": 5,
                     "log_every": 10, "validate_every": 30, "checkpoint_every": 20},
        "objective": "coordinates",
        "regressor": {"voxels": 128},
        "reader": {"cache": str(cache)},
        "machine": {"accelerator": "cpu", "precision": "32-true", "threads": 1},
    } | changes  # fmt: skip


@pytest.mark.usefixtures("drawn")
def test_distances_are_learned_on_films_and_a_resumed_run_is_bit_identical(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from radiffuse.train import loop

    straight = radiffuse.pretrain(**arguments(unlabelled, tmp_path / "a", tmp_path / "c"))
    scores = [row["validation"] for row in straight.log() if "validation" in row]
    assert scores[-1]["correlation"] > 0.5
    original = loop.save_checkpoint

    def killed(folder: Path, checkpoint: object) -> None:
        original(folder, checkpoint)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        radiffuse.pretrain(**arguments(unlabelled, tmp_path / "b", tmp_path / "c"))
    monkeypatch.setattr(loop, "save_checkpoint", original)
    resumed = radiffuse.pretrain(**arguments(unlabelled, tmp_path / "b", tmp_path / "c"))
    one, other = (load_file(run.model / "model.safetensors") for run in (straight, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "Coordinates" in (straight.folder / "report.html").read_text()
    quality = json.loads((straight.folder / "quality.json").read_text())
    assert quality["unit"] == "px"
    assert quality["landmarks"] is None
    assert quality["places"]["scans"] == len(straight.data["split"]["validation"])
    assert 0 < quality["places"]["error"] < 3 * quality["places"]["trivial"]
    assert "places within a scan are" in capsys.readouterr().err
    quality["places"] |= {"error": 7.0, "trivial": 6.0}
    (straight.folder / "quality.json").write_text(json.dumps(quality))
    guided = {"plan": {}, "objective": "ddpm", "coordinates": str(straight.folder)}
    few = {"training": {"steps": 1, "batch_size": 2}}
    chosen = arguments(unlabelled, tmp_path / "guided", tmp_path / "c", **guided | few)
    radiffuse.pretrain(**{k: v for k, v in chosen.items() if k != "regressor"})
    wanted = f"warning: {straight.folder}: finds its way no better than chance: places 7 px off"
    assert wanted in capsys.readouterr().err
    with pytest.raises(InputError, match="is not a pre-trained denoiser"):
        radiffuse.pretrain(
            data=unlabelled, out=tmp_path / "p", from_=straight.folder, objective="ddep",
            network=TINY, plan={"size": (32, 32)}, reader={"cache": str(tmp_path / "c")},
        )  # fmt: skip


def test_volumes_have_three_coordinates(tmp_path: Path) -> None:
    from radiffuse.phantoms import write_dataset

    write_dataset("abdomen", tmp_path / "ct", count=4, labelled=False, seed=0, size=(24, 24, 20))
    write_dataset("abdomen", tmp_path / "known", count=2, labelled=True, seed=1, size=(24, 24, 20))
    chosen = arguments(
        tmp_path / "ct", tmp_path / "run", tmp_path / "c", plan={"size": (16, 16, 16)},
        training={"steps": 2, "batch_size": 2, "log_every": 1, "validate_every": 2},
    )  # fmt: skip
    run = radiffuse.pretrain(**chosen)
    weights = (run.model / "model.safetensors").read_bytes()
    again = radiffuse.pretrain(  # of a finished run
        **chosen | {"regressor": {"voxels": 128, "landmarks": str(tmp_path / "known")}}
    )
    assert (again.model / "model.safetensors").read_bytes() == weights
    landmarks = pd.read_csv(run.folder / "landmarks.csv")
    quality = json.loads((run.folder / "quality.json").read_text())
    assert quality["unit"] == "mm"
    assert quality["landmarks"]["error"] == pytest.approx(landmarks["error"].mean(), rel=1e-5)
    assert quality["landmarks"]["trivial"] == pytest.approx(
        landmarks["same_place"].mean(), rel=1e-5
    )
    assert {"liver", "spleen"} < set(landmarks["class"])
    assert landmarks["error"].between(0, 1000).all()
    assert "carried to another scan" in (run.folder / "report.html").read_text()
    network = load_network(Run.open(run.folder).model)
    assert isinstance(network, CoordinateRegressor)
    extent = np.array((24, 24, 20)) * np.array(run.plan.spacing)
    assert sorted((network.scale.numpy() * np.sqrt(12)).round(2)) == pytest.approx(
        sorted(extent), rel=0.1
    )
    coordinate_figure(run.folder / "coordinates.npz")


def test_planes_show_the_head_up_and_the_right_on_the_left() -> None:
    volume = np.zeros((1, 4, 6, 8))
    volume[0, 3, 3:, -1] = 1  # superior and anterior, at the patient's right
    volume[0, 3, 5, 4] = 1
    planes = middle_planes(volume)
    assert planes["coronal"].shape == (1, 8, 4)
    assert np.argwhere(planes["coronal"][0]).tolist() == [[0, 0]]
    assert planes["axial"].shape == (1, 6, 4)
    assert np.argwhere(planes["axial"][0]).tolist() == [[0, 0]]
    assert planes["sagittal"].shape == (1, 8, 6)


def test_a_crop_can_be_halved_as_often_as_the_network_does() -> None:
    assert crop_size(Plan(2, ("x",), (), (64, 48)), 0.75, (8, 16)) == (48, 32)
    assert crop_size(Plan(3, ("x",), (), (8, 16, 24)), 0.5, (1, 8, 8)) == (4, 8, 8)
