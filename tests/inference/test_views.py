"""Test-time augmentation: views are undone exactly, averaged alike, and mirrored by the plan alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_ensembles import FILM, MACHINE, VOLUME, predictor
from test_records import film
from torch import Tensor
from torch.nn import functional

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_label
from radiffuse.data.scan import Array, Scan
from radiffuse.errors import InputError
from radiffuse.inference.members import Member
from radiffuse.inference.records import Record
from radiffuse.inference.views import SCALES, View, views
from tiny_runs import finished_run

MIRRORED = dataclasses.replace(FILM, mirror=(1,))


def split(values: Tensor, thick: int) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, values.shape[1], thick):
        yield first, values[:, first : first + thick]


@pytest.mark.parametrize("shape", [(13, 20), (11, 7, 9), (2, 5, 4)])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("thick", [1, 3, 100])
def test_slabs_are_resized_as_if_they_were_one(
    shape: tuple[int, ...], scale: float, thick: int
) -> None:
    seen = tuple(max(1, round(n * scale)) for n in shape)
    values = torch.rand((3, *seen), generator=torch.Generator().manual_seed(0))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    expected = functional.interpolate(values[None], shape, mode=mode, align_corners=False)[0]
    for flips in ((), (0,), (1,)):
        axes = [axis + 1 for axis in flips]
        found = torch.full_like(expected, torch.nan)
        for first, slab in View(flips, scale).undo(split(values, thick), shape):
            found[:, first : first + slab.shape[1]] = slab
        torch.testing.assert_close(found, expected.flip(axes))


def test_the_views_are_those_that_the_plan_permits() -> None:
    assert views((), MIRRORED, "run") == [View()]
    assert views(("mirror",), MIRRORED, "run") == [View(), View((1,))]
    assert [view.scale for view in views(("scale",), FILM, "run")] == [1.0, 0.8, 1.25]
    assert len(views(("scale", "mirror"), MIRRORED, "run")) == 6
    two = dataclasses.replace(VOLUME, mirror=(0, 2))
    assert [view.flips for view in views(("mirror",), two, "run")] == [(), (0,), (2,), (0, 2)]
    sided = dataclasses.replace(FILM, reasons={"mirror": "left kidney is of one side"})
    with pytest.raises(InputError, match=r"--tta mirror.*runs/a.*left kidney is of one side"):
        views(("mirror", "scale"), sided, "runs/a")


def sided(plan: Plan, axis: int) -> Member:
    """A member that is the surer of class 1 the nearer a voxel is to the end of an axis of its window."""

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        n = images.shape[axis + 2]
        line = torch.linspace(-2, 2, n).reshape(-1, *[1] * (images.ndim - 3 - axis))
        ramp = line.expand(len(images), *images.shape[2:])
        return torch.stack([torch.zeros_like(ramp), ramp, torch.full_like(ramp, -9)], 1)[None]

    return Member("sided", segment, plan)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_views_are_turned_back_and_count_half(axis: int) -> None:
    plan = dataclasses.replace(FILM, mirror=(axis,), resize="stretch")
    scan = Scan(np.random.default_rng(0).random((1, 16, 16)).astype(np.float32))
    found = predictor(sided(plan, axis), tta=("mirror",), uncertainty=True)(scan)
    line = torch.linspace(-2, 2, 16)
    logits = torch.stack([torch.zeros(16), line, torch.full((16,), -9.0)])
    once = logits.softmax(0)[1]
    mean = ((once + once.flip(0)) / 2).numpy()
    expected = np.tile(mean[:, None] if axis == 0 else mean, (1, 16) if axis == 0 else (16, 1))
    np.testing.assert_allclose(found.maps["mean-a"], expected, atol=1e-6)
    assert "variance" in found.maps


def bright(plan: Plan) -> Member:
    """A member that goes by the intensity of each voxel alone."""

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        value = images[:, 0]
        return torch.stack([-value, value, torch.full_like(value, -9)], 1)[None]

    return Member("bright", segment, plan)


@pytest.mark.parametrize("kinds", [("mirror",), ("scale",), ("mirror", "scale")])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_view_of_what_goes_by_intensity_says_the_same(
    dims: int, kinds: tuple[str, ...]
) -> None:
    """Of a ramp, which is the same ramp at any scale but for its ends; along the axis of slabs and across."""
    plan = dataclasses.replace(FILM if dims == 2 else VOLUME, mirror=(0,), resize="stretch")
    shape = (16, 16) if dims == 2 else (20, 10, 12)
    axes = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in shape), indexing="ij")
    array = sum(axes).astype(np.float32)[None] / dims  # type: ignore[union-attr]
    scan = Scan(array, None if dims == 2 else (1.0,) * 3, None if dims == 2 else np.eye(4))
    once = predictor(bright(plan)).probabilities(scan)
    many = predictor(bright(plan), tta=kinds).probabilities(scan)
    inner = (slice(None), *[slice(2, -2)] * dims)
    np.testing.assert_allclose(many.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(many[inner], once[inner], atol=0.01 if "scale" in kinds else 1e-5)
    if kinds == ("mirror",):
        np.testing.assert_allclose(many, once, atol=1e-5)


def test_predict_averages_records_and_refuses(tmp_path: Path) -> None:
    """Against a mask of the mean of both probabilities, by the network itself."""
    from radiffuse.config import Machine
    from radiffuse.inference.predictor import Predictor
    from radiffuse.train.run import Run

    plan = Plan(2, ("image",), ("background", "a"), (16, 16), mirror=(1,))
    run = finished_run(tmp_path / "run", plan, seed=1)
    film(tmp_path / "data" / "a.png", 0)
    common = {"runs": run, "data": tmp_path / "data", "machine": MACHINE}
    out = radiffuse.predict(**common, out=tmp_path / "masks", tta=("mirror",))
    scan = radiffuse.data.readers.read_scan(tmp_path / "data" / "a.png")
    single = Predictor.open([Run.open(run)], Machine(**MACHINE))  # type: ignore[arg-type]
    turned = Scan(scan.array[:, :, ::-1].copy())
    mean = (single.probabilities(scan) + single.probabilities(turned)[:, :, ::-1]) / 2
    mask = read_label(out / "a.png").array[0]
    assert np.array_equal(mask, mean.argmax(0))
    assert not np.array_equal(mask, single(scan).mask)
    record = Record.read(out)
    assert record is not None
    assert record.header["settings"]["tta"] == "mirror"
    with pytest.raises(InputError, match="tta = mirror, not None"):
        radiffuse.predict(**common, out=out)
    with pytest.raises(InputError, match=r'tta=\("none", "mirror"\).*Leave one out'):
        radiffuse.predict(**common, out=tmp_path / "no", tta=("none", "mirror"))
    plain = finished_run(tmp_path / "plain", dataclasses.replace(plan, mirror=()), seed=1)
    with pytest.raises(InputError, match='tta="mirror".*plain'):
        radiffuse.predict(runs=plain, data=tmp_path / "data", out=tmp_path / "no", tta="mirror")


def test_a_choice_of_runs_brings_its_views_unless_others_are_given(tmp_path: Path) -> None:
    """What the list of members says is done by default; none undoes it."""
    from radiffuse.config import Machine
    from radiffuse.errors import RunError
    from radiffuse.inference.predictor import Predictor
    from radiffuse.system.files import seal
    from radiffuse.train.run import Run

    plan = Plan(2, ("image",), ("background", "a"), (16, 16), mirror=(1,))
    run = finished_run(tmp_path / "run", plan, seed=1)
    chosen = finished_run(tmp_path / "chosen", plan, seed=1)
    shutil.copytree(run, chosen / "members" / "one")
    machine = Machine(**MACHINE)  # type: ignore[arg-type]
    film(tmp_path / "a.png", 0)
    scan = radiffuse.data.readers.read_scan(tmp_path / "a.png")

    def seen(views: list[str], tta: tuple[str, ...] | None = None) -> Array:
        seal(chosen / "model", "config.json", {"kind": "members", "members": ["one"], "tta": views})
        return Predictor.open([Run.open(chosen)], machine, tta=tta).probabilities(scan)

    plain, mirrored = (
        Predictor.open([Run.open(run)], machine, tta=tta).probabilities(scan)
        for tta in ((), ("mirror",))
    )
    assert not np.array_equal(plain, mirrored)
    assert np.array_equal(seen(["mirror"]), mirrored)
    assert np.array_equal(seen([]), plain)
    assert np.array_equal(seen(["mirror"], ("none",)), plain)
    with pytest.raises(RunError, match="names no views"):
        seen(["sideways"])
