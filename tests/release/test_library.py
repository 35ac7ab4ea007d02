"""A run as an object: arrays, files and lists in, label maps and probabilities on their own grid out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from read_samples import write_series

import radiffuse
from conftest import SIZE
from radiffuse.data.plan import Plan
from radiffuse.data.readers import read_scan
from radiffuse.data.scan import Scan
from radiffuse.errors import InputError, RunError
from radiffuse.nets.segmenter import SegmentingUNet as Network
from radiffuse.release.scans import read_one
from tiny_runs import finished_run, oblique, volume_plan

MACHINE = {"accelerator": "cpu", "precision": "32-true"}
TRAINING = {"steps": 2, "batch_size": 2, "validate_every": 0, "log_every": 1}


def load(*runs: Path, **options: object) -> radiffuse.Segmenter:
    return radiffuse.Segmenter.load(
        runs if len(runs) > 1 else runs[0], device="cpu", precision="32-true", **options
    )


def film_run(folder: Path, seed: int = 0) -> Path:
    return finished_run(folder, Plan(2, ("image",), ("background", "a", "b"), (16, 16)), seed)


def test_a_film_as_array_as_file_and_in_a_list(films: Path, tmp_path: Path) -> None:
    run = film_run(tmp_path / "run")
    segmenter = load(run)
    paths = sorted((films / "images").iterdir())[:2]
    radiffuse.predict(runs=run, data=films, out=tmp_path / "masks", machine=MACHINE)
    expected = [read_scan(tmp_path / "masks" / f"{p.stem}.png").array[0] for p in paths]
    assert len(np.unique(expected[0])) > 1  # a mask of one class alone would prove little
    for path, mask in zip(paths, expected, strict=True):
        array = read_scan(path).array
        for image in (path, str(path), array, array[0], read_scan(path)):
            found = segmenter.predict(image)
            assert found.dtype == np.uint8
            assert np.array_equal(found, mask)
    for found, mask in zip(segmenter.predict(list(paths)), expected, strict=True):
        assert np.array_equal(found, mask)
    assert segmenter.classes == ("background", "a", "b")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"runs": 3}, "runs: is 3, and a sequence is needed"),
        ({"runs": [None]}, r"runs\[0\] is None"),
        ({"device": "tpu"}, "device is tpu, not one of auto, cpu"),
        ({"precision": "fp8"}, "precision is fp8, not one of"),
        ({"sampler": "dpm"}, "sampler is dpm, not one of ddpm, ddim"),
        ({"samples": 1.5}, "samples is 1.5"),
        ({"steps": 0}, "steps is 0, not at least 1"),
        ({"seed": -1}, "seed is -1, not 0 to 4294967295"),
        ({"overlap": "0.5"}, "overlap is 0.5"),
        ({"overlap": float("nan")}, "overlap is nan"),
    ],
)
def test_options_of_another_type_or_out_of_range_are_refused(
    given: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        radiffuse.Segmenter.load(**{"runs": tmp_path, **given})


def test_images_and_spacings_that_are_none_are_refused(tmp_path: Path) -> None:
    segmenter = load(film_run(tmp_path / "run"))
    film = np.zeros((8, 9))
    for spacing in (1.0, "ab", (0.5, float("nan")), (0.5, float("inf")), (1, 1, 1)):
        with pytest.raises(InputError, match="spacing"):
            segmenter.predict(film, spacing=spacing)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="image: is no file"):
        segmenter.predict(())
    for image in (None, nibabel.Nifti1Image(film, np.eye(4))):
        with pytest.raises(InputError, match="image: is no array of numbers"):
            segmenter.predict(image)  # type: ignore[arg-type]
    opened = radiffuse.Run(str(tmp_path / "run"))
    assert radiffuse.Segmenter.load(opened, device="cpu").plan == opened.plan == segmenter.plan


def test_a_mask_over_an_array_is_not_lost(tmp_path: Path) -> None:
    segmenter = load(film_run(tmp_path / "run"))
    film = np.ma.masked_greater(np.arange(72.0).reshape(8, 9), 69)
    for image in (film, [film], Scan(film[None])):
        with pytest.raises(InputError, match="array: is a masked array, of which 2 values are"):
            segmenter.predict(image)
    plain = segmenter.predict(film.filled(0))
    assert np.array_equal(segmenter.predict(np.ma.masked_array(film.filled(0))), plain)


def test_probabilities_sum_to_one_and_agree_with_the_mask(films: Path, tmp_path: Path) -> None:
    segmenter = load(film_run(tmp_path / "run"))
    path = sorted((films / "images").iterdir())[0]
    shares = segmenter.predict_proba(path)
    assert shares.shape == (3, *SIZE)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    assert np.array_equal(shares.argmax(0), segmenter.predict(path))


def test_a_volume_as_array_is_the_volume_of_the_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 1, (10, 9, 12)).astype(np.float32)
    path = tmp_path / "v.nii.gz"
    nibabel.Nifti1Image(values, oblique()).to_filename(path)
    segmenter = load(finished_run(tmp_path / "run", volume_plan(), seed=0))
    expected = segmenter.predict(path)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(segmenter.predict(values, affine=oblique()), expected)
    shares = segmenter.predict_proba(values, affine=oblique())
    assert np.array_equal(shares.argmax(0), expected)
    upright = segmenter.predict(values, spacing=(0.8, 1.5, 2.0))
    affine = np.diag((0.8, 1.5, 2.0, 1.0))
    assert np.array_equal(segmenter.predict(values, affine=affine), upright)


def test_what_the_plan_crops_away_is_background(tmp_path: Path) -> None:
    plan = Plan(2, ("image",), ("background", "a"), (16, 16), crop="nonzero")
    segmenter = load(finished_run(tmp_path / "run", plan, seed=1))
    image = np.zeros((30, 40), np.float32)
    image[10:20, 5:25] = np.random.default_rng(0).uniform(1, 2, (10, 20))
    shares = segmenter.predict_proba(image)
    assert (shares[0, :10] == 1).all()
    assert (shares[1, :10] == 0).all()
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)


def test_several_files_are_the_channels_of_one_scan(films: Path, tmp_path: Path) -> None:
    plan = Plan(2, ("t1", "t2"), ("background", "a"), (16, 16))
    run = tmp_path / "run"
    network = Network.from_scratch(
        _unet(in_channels=2), generator=__import__("torch").Generator().manual_seed(3)
    )
    finished_run(run, Plan(2, ("image",), ("background", "a"), (16, 16)))
    from radiffuse.nets.registry import save_network
    from radiffuse.system.files import write_atomic

    write_atomic(run / "plan.json", plan.to_json())
    save_network(network, run / "model")
    one, two = sorted((films / "images").iterdir())[:2]
    stacked = np.concatenate([read_scan(one).array, read_scan(two).array])
    segmenter = load(run)
    assert np.array_equal(segmenter.predict((one, two)), segmenter.predict(stacked))
    with pytest.raises(InputError, match="has 1 channels, the run has 2"):
        segmenter.predict(one)


def test_several_dicom_series_are_the_channels_of_one_scan(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 2000, (2, 4, 6, 5)).astype(np.uint16)
    for name, each in zip(("t1", "t2"), voxels, strict=True):
        write_series(tmp_path / name, each, SeriesInstanceUID=f"1.2.{name[1]}")
    scan, _ = read_one([tmp_path / "t1", tmp_path / "t2"], 2)
    assert np.array_equal(scan.array, voxels.transpose(0, 3, 2, 1) - 1024.0)


def _unet(in_channels: int) -> object:
    from radiffuse.config import Network as Settings
    from radiffuse.config import resolve_network

    return resolve_network(
        Settings(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=2,
    )


@pytest.mark.slow
def test_every_kind_of_run_segments_as_the_command_does(
    films: Path, pretrained: Path, tmp_path: Path
) -> None:
    shared = {
        "data": films, "from_run": pretrained, "training": TRAINING, "machine": MACHINE,
        "reader": {"cache": str(tmp_path / "cache")},
    }  # fmt: skip
    runs = {
        "finetune": radiffuse.fit(out=tmp_path / "finetune", method="finetune", **shared),
        "pixel": radiffuse.fit(out=tmp_path / "pixel", method="pixel", **shared),
        "probe": radiffuse.fit(out=tmp_path / "probe", method="probe", **shared),
        "diffusion": radiffuse.fit(
            out=tmp_path / "diffusion",
            method="diffusion",
            diffusion={"sampling": {"steps": 2}},
            **shared,
        ),
    }
    path = sorted((films / "images").iterdir())[3]
    for name, run in runs.items():
        masks = tmp_path / f"masks-{name}"
        radiffuse.predict(runs=run.folder, data=path, out=masks, machine=MACHINE)
        expected = read_scan(masks / f"{path.stem}.png").array[0]
        assert np.array_equal(load(run.folder).predict(path), expected), name
    folders = [run.folder for run in runs.values()]
    radiffuse.predict(runs=folders, data=path, out=tmp_path / "all", machine=MACHINE)
    expected = read_scan(tmp_path / "all" / f"{path.stem}.png").array[0]
    assert np.array_equal(load(*folders).predict(path), expected)
    linear = load(runs["probe"].folder, head="linear")
    assert linear.predict_proba(path).shape == (len(linear.classes), *SIZE)
    with pytest.raises(InputError, match="no head of that name"):
        load(runs["probe"].folder, head="cubic")


def test_what_cannot_be_segmented_is_named(films: Path, pretrained: Path, tmp_path: Path) -> None:
    flat = load(film_run(tmp_path / "flat"))
    deep = load(finished_run(tmp_path / "deep", volume_plan()))
    volume = np.zeros((8, 8, 8), np.float32)
    with pytest.raises(InputError, match="volume without a spacing"):
        deep.predict(volume)
    with pytest.raises(InputError, match="3 positive numbers"):
        deep.predict(volume, spacing=(1, 1))
    for affine in (np.zeros((4, 4)), np.diag([np.nan, 1, 1, 1]), np.diag([np.inf, 1, 1, 1]), "ras"):
        with pytest.raises(InputError, match="no invertible"):
            deep.predict(volume, affine=affine)
    with pytest.raises(InputError, match="spacing and affine: say the same twice"):
        deep.predict(volume, affine=np.eye(4), spacing=(3, 3, 3))
    with pytest.raises(InputError, match="a list of arrays, one for each scan"):
        flat.predict((np.zeros((8, 8)), np.zeros((8, 8))))
    with pytest.raises(InputError, match="no finite numbers"):
        flat.predict(np.full((8, 8), np.nan))
    with pytest.raises(InputError, match="no 2 spatial axes"):
        flat.predict(np.zeros(8))
    with pytest.raises(InputError, match=r"array: has the shape \(5, 8, 8\), and \(rows"):
        flat.predict(np.zeros((5, 8, 8)))
    with pytest.raises(InputError, match="holds 12 scans where one is needed"):
        flat.predict(films)
    with pytest.raises(InputError, match="files and scans say it themselves"):
        flat.predict(sorted((films / "images").iterdir())[0], spacing=(1, 1))
    with pytest.raises(RunError, match="no segmentation run"):
        load(pretrained)
    with pytest.raises(RunError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has channels CT"):
        load(tmp_path / "flat", tmp_path / "deep")


def test_the_import_stays_light() -> None:
    script = (
        "import sys, radiffuse; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "radiffuse.Segmenter; assert 'torch' in sys.modules; assert 'Segmenter' in radiffuse.__all__"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
