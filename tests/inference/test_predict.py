"""Masks on the scan's own grid: volumes by sliding windows, films whole; what is kept and what is refused."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import radiffuse
from conftest import SIZE
from radiffuse.config import Network, resolve_network
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_scan, write_label
from radiffuse.data.scan import Array, Scan, canonical_spacing
from radiffuse.errors import InputError, RunError
from radiffuse.inference.draw import draw_images
from radiffuse.inference.members import Member, one_pass
from radiffuse.inference.predictor import Predictor
from radiffuse.nets.unet import UNet
from tiny_runs import finished_run, oblique, tiny, volume_plan

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


class Threshold(nn.Module):
    """A network whose answer is known: class 1 where the image is bright, never class 2."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([-images, images, torch.full_like(images, -5)], dim=1) * 20


def predictor(network: nn.Module, plan: Plan, overlap: float = 0.5) -> Predictor:
    member = Member("toy", one_pass(network), plan)
    return Predictor([member], torch.device("cpu"), contextlib.nullcontext, overlap=overlap)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_put_a_volume_together_without_seams(overlap: float) -> None:
    rng = np.random.default_rng(0)
    array = np.where(rng.random((1, 19, 13, 10)) < 0.5, -1.0, 1.0).astype(np.float32)
    scan = Scan(array, (1.0, 1.0, 1.0), np.eye(4))
    found = predictor(Threshold(), volume_plan(), overlap)(scan)
    assert np.array_equal(found.mask, array[0] > 0)
    assert (found.confidence > 0.99).all()


@pytest.mark.parametrize("steps", [("largest",), ("2=drop:999", "1=fill")])
def test_the_confidence_is_that_of_the_class_in_the_mask(steps: tuple[str, ...]) -> None:
    """Where postprocessing removes a piece or fills a hole it is that of the new class, also on another grid."""
    array = np.full((1, 16, 16), 20, np.float32)
    array[0, 2:9, 2:9], array[0, 4:6, 4:6], array[0, 12:14, 12:14] = 90, 35, 80
    grid = {"low": 0, "high": 100, "grid": (12, 12), "resize": "stretch"}
    plan = Plan(2, ("film",), ("x", "y", "z"), (12, 12), **grid)  # type: ignore[arg-type]
    toy = predictor(Threshold(), replace(plan, postprocess=steps))
    found, before = toy(Scan(array)), predictor(Threshold(), plan)(Scan(array))
    probable = toy.probabilities(Scan(array))
    assert (found.mask != before.mask).any()
    mine = np.take_along_axis(probable, found.mask[None].astype(np.int64), 0)[0]
    assert np.allclose(found.confidence, mine, atol=1e-6)
    assert np.array_equal(
        found.confidence[found.mask == before.mask], before.confidence[found.mask == before.mask]
    )


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_windows_put_a_film_together_without_seams(overlap: float) -> None:
    array = np.where(np.random.default_rng(0).random((1, 40, 60)) < 0.5, 0, 255).astype(np.float32)
    plan = Plan(
        2, ("film",), ("x", "y", "z"), (16, 16), resize="fit", low=0, high=100, grid=(60, 60)
    )
    sizes = []

    class Seen(Threshold):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(tuple(images.shape[2:]))
            return super().forward(images)

    found = predictor(Seen(), plan, overlap)(Scan(array))
    assert np.array_equal(found.mask, array[0] > 0)
    assert set(sizes) == {(16, 16)}
    assert len(sizes) == (
        16 if overlap == 0 else 49
    )  # 4 x 4 windows cover 60 x 60, or 7 x 7 that overlap


def test_one_window_is_one_pass() -> None:
    network = tiny(3, 3).eval()
    with torch.no_grad():
        network.unet.head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    images = torch.rand((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        scan = Scan(images[0].numpy(), (1.0, 1.0, 1.0), np.eye(4))
        expected = network(images)[0].softmax(0).max(0)
        found = predictor(network, volume_plan())(scan)
        assert np.array_equal(found.mask, expected.indices.numpy())
        np.testing.assert_allclose(found.confidence, expected.values.numpy(), atol=1e-5)


def test_a_volume_smaller_than_a_window_is_filled_up_and_cut_back() -> None:
    array = np.ones((1, 5, 9, 3), np.float32)
    array[:, :2] = -1
    scan = Scan(array, (1.0, 1.0, 1.0), np.eye(4))
    found = predictor(Threshold(), volume_plan((8, 8, 8)))(scan)
    assert np.array_equal(found.mask, array[0] > 0)


def test_an_oblique_volume_keeps_its_grid_and_its_content(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    data = tmp_path / "ct"
    data.mkdir()
    shapes = {"a": (10, 8, 9), "b": (7, 12, 6)}
    for name, shape in shapes.items():
        values = np.where(rng.random(shape) < 0.5, -1, 1).astype(np.int16)
        nibabel.Nifti1Image(values, oblique()).to_filename(data / f"{name}.nii.gz")
    run = finished_run(tmp_path / "run", volume_plan())
    out = tmp_path / "masks"
    radiffuse.predict(runs=run, data=data, out=out, machine=MACHINE, confidence=True)
    for name, shape in shapes.items():
        mask = nibabel.load(out / f"{name}.nii.gz")
        assert mask.shape == shape
        np.testing.assert_allclose(mask.affine, oblique(), atol=1e-5)
        assert mask.header.get_zooms() == pytest.approx((0.8, 1.5, 2.0), abs=1e-5)
        assert np.asarray(mask.dataobj).dtype == np.uint8
        confidence = nibabel.load(out / f"{name}-confidence.nii.gz")
        values = np.asarray(confidence.dataobj)
        assert confidence.shape == shape
        assert (values > 0).all()
        assert (values <= 1 + 1e-6).all()
    # The same through a network whose answer is known.
    source = nibabel.load(data / "a.nii.gz")
    array = np.asarray(source.dataobj, np.float32)[None]
    plan = Plan(
        3, ("CT",), ("x", "y", "z"), (8, 8, 8), (1.5, 2.0, 0.8), intensity="window", low=-1, high=1
    )
    found = predictor(Threshold(), plan)(Scan(array, (0.8, 1.5, 2.0), oblique()))
    assert np.array_equal(found.mask, array[0] > 0)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
@pytest.mark.parametrize("skew", [0.0, 0.2])
def test_masks_lie_where_their_scan_lies(
    order: tuple[int, ...], signs: tuple[int, ...], skew: float, tmp_path: Path
) -> None:
    """From file to file: permuted, flipped and sheared axes, sform and qform, voxel for voxel."""
    spacing = (0.8, 1.5, 2.0)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)[:, order] * signs
    affine[1, :3] += skew * affine[2, :3]
    affine[:3, 3] = (40, -35, 910)
    rng = np.random.default_rng(5)
    values = np.where(rng.random((9, 7, 8)) < 0.5, -1, 1).astype(np.int16)
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, 2)
    image.set_qform(None if skew else affine, 0 if skew else 1)
    image.to_filename(tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    plan = Plan(
        3, ("CT",), ("x", "y", "z"), (8, 8, 8), canonical_spacing(scan), intensity="window",
        low=-1, high=1,
    )  # fmt: skip
    found = predictor(Threshold(), plan)(scan)
    write_label(tmp_path / "mask.nii.gz", found.mask, scan)
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), values > 0)
    np.testing.assert_array_equal(mask.affine, nibabel.load(tmp_path / "scan.nii.gz").affine)
    assert int(mask.header["sform_code"]) == 2
    assert int(mask.header["qform_code"]) == (0 if skew else 1)


def test_finished_masks_are_kept_and_missing_ones_added(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan(2, ("image",), ("background", "a"), SIZE)
    run = finished_run(tmp_path / "run", plan)
    out = tmp_path / "masks"
    radiffuse.predict(runs=run, data=films, out=out, machine=MACHINE)
    masks = sorted(out.glob("*.png"))
    assert len(masks) == 12
    said = capsys.readouterr().err
    assert "segmenting 12/12" in said
    assert "already" not in said
    whole = masks[3].read_bytes()
    others = {mask: mask.stat().st_mtime_ns for mask in masks if mask != masks[3]}
    masks[3].unlink()
    radiffuse.predict(runs=run, data=films, out=out, machine=MACHINE)
    assert masks[3].read_bytes() == whole
    assert {mask: mask.stat().st_mtime_ns for mask in others} == others
    assert "11 of 12 masks were there already and stay\n" in capsys.readouterr().err
    radiffuse.predict(runs=run, data=films, out=out, machine=MACHINE)
    said = capsys.readouterr().err
    assert "12 of 12 masks were there already and stay; nothing was segmented" in said
    assert "segmenting" not in said


def test_one_film_alone_can_be_segmented(films: Path, tmp_path: Path) -> None:
    from PIL import Image

    film = sorted((films / "images").iterdir())[0]
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), (16, 16)))
    out = radiffuse.predict(runs=run, data=film, out=tmp_path / "masks", machine=MACHINE)
    (mask,) = out.glob("*.png")
    assert mask.stem == film.stem
    assert Image.open(mask).size == Image.open(film).size


def test_films_are_no_volumes(films: Path, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", volume_plan())
    film = sorted((films / "images").iterdir())[0]
    with pytest.raises(InputError, match=rf"{film.name}: has 2 spatial axes, the run has 3"):
        radiffuse.predict(runs=run, data=films, out=tmp_path / "masks", machine=MACHINE)


def test_a_bad_scan_stops_or_is_listed(films: Path, tmp_path: Path) -> None:
    import json
    import shutil

    data = tmp_path / "data"
    shutil.copytree(films / "images", data)
    bad = sorted(data.iterdir())[2]
    bad.write_bytes(bad.read_bytes()[:100])
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), SIZE))
    arguments = {"runs": run, "data": data, "out": tmp_path / "masks", "machine": MACHINE}
    with pytest.raises(InputError, match=bad.name):
        radiffuse.predict(**arguments)
    assert len(list((tmp_path / "masks").glob("*.png"))) == 2  # what was done is kept
    radiffuse.predict(**arguments, reader={"skip_bad": True})
    assert len(list((tmp_path / "masks").glob("*.png"))) == 11
    assert [s["case"] for s in json.loads((tmp_path / "masks/skipped.json").read_text())] == [
        bad.stem
    ]


def test_runs_that_cannot_predict(films: Path, pretrained: Path, tmp_path: Path) -> None:
    arguments = {"data": films, "out": tmp_path / "masks", "machine": MACHINE}
    with pytest.raises(RunError, match="no segmentation run"):
        radiffuse.predict(runs=pretrained, **arguments)
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), SIZE))
    with pytest.raises(InputError, match="none of the run's test cases"):
        radiffuse.predict(runs=run, cases="test", **arguments)
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(RunError, match=r"model\.safetensors: is damaged"):
        radiffuse.predict(runs=run, **arguments)
    (run / "model" / "config.json").unlink()
    with pytest.raises(RunError, match="has not finished"):
        radiffuse.predict(runs=run, **arguments)


def test_drawn_images_depend_on_the_seed_alone() -> None:
    from radiffuse.config import Diffusion

    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
    )
    network = UNet(unet)
    network.initialize(torch.Generator().manual_seed(0))
    plan = Plan(2, ("image",), (), (16, 16))

    def draw(seed: int) -> Array:
        return draw_images(network.eval(), Diffusion(), plan, count=3, steps=2, seed=seed)

    first = draw(0)
    torch.manual_seed(7)
    assert first.shape == (3, 1, 16, 16)
    assert -1 <= first.min() <= first.max() <= 1
    assert np.array_equal(first, draw(0))
    assert not np.array_equal(first, draw(1))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_by_the_name_of_the_scan(
    dims: int, value: float
) -> None:
    """One pixel of a later window is enough; as a mask it would be background."""

    class Spoiled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.where(images > 0.9, value, images).repeat(1, 3, *[1] * dims)

    plan = volume_plan()
    if dims == 2:
        plan = replace(plan, spatial_dims=2, size=(16, 16), spacing=None)
    array = np.zeros((1, *[16] * dims), np.float32)
    array[0, 0, 0] = -1
    scan = Scan(array.copy(), (1.0,) * 3, np.eye(4)) if dims == 3 else Scan(array.copy())
    assert predictor(Spoiled(), plan)(scan, "good").mask.shape == array.shape[1:]
    scan.array[(0, *[-1] * dims)] = 1
    with pytest.raises(InputError, match="bad: toy answers with numbers that are not finite"):
        predictor(Spoiled(), plan)(scan, "bad")
