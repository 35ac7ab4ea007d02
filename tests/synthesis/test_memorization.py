"""The search for copies, end to end on procedural films."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import radiffuse
from conftest import SIZE, line_of
from radiffuse.phantoms import write_dataset

CPU = {"accelerator": "cpu", "precision": "32-true"}


@pytest.fixture
def real(tmp_path: Path) -> Path:
    write_dataset("bitewing", tmp_path / "real", count=30, labelled=False, seed=3, size=SIZE)
    return tmp_path / "real"


@pytest.fixture
def fake(real: Path, tmp_path: Path) -> Path:
    """Five copies of real films, called from-image, and ten new films, called manifold."""
    out = tmp_path / "fake"
    out.mkdir()
    write_dataset("bitewing", tmp_path / "new", count=10, labelled=False, seed=9, size=SIZE)
    files = [("from-image", p) for p in sorted(real.rglob("*.png"))[:5]]
    files += [("manifold", p) for p in sorted((tmp_path / "new").rglob("*.png"))]
    with (out / "provenance.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "strategy", "parents"])
        for i, (strategy, path) in enumerate(files):
            shutil.copy(path, out / f"{i:02d}.png")
            parent = path.relative_to(real).with_suffix("").as_posix() if i < 5 else ""
            writer.writerow([f"{i:02d}.png", strategy, parent.replace("/", "__")])
    return out


def test_copies_are_found_and_new_images_are_not(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    radiffuse.memorization(
        real=str(real), fake=str(fake), encoder=str(pretrained), out=str(out), pairs=4, machine=CPU
    )
    rows = list(csv.DictReader((out / "nearest.csv").open()))
    copies = [row for row in rows if row["strategy"] == "from-image"]
    assert len(rows) == 15
    assert all(row["suspected"] == row["parent"] == "True" for row in copies)
    assert all(float(row["distance"]) < 1e-3 for row in copies)
    assert all(float(row["correlation"]) > 0.999 for row in copies)
    shares = {
        r["strategy"]: float(r["suspected"]) for r in csv.DictReader((out / "summary.csv").open())
    }
    assert shares["from-image"] == 1
    assert shares["manifold"] < 0.5
    assert shares["all"] == pytest.approx((5 + 10 * shares["manifold"]) / 15)
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 8
    assert "from-image" in page
    facts = json.loads((out / "memorization.json").read_text())
    assert any("no patients are known" in warning for warning in facts["warnings"])


def test_held_out_images_give_the_threshold(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    write_dataset("bitewing", held, count=8, labelled=False, seed=11, size=SIZE)
    settings = {"real": str(real), "fake": str(fake), "encoder": str(pretrained), "machine": CPU}
    radiffuse.memorization(**settings, held_out=str(held), out=str(tmp_path / "out"))
    assert len(list(csv.DictReader((tmp_path / "out" / "real.csv").open()))) == 8
    assert json.loads((tmp_path / "out" / "memorization.json").read_text())["held_out"] == 8


def test_the_conditioning_encoder_is_refused(
    classes: Path, synthesizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, own = tmp_path / "drawn", str(synthesizer / "model" / "encoder")
    radiffuse.generate(
        run=str(synthesizer), out=str(drawn), strategy=("manifold",), count=6, steps=2, machine=CPU
    )
    capsys.readouterr()
    arguments = ["--encoder", own, "--out", str(tmp_path / "o"), "--accelerator", "cpu"]
    line = line_of(["memorization", str(classes), str(drawn), *arguments], capsys)
    assert "was conditioned on" in line
    # Images that tell nothing of their origin: it is said that this could not be checked.
    (drawn / "generation.json").unlink()
    radiffuse.memorization(
        real=str(classes), fake=str(drawn), encoder=own, out=str(tmp_path / "out"), machine=CPU
    )
    assert "could not be checked" in capsys.readouterr().err
