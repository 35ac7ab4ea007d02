"""The measurement of synthetic images, end to end on procedural films."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

import radiffuse
from conftest import SIZE, line_of
from radiffuse.phantoms import write_dataset

CPU = {"accelerator": "cpu", "precision": "32-true"}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real")
    write_dataset("bitewing", out, count=24, labelled=False, seed=3, size=SIZE)
    return out


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other films of the same kind under two strategies, the first drawn from cases of ``real``."""
    out = tmp_path_factory.mktemp("fake")
    write_dataset("bitewing", out, count=20, labelled=False, seed=4, size=SIZE)
    files = sorted(out.rglob("*.png"))
    with (out / "provenance.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "strategy", "parents"])
        for i, path in enumerate(files):
            writer.writerow([path.relative_to(out), ("variation", "manifold")[i % 2], ""])
    return out


def with_parents(fake: Path, names: list[str], out: Path) -> Path:
    shutil.copytree(fake, out)
    rows = list(csv.DictReader((fake / "provenance.csv").open()))
    with (out / "provenance.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"parents": "+".join(names)} for row in rows)
    return out


def test_it_measures_all_and_by_strategy_and_names_the_network(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    rows = radiffuse.fidelity(
        real=str(real), fake=str(fake), encoder=str(pretrained), out=str(out), draws=20, machine=CPU
    )
    assert {row["part"] for row in rows} == {"all", "variation", "manifold"}
    whole = {row["measure"]: row for row in rows if row["part"] == "all"}
    assert set(whole) == {"frechet", "kernel", "precision", "recall", "density", "coverage"}
    for row in whole.values():
        assert (row["real"], row["synthetic"], row["floor_size"]) == (24, 20, 12)
        assert "bottleneck" in row["network"]
        assert str(pretrained) in row["network"]
    page = (out / "report.html").read_text()
    assert "Fréchet distance" in page
    assert "are few for" in page
    assert len(list(csv.DictReader((out / "fidelity.csv").open()))) == 18
    assert "warning: " in capsys.readouterr().err


def test_other_images_are_farther_than_images_of_the_same_kind(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    """With the shipped weights, which is the default."""
    chest = tmp_path / "chest"
    write_dataset("chest", chest, count=20, labelled=False, seed=5, size=SIZE)

    def distance(folder: Path) -> float:
        rows = radiffuse.fidelity(real=str(real), fake=str(folder), draws=5, machine=CPU)
        return float(next(row["value"] for row in rows if row["measure"] == "kernel"))

    near, far = distance(fake), distance(chest)
    assert far > 5 * abs(near)


def test_a_set_against_itself_is_pointed_out(
    real: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for i, path in enumerate(sorted(real.rglob("*.png"))):
        shutil.copy(path, copies / f"other-name-{i}.png")
    rows = radiffuse.fidelity(
        real=str(real), fake=str(copies), encoder=str(pretrained), draws=5, machine=CPU
    )
    assert rows[0]["value"] == pytest.approx(0, abs=1e-6)
    assert "24 of 24 images" in capsys.readouterr().err


def test_images_drawn_from_the_real_ones_are_pointed_out(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiffuse.data.layouts import open_dataset

    parent = open_dataset(real).cases[0].name
    children = with_parents(fake, [parent], tmp_path / "children")
    settings = {"encoder": str(pretrained), "draws": 5, "machine": CPU}
    radiffuse.fidelity(real=str(real), fake=str(children), **settings)
    assert "20 of 20 synthetic images were drawn" in capsys.readouterr().err
    radiffuse.fidelity(real=str(real), fake=str(fake), **settings)
    assert "were drawn" not in capsys.readouterr().err


def test_a_generator_that_learned_from_the_real_ones_is_pointed_out(
    classes: Path,
    synthesizer: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "drawn"
    radiffuse.generate(
        run=str(synthesizer), out=str(out), strategy=("manifold",), count=8, steps=2, machine=CPU
    )
    radiffuse.fidelity(
        real=str(classes), fake=str(out), encoder=str(pretrained), draws=5, machine=CPU
    )
    error = capsys.readouterr().err
    assert "the generator learned from" in error
    assert "of the 16 real images" in error


def test_a_dino_of_transformers_is_a_feature_network(
    classes: Path, synthesizer: Path, fake: Path
) -> None:
    rows = radiffuse.fidelity(
        real=str(classes),
        fake=str(fake),
        encoder=str(synthesizer / "model" / "encoder"),
        draws=5,
        machine=CPU,
    )
    assert "DINO, global token; 64 features at 32 x 32" in rows[0]["network"]


def test_bad_input(
    real: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(real.rglob("*.png"))[:5]:
        shutil.copy(path, few / path.name)
    cpu = ["--accelerator", "cpu"]
    assert "holds 5 usable images" in line_of(["fidelity", str(few), str(real), *cpu], capsys)
    line = line_of(["fidelity", str(real), str(few), "--encoder", "./nowhere", *cpu], capsys)
    assert "./nowhere" in line
