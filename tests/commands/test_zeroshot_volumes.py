"""Volumes without labels: what is written, scored, kept and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

import radiffuse
from radiffuse.config import ZeroShot
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError, RadiffuseError
from radiffuse.nets.guided import GuidedUNet
from radiffuse.phantoms import write_dataset
from radiffuse.synthesis.dense import open_volumes
from radiffuse.synthesis.volume_segmenter import VolumeSegmenter
from radiffuse.train.run import Run
from tiny_runs import volumes_run

SIZE = (24, 24, 16)
CPU = {"accelerator": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return volumes_run(tmp_path_factory.mktemp("runs") / "guided")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scans") / "scans"
    write_dataset("abdomen", out, count=4, labelled=True, seed=1, size=SIZE)
    return out


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "drawn"
    write_dataset("abdomen", out, count=2, labelled=True, seed=2, size=SIZE)
    return out


def array(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_segments_alone_are_written_and_matched_with_other_patients(
    run: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"run": run, "data": scans, "machine": CPU, "clusters": 6}
    out = radiffuse.zeroshot(out=tmp_path / "a", **given)
    again = radiffuse.zeroshot(out=tmp_path / "b", **given)
    assert not list(out.glob("*.nii.gz"))  # without names there are no masks
    names = sorted(p.name for p in (out / "segments").iterdir())
    assert len(names) == 4
    for name in names:
        ours, scan = nib.load(out / "segments" / name), nib.load(scans / "images" / name)
        assert ours.shape == scan.shape
        np.testing.assert_allclose(ours.affine, scan.affine)
        values = array(out / "segments" / name)
        assert set(np.unique(values)) <= set(range(7))
        assert (values[array(scans / "images" / name) < -900] == 0).mean() > 0.9
        assert (values[array(scans / "labels" / name) > 0] > 0).mean() > 0.9
        segments = [folder / "segments" / name for folder in (out, again)]
        assert segments[0].read_bytes() == segments[1].read_bytes()
    clusters = json.loads((out / "clusters.json").read_text())
    assert len(clusters["centers"]) == 6
    assert (clusters["names"], clusters["named_dice"]) == ([], {})
    assert json.loads((out / "classes.json").read_text())["6"] == "segment 6"
    table = pd.read_csv(out / "zeroshot.csv")
    assert list(table) == ["case", "group", "class", "dice_matched"]
    assert len(table) == 4 * 13
    assert table["dice_matched"].dropna().between(0, 1).all()
    said = capsys.readouterr().out
    assert "labels of the other half of the patients, not zero-shot" in said


def test_drawn_anatomy_names_the_segments(
    run: Path, scans: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks are segments under their names, scored by Dice counted by hand; nothing is called zero-shot."""
    given = {"run": run, "data": scans, "names_from": drawn, "machine": CPU, "clusters": 12}
    out = radiffuse.zeroshot(out=tmp_path / "out", **given)
    said = capsys.readouterr()
    assert "named by drawn anatomy: Dice" in said.out
    assert "this says nothing about real scans" in said.err
    clusters = json.loads((out / "clusters.json").read_text())
    names = np.array(clusters["names"])
    assert names[0] == 0
    assert len(names) == 13
    classes = json.loads((drawn / "classes.json").read_text())
    assert json.loads((out / "classes.json").read_text()) == classes
    assert list(clusters["named_dice"]) == list(classes.values())[1:]
    table = pd.read_csv(out / "zeroshot.csv").set_index(["case", "class"])
    for path in sorted((out / "segments").iterdir()):
        mask = array(out / path.name)
        assert np.array_equal(mask, names[array(path)])
        truth, case = array(scans / "labels" / path.name), path.name.partition(".")[0]
        for value, name in list(enumerate(classes.values()))[1:]:
            total = (mask == value).sum() + (truth == value).sum()
            score = table.loc[(case, name), "dice_named"]
            if total:
                dice = 2 * ((mask == value) & (truth == value)).sum() / total
                assert score == pytest.approx(dice, abs=1e-4)
            else:
                assert np.isnan(score)


def test_clusters_are_kept_bad_scans_skipped_and_other_settings_refused(
    run: Path, scans: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(scans, data)
    first, *_, last = sorted((data / "images").iterdir())
    late = last.read_bytes()
    last.write_bytes(b"no volume")
    given = {"run": run, "data": data, "out": out, "machine": CPU, "clusters": 5}
    with pytest.raises(InputError, match=last.name):
        radiffuse.zeroshot(**given)
    shutil.rmtree(out)
    radiffuse.zeroshot(**given, reader={"skip_bad": True})
    assert len(json.loads((out / "skipped.json").read_text())) == 1
    clusters, segments = (out / "clusters.json").read_bytes(), out / "segments"
    assert json.loads(clusters)["volumes"] == 3
    before = (segments / first.name).read_bytes()
    (segments / first.name).unlink()
    last.write_bytes(late)
    radiffuse.zeroshot(**given)
    assert len(list(segments.iterdir())) == 4
    assert (segments / first.name).read_bytes() == before
    assert (out / "clusters.json").read_bytes() == clusters
    for other, message in (
        ({"clusters": None}, "clusters = 5, not 32"),
        ({"coordinates": 0.5}, r"coordinates = 1\.0, not 0\.5"),
        ({"timestep": 3}, "timestep = 0, not 3"),
    ):
        with pytest.raises(InputError, match=f"holds masks with {message}"):
            radiffuse.zeroshot(**given | other)


def test_labels_that_name_nothing_are_said(
    run: Path, scans: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, source in (("data", scans), ("empty", drawn)):
        for part in ("images", "labels"):
            first = min((source / part).iterdir())
            (tmp_path / name / part).mkdir(parents=True)
            shutil.copy(first, tmp_path / name / part / f"{name}.nii.gz")
    path = tmp_path / "empty" / "labels" / "empty.nii.gz"
    shutil.copy(drawn / "classes.json", tmp_path / "empty")
    label = nib.load(path)
    nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine).to_filename(path)
    given = {"run": run, "data": tmp_path / "data", "machine": CPU, "clusters": 2, "noises": 1}
    out = radiffuse.zeroshot(**given, names_from=str(tmp_path / "empty"), out=tmp_path / "out")
    assert not array(out / "data.nii.gz").any()
    said = capsys.readouterr().err
    assert "no segment is like a class there, so all masks are empty" in said
    films = tmp_path / "films"
    write_dataset("bitewing", films, count=2, labelled=True, seed=1, size=(16, 16))
    with pytest.raises(InputError, match="is a film"):
        radiffuse.zeroshot(**given, names_from=str(films), out=tmp_path / "late")
    assert not (tmp_path / "late").exists()
    assert "reading" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"names": [0, 1]}, r"has names \[0, 1\], and needs 3 numbers from 0 to 13"),
        ({"names": [0, 1, 14]}, r"has names \[0, 1, 14\]"),
        ({"names": []}, r"has names \[\]"),
        ({"centers": [[0.0, 0.0]]}, "has 1 centers for 2 clusters"),
        ({"std": [1.0]}, "different lengths"),
    ],
)
def test_clusters_that_were_edited_into_others_are_refused(
    run: Path, scans: Path, drawn: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    whole = {"centers": [[0.0, 0.0]] * 2, "mean": [0.0] * 2, "std": [1.0] * 2, "share": [0.5] * 2}
    whole |= {"volumes": 4, "names": [0, 1, 13], "named_dice": {}}
    (tmp_path / "clusters.json").write_text(json.dumps(whole | change))
    settings = ZeroShot(clusters=2, out=str(tmp_path))
    data = (open_dataset(scans), open_dataset(drawn), torch.device("cpu"))
    segmenter = VolumeSegmenter(settings, Run.open(run), *data)
    if not message:
        assert segmenter.clusters == whole
        return
    with pytest.raises(InputError, match=message):
        segmenter.clusters  # noqa: B018 (opened)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "diffseg"}, 'method="diffseg": is for films'),
        ({"features": "encoder"}, 'features="encoder": .* was trained on volumes'),
        ({"level": 2}, r"level=2: .* has 2"),
        ({"timestep": 1000}, "timestep=1000: the run was trained on 1000 timesteps"),
        ({"names_from": "POOL"}, 'POOL": has no labels'),
        ({"names_from": "OWN"}, "is the scan .* whose labels must not name it"),
        ({"data": "FILMS"}, "is a film"),
    ],
)
def test_what_volumes_cannot_have_is_refused(
    run: Path, scans: Path, films: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    """OWN holds one of the scans themselves, under another name."""
    own, pool = tmp_path / "OWN", tmp_path / "POOL"
    for part in ("images", "labels"):
        (own / part).mkdir(parents=True)
        source = sorted((scans / part).iterdir())[1]
        shutil.copy(source, own / part / "other.nii.gz")
    shutil.copytree(scans / "images", pool)
    places = {"OWN": own, "POOL": pool, "FILMS": films}
    options = {k: places.get(v, v) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises(RadiffuseError, match=message):
        radiffuse.zeroshot(
            **{"run": run, "data": scans, "out": tmp_path / "out", "machine": CPU} | options
        )
    assert not (tmp_path / "out").exists()


def test_what_a_run_does_not_know_is_refused(scans: Path, films: Path, tmp_path: Path) -> None:
    plain = volumes_run(tmp_path / "plain", guided=False)
    clean = volumes_run(tmp_path / "clean", guided=False, objective="restorative")
    for run, data, options, message in (
        (plain, scans, {"coordinates": 2.0}, "^coordinates: .*trained without coordinates"),
        (clean, scans, {"timestep": 3}, "^timestep: .*knows no timesteps"),
        (clean, scans, {"noises": 3}, "^noises: .*knows no timesteps"),
        ("films-64", films, {"coordinates": 2.0}, "^coordinates: .*sees films"),
        ("films-64", films, {"names_from": scans}, "^names_from: .*sees films"),
    ):
        given = {"run": run, "data": data, "out": tmp_path / "out", "machine": CPU}
        with pytest.raises(InputError, match=message):
            radiffuse.zeroshot(**given | options)


def test_features_are_those_of_the_decoder_beside_the_coordinates_of_the_clean_window(
    run: Path,
) -> None:
    """Averaged over the noises of the seed, by hand."""
    settings = ZeroShot(timestep=40, noises=2, seed=5, level=1)
    dense, opened = open_volumes(Run.open(run), settings, torch.device("cpu")), Run.open(run)
    window = torch.rand((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    from radiffuse.core.diffusion import GaussianDiffusion
    from radiffuse.train.start import diffusion_of, load_denoiser

    unet, process = load_denoiser(opened).eval(), GaussianDiffusion(diffusion_of(opened))
    assert isinstance(unet, GuidedUNet)
    generator, t = torch.Generator().manual_seed(5), torch.tensor([40])
    with torch.no_grad():
        total = 0
        for _ in range(2):
            noise = torch.randn((1, 16, 16, 16), generator=generator)[None]
            x_t = process.add_noise(window, noise, t)
            total = total + unet.features(x_t, t, ("level.1",), clean=window)["level.1"] / 2
        where = torch.nn.functional.interpolate(
            unet.coordinates(window), (8, 8, 8), mode="trilinear", align_corners=False
        )
        found = dense.of(window)
    assert dense.coordinates == 3
    torch.testing.assert_close(found, torch.cat([total, where], 1), atol=1e-5, rtol=1e-5)
    without = open_volumes(opened, ZeroShot(coordinates=0.0), torch.device("cpu"))
    assert without.coordinates == 0
    assert without.of(window).shape == (1, 8, 16, 16, 16)
