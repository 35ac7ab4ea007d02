"""``radiffuse select``: what is chosen, what is never chosen, and what is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import radiffuse
from conftest import SIZE, line_of
from radiffuse.cli import main
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.system.files import read_json, write_json
from tiny_runs import finished_run

MACHINE = {"accelerator": "cpu", "precision": "32-true"}


def write_pool(folder: Path, bright: int, striped: int) -> Path:
    """Films of two kinds, a little different each."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(bright + striped):
        film = np.tile(np.linspace(0, 200, 32), (32, 1))
        if i >= bright:
            film = np.where(np.arange(32)[:, None] // 4 % 2, 200, film[::-1, ::-1] / 4)
        film = np.clip(film + rng.normal(0, 4, (32, 32)), 0, 255).astype(np.uint8)
        Image.fromarray(film).save(folder / f"{i:03d}.png")
    return folder


def chosen(**settings: object) -> pd.DataFrame:
    return pd.read_csv(radiffuse.select(machine=MACHINE, **settings), dtype=str)


def test_without_a_model_both_kinds_of_films_are_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_pool(tmp_path / "pool", 8, 6)
    table = chosen(data=pool, count=2, out=tmp_path / "next.csv")
    assert list(table) == ["place", "case", "file", "why"]
    assert [int(name) < 8 for name in table["case"]] == [True, False]
    assert list(table["why"]) == ["typical of 8 scans", "typical of 6 scans"]
    assert all((pool / file).is_file() for file in table["file"])
    said = capsys.readouterr().out
    assert "2 of 14 scans to label, in this order: " in said
    assert "typical of many scans and unlike each other by the features of films" in said
    again = chosen(data=pool, count=2, out=pool / "next.csv")
    assert again.equals(table)
    capsys.readouterr()
    assert chosen(data=pool, count=2, out=pool / "next.csv").equals(table)
    assert "next.csv" not in capsys.readouterr().err  # its column of files is no table of images


def test_volumes_are_compared_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "ct").mkdir()
    for i in range(4):
        array = np.zeros((9, 10, 11), np.int16)
        array[: 4 + i % 2 * 3] = 100 + i
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"ct/{i}.nii.gz")
    table = chosen(data=tmp_path / "ct", count=2, out=tmp_path / "next.csv")
    assert sorted(int(name) % 2 for name in table["case"]) == [0, 1]


def test_a_volume_in_color_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has other channels than the rest, which are no films for that."""
    (tmp_path / "ct").mkdir()
    for i in range(4):
        array = np.random.default_rng(i).integers(0, 255, (9, 10, 11), dtype=np.uint8)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"ct/{i}.nii.gz")
    header = "NRRD0004\ntype: uchar\ndimension: 4\nsizes: 3 9 10 11\nencoding: raw\n"
    header += "space: LPS\nkinds: RGB-color domain domain domain\n"
    header += "space directions: none (1,0,0) (0,1,0) (0,0,1)\n\n"
    pixels = np.random.default_rng(9).integers(0, 255, 9 * 10 * 11 * 3, dtype=np.uint8)
    (tmp_path / "ct" / "rgb.nrrd").write_bytes(header.encode() + pixels.tobytes())
    with pytest.raises(InputError, match=r"rgb\.nrrd: has 3 channels, and the data set declares 1"):
        chosen(data=tmp_path / "ct", count=2, out=tmp_path / "next.csv")
    reader = {"skip_bad": True}
    table = chosen(data=tmp_path / "ct", count=4, out=tmp_path / "next.csv", reader=reader)
    assert sorted(table["case"]) == ["0", "1", "2", "3"]
    assert "rgb.nrrd: has 3 channels" in capsys.readouterr().err


def test_scans_with_labels_are_not_chosen(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither those that have one in the pool, nor copies, by any name, of those that a run's data has one of."""
    images = sorted((films / "images").iterdir())
    pool = write_pool(tmp_path / "pool", 2, 0)
    for number, image in enumerate(images[:4]):
        shutil.copy(image, pool / f"renamed-{number}.png")
    plan = Plan(2, ("image",), tuple(read_json(films / "classes.json").values()), SIZE)
    run = finished_run(tmp_path / "run", plan, seed=3)
    write_json(run / "data.json", {"root": str(films), "split": {"train": [images[0].stem]}})
    table = chosen(data=pool, from_=run, count=2, out=tmp_path / "next.csv")
    assert sorted(table["case"]) == ["000", "001"]
    assert all(" uncertain: 0." in why for why in table["why"])
    said = capsys.readouterr().out
    assert "2 of 6 scans (4 have labels) to label, in this order: " in said
    assert "most about the first, the classes in turn; 0 is sure, 1 is a guess" in said
    with pytest.raises(InputError, match=r"^count=3: the pool has 2 scans without labels"):
        chosen(data=pool, from_=run, count=3, out=tmp_path / "next.csv")
    with pytest.raises(
        InputError, match=r"the pool has 0 scans without labels.*; \d+ have one, in"
    ):
        chosen(data=films, count=1, out=tmp_path / "next.csv")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_copies_one_is_chosen_before_all_other_scans(seed: int, tmp_path: Path) -> None:
    """Else the same image would be labelled twice."""
    pool = write_pool(tmp_path / "pool", 2, 2)
    for path in sorted(pool.iterdir()):
        shutil.copy(path, pool / f"copy-{path.name}")
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), (32, 32)), seed=3)
    for start in (None, run):
        table = chosen(data=pool, from_=start, count=4, seed=seed, out=tmp_path / "next.csv")
        assert len({name.removeprefix("copy-") for name in table["case"]}) == 4


@pytest.mark.parametrize("named", ["", "pool", "both"])
def test_scans_of_labelled_patients_by_their_names_alone_are_said(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Films 000 to 002 have labels, those of the pool have the same names and show others."""
    films, pool = tmp_path / "films", write_pool(tmp_path / "pool", 4, 2)
    write_pool(films / "images", 0, 3)
    write_pool(films / "labels", 1, 2)
    for image in (films / "labels").iterdir():
        Image.fromarray((np.asarray(Image.open(image)) > 100).astype(np.uint8)).save(image)
    for folder in [pool] * bool(named) + [films] * (named == "both"):
        names = [
            f"{n:03},{folder.name if n else 'a'}-{n}" for n in range(6 if folder == pool else 3)
        ]
        (folder / "patients.csv").write_text("\n".join(["image,patient", *names]) + "\n")
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), SIZE), seed=3)
    write_json(run / "data.json", {"root": str(films), "split": {"train": ["000"]}})
    table = chosen(data=pool, from_=run, count=3, out=tmp_path / "next.csv")
    said = capsys.readouterr().err
    if named:
        assert "chosen last" not in said
        return
    assert set(table["case"]) == {"003", "004", "005"}
    assert (
        f"warning: {pool}: 3 of its 6 scans without labels are chosen last, as scans of labelled patients by their "
        f"file names alone: nothing names patients in {pool} and {films}. If they are of other patients, say so"
    ) in said
    assert said.count("chosen last") == 1


def test_data_of_a_run_that_is_gone_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished_run(tmp_path / "run", Plan(2, ("image",), ("background", "a"), SIZE), seed=3)
    write_json(run / "data.json", {"root": str(tmp_path / "gone")})
    pool = write_pool(tmp_path / "pool", 2, 0)
    assert len(chosen(data=pool, from_=run, count=1, out=tmp_path / "next.csv")) == 1
    assert "which scans of the pool it has labels for is not known" in capsys.readouterr().err


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = str(write_pool(tmp_path / "pool", 2, 0))
    other = tmp_path / "patients.csv"
    other.write_text("image,patient\n000,a\n")
    arguments = ["select", pool, "--count", "1", "--out"]
    assert "is no list of this command" in line_of([*arguments, str(other)], capsys)
    assert other.read_text().startswith("image")
    assert "is not the name of a CSV file" in line_of([*arguments, str(tmp_path)], capsys)


def test_what_a_killed_one_left_beside_the_list_is_removed(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 2, 0)
    for left in (".next.csv.77.9.part", ".next[1].csv.77.9.part", ".other.csv.77.9.part"):
        (tmp_path / left).write_text("half")
    chosen(data=pool, count=1, out=tmp_path / "next.csv")
    assert sorted(p.name for p in tmp_path.glob(".*")) == [
        ".next[1].csv.77.9.part",
        ".other.csv.77.9.part",
    ]
    chosen(data=pool, count=1, out=tmp_path / "next[1].csv")
    assert [p.name for p in tmp_path.glob(".*")] == [".other.csv.77.9.part"]


def test_a_dry_run_refuses_what_the_run_refuses_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, out = str(write_pool(tmp_path / "pool", 2, 0)), tmp_path / "next.csv"
    arguments = ["select", pool, "--out", str(out), "--dry-run"]
    assert main([*arguments, "--count", "2"]) == 0
    assert "count: 2" in capsys.readouterr().out
    assert not out.exists()
    assert "the pool has 2 scans without labels" in line_of([*arguments, "--count", "3"], capsys)
    assert "nothing" in line_of([*arguments, "--from", "nothing"], capsys)
