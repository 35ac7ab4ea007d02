"""A MONAI bundle gives the masks of its run: its network in this process, and the whole of it through monai.bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import radiffuse
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.inference.postprocess import postprocess
from radiffuse.nets.registry import load_network
from radiffuse.release.bundle import inference
from radiffuse.release.documents import render
from tiny_runs import finished_run, volume_plan


def film_plan(**changes: object) -> Plan:
    return Plan(2, ("image",), ("background", "a", "b"), (16, 16), **changes)  # type: ignore[arg-type]


def exported(plan: Plan, folder: Path) -> tuple[radiffuse.Segmenter, Path]:
    run = finished_run(folder / "run", plan, seed=0)
    out = radiffuse.export(run=run, format="monai-bundle", out=folder / "bundle")
    return radiffuse.Segmenter.load(run, device="cpu", precision="32-true"), out


@pytest.mark.parametrize("resize", ["stretch", "fit"])
def test_its_network_treats_films_as_the_run_does(
    resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script around the program; that the program is the network is tested where it is made."""
    plan = film_plan(resize=resize)
    run = finished_run(tmp_path / "run", plan, seed=0)
    program = SimpleNamespace(module=lambda: load_network(run / "model"))
    monkeypatch.setattr(torch.export, "load", lambda path: program)
    names: dict[str, object] = {}
    exec(render("bundle_network.py.txt"), names)
    told = inference(plan)["network"]
    network = names["Network"](  # type: ignore[operator]
        "model.pt2", "cpu", size=told["size"], fit=told["fit"]
    ).eval()
    film = np.random.default_rng(0).uniform(0, 255, (40, 26)).astype(np.float32)
    low, high = np.percentile(film, (0.5, 99.5))
    scaled = ((film - low) / (high - low) * 2 - 1).clip(-1, 1).astype(np.float32)
    with torch.no_grad():
        shares = network(torch.from_numpy(scaled.T[None, None]))[0].transpose(-1, -2)
    expected = radiffuse.Segmenter.load(run, device="cpu", precision="32-true").predict_proba(film)
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-4)


def run_bundle(out: Path, data: Path, masks: Path) -> None:
    words = ["run", "--config_file", "configs/inference.json"]
    words += ["--dataset_dir", str(data), "--output_dir", str(masks)]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *words],
        cwd=out, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_films_through_monai(tmp_path: Path) -> None:
    pytest.importorskip("ignite")
    segmenter, out = exported(film_plan(), tmp_path)
    data = tmp_path / "films [1]"  # a pattern of glob
    data.mkdir()
    film = np.random.default_rng(0).integers(0, 255, (40, 26)).astype(np.uint8)
    for name in ("one.png", "two.JPG"):
        Image.fromarray(film).save(data / name)
    black = np.zeros((40, 26), np.uint8)
    black[3, 4] = 200
    Image.fromarray(black).save(data / "zero.png")
    run_bundle(out, data, tmp_path / "masks")
    masks = sorted((tmp_path / "masks").rglob("*.png"))
    for path, mask in zip(sorted(data.iterdir()), masks, strict=True):
        expected = segmenter.predict(path)
        assert len(np.unique(expected)) > 1 or path.name == "zero.png"
        assert (np.asarray(Image.open(mask)) == expected).mean() > 0.99


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    module: dict[str, Any] = {}
    exec(render("bundle_network.py.txt"), module)
    for name in ("b.PNG", "a.png", "c.txt"):
        (tmp_path / name).touch()
    assert module["scans"](tmp_path, (".png",)) == [str(tmp_path / n) for n in ("a.png", "b.PNG")]
    with pytest.raises(FileNotFoundError, match="holds no scan"):
        module["scans"](tmp_path, (".nii.gz", ".nii"))


@pytest.mark.parametrize("second", ["one.jpg", "one.JPEG"])
def test_two_scans_whose_masks_would_have_one_name_are_refused(tmp_path: Path, second: str) -> None:
    module: dict[str, Any] = {}
    exec(render("bundle_network.py.txt"), module)
    for name in ("one.png", "one.two.png", second):
        Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"one\.\w+ and .*one\.\w+ would have masks of one name"):
        module["scans"](tmp_path, (".png", ".jpg", ".jpeg"))
    (tmp_path / second).unlink()
    assert len(module["scans"](tmp_path, (".png",))) == 2
    for name in ("v.nii", "v.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="masks of one name"):
        module["scans"](tmp_path, (".nii.gz", ".nii"))


@pytest.mark.parametrize(
    ("shape", "refused"), [((4, 5, 3), True), ((4, 5, 4), True), ((4, 5), False)]
)
def test_pictures_that_would_lose_bits_are_refused(
    tmp_path: Path, shape: tuple[int, ...], refused: bool
) -> None:
    import imagecodecs

    module: dict[str, Any] = {}
    exec(render("bundle_network.py.txt"), module)
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    if refused:
        with pytest.raises(ValueError, match=r"a\.png is a PNG of 16 bits per color"):
            module["scans"](tmp_path, (".png",))
    else:
        assert module["scans"](tmp_path, (".png",)) == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("bright", [0, 3, 400])
def test_intensities_are_those_of_the_run(bright: int) -> None:
    """Also where no percentile, or each, lies in the background, as in a film that is almost all black."""
    from monai.data import MetaTensor

    from radiffuse.data.transform import _rescale

    module: dict[str, Any] = {}
    exec(render("bundle_network.py.txt"), module)
    plan = film_plan()
    step = inference(plan)["preprocessing"]["transforms"][-1]
    assert step.pop("_target_") == "scripts.network.Percentiles"
    image = torch.full((1, 40, 40), 7.0)
    image.view(-1)[:bright] = torch.linspace(8, 255, bright)
    scaled = module["Percentiles"](**step)({"image": MetaTensor(image, affine=2 * torch.eye(4))})
    torch.testing.assert_close(scaled["image"].as_tensor(), _rescale(image, plan))
    assert torch.equal(scaled["image"].affine, 2 * torch.eye(4, dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_volumes_through_monai(tmp_path: Path) -> None:
    """At the plan's own spacing, turned and flipped: nothing is resampled, so the masks agree."""
    pytest.importorskip("ignite")
    segmenter, out = exported(volume_plan(), tmp_path)
    values = np.random.default_rng(0).normal(0, 0.7, (13, 9, 11)).astype(np.float32)
    affine = np.array([[0, 0, 1, 5], [-1, 0, 0, 8], [0, -1, 0, 3], [0, 0, 0, 1]], float)
    (tmp_path / "data").mkdir()
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / "data" / "one.nii.gz")
    run_bundle(out, tmp_path / "data", tmp_path / "masks")
    (path,) = (tmp_path / "masks").rglob("*.nii.gz")
    found = nibabel.load(path)
    expected = segmenter.predict(tmp_path / "data" / "one.nii.gz")
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert len(np.unique(expected)) > 1
    assert (np.asarray(found.dataobj) == expected).mean() > 0.98


@pytest.mark.parametrize("spacing", [1.0, 0.5])
@pytest.mark.parametrize(
    "step", ["largest", "keep:2", "2=keep:1", "drop:80", "2=drop:40.5", "2=islands:0.01", "none"]
)
def test_pieces_are_kept_and_dropped_as_here(step: str, spacing: float) -> None:
    """MONAI's own transforms, as the bundle sets them, on blobs of two classes."""
    from monai.bundle import ConfigParser
    from monai.data import MetaTensor
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(3).normal(size=(3, 64, 64))
    mask = np.stack([gaussian_filter(one, 3) for one in noise]).argmax(0).astype(np.uint8)
    config = inference(film_plan(postprocess=(step,)))
    transforms = config["postprocessing"]["transforms"]
    steps = [one for one in transforms if one["_target_"].startswith(("KeepLargest", "Lambda"))]
    assert (len(steps) == 0) == (step == "none")
    affine = torch.diag(torch.tensor([spacing, spacing, 1.0, 1.0]))
    found = MetaTensor(torch.from_numpy(mask[None].copy()), affine=affine)
    for one in steps:
        parser = ConfigParser(config={"imports": config["imports"], "t": one})
        parser.parse()
        parser.get_parsed_content("imports")
        found = parser.get_parsed_content("t")({"pred": found})["pred"]
    expected = postprocess(mask, (step,), (spacing, spacing))
    assert np.array_equal(np.asarray(found)[0], expected)
    assert (step == "none") == np.array_equal(expected, mask)


def test_treatments_that_monai_does_not_know(tmp_path: Path) -> None:
    for number, changes in enumerate(({"crop": "nonzero"}, {"postprocess": ("fill",)})):
        run = finished_run(tmp_path / f"run{number}", film_plan(**changes))
        with pytest.raises(InputError, match="which the transforms of MONAI do not do"):
            radiffuse.export(run=run, format="monai-bundle", out=tmp_path / "x")
