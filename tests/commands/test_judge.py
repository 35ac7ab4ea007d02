"""Synthetic images judged, end to end on procedural films: fidelity, and the search for copies."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import radiffuse
from conftest import SIZE, line_of
from radiffuse.commands.judge import _write as leave
from radiffuse.config import Data, Judge
from radiffuse.errors import InputError
from radiffuse.phantoms import write_dataset
from radiffuse.reports.judge import write_judge_report
from radiffuse.synthesis.judging import Judgment, open_judged

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


def fidelity(real: Path, fake: Path, **settings: object) -> list[dict[str, Any]]:
    settings = {"draws": 5, "machine": CPU, "only": ("fidelity",)} | settings
    rows: list[dict[str, Any]] = radiffuse.judge(real=str(real), fake=str(fake), **settings).tables[
        "fidelity"
    ]
    return rows


def with_parents(fake: Path, names: list[str], out: Path) -> Path:
    shutil.copytree(fake, out)
    rows = list(csv.DictReader((fake / "provenance.csv").open()))
    with (out / "provenance.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"parents": "+".join(names)} for row in rows)
    return out


@pytest.mark.usefixtures("drawn")
def test_it_measures_all_and_by_strategy_and_names_the_network(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    rows = fidelity(real=real, fake=fake, encoder=str(pretrained), out=str(out), draws=20)
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


def test_drawn_images_are_no_patients_by_the_expression_of_real_ones(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for number, path in enumerate(sorted(fake.rglob("*.png"))):
        shutil.copy(path, drawn / f"variation-{number:06d}.png")
    reader = Data(group=r"(bitewing-\d+)")
    settings = Judge(real=str(real), fake=str(drawn), only=("memorization",), reader=reader)
    with pytest.raises(InputError, match="finds no patient"):
        open_judged(settings)
    (drawn / "generation.json").write_text('{"run": "synth", "model": "0", "seed": 0}')
    sets = open_judged(settings)[2]
    assert [len(sets[str(path)]) for path in (real, drawn)] == [24, 20]


def test_other_images_are_farther_than_images_of_the_same_kind(
    real: Path, fake: Path, tmp_path: Path
) -> None:
    """With the shipped weights, which is the default."""
    chest = tmp_path / "chest"
    write_dataset("chest", chest, count=20, labelled=False, seed=5, size=SIZE)

    def distance(folder: Path) -> float:
        rows = fidelity(real=real, fake=folder)
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
    rows = fidelity(real=real, fake=copies, encoder=str(pretrained))
    assert rows[0]["value"] == pytest.approx(0, abs=1e-6)
    assert "24 of 24 images" in capsys.readouterr().err


def test_images_drawn_from_the_real_ones_are_pointed_out(
    real: Path, fake: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from radiffuse.data.layouts import open_dataset

    parent = open_dataset(real).cases[0].name
    children = with_parents(fake, [parent], tmp_path / "children")
    fidelity(real=real, fake=children, encoder=str(pretrained))
    assert "20 of 20 synthetic images were made" in capsys.readouterr().err
    fidelity(real=real, fake=fake, encoder=str(pretrained))
    assert "were made" not in capsys.readouterr().err


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
    fidelity(real=classes, fake=out, encoder=str(pretrained))
    error = capsys.readouterr().err
    assert "the generator learned from" in error
    assert "of the 16 real images" in error
    elsewhere = tmp_path / "elsewhere"
    for path in classes.rglob("*.png"):
        place = elsewhere / path.parent.name / f"film-{path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    learned = [number for number in range(17) if f"learned from {number} of the 16" in error]
    fidelity(real=elsewhere, fake=out, encoder=str(pretrained))
    assert f"learned from {learned[0]} of the 16 real images" in capsys.readouterr().err
    data = json.loads((synthesizer / "data.json").read_text())
    assert learned == [16 - len(data["split"]["validation"])]


def test_a_dino_of_transformers_is_a_feature_network(
    classes: Path, synthesizer: Path, fake: Path
) -> None:
    rows = fidelity(real=classes, fake=fake, encoder=str(synthesizer / "model" / "encoder"))
    assert "DINO, global token; 64 features at 32 x 32" in rows[0]["network"]


def test_bad_input(
    real: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(real.rglob("*.png"))[:5]:
        shutil.copy(path, few / path.name)
    cpu = ["--accelerator", "cpu"]
    assert "holds 5 usable images" in line_of(["judge", str(few), str(real), *cpu], capsys)
    line = line_of(["judge", str(real), str(few), "--encoder", "./nowhere", *cpu], capsys)
    assert "./nowhere" in line


@pytest.fixture
def copied(real: Path, tmp_path: Path) -> Path:
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


def judge_copies(real: Path, fake: Path, **settings: object) -> None:
    radiffuse.judge(real=str(real), fake=str(fake), only=("memorization",), machine=CPU, **settings)


def test_copies_are_found_and_new_images_are_not(
    real: Path, copied: Path, pretrained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    judge_copies(real, copied, encoder=str(pretrained), out=str(out), pairs=4)
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
    facts = json.loads((out / "judge.json").read_text())
    assert any("no patients are known" in warning for warning in facts["warnings"])


def test_held_out_images_give_the_threshold(
    real: Path, copied: Path, pretrained: Path, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    write_dataset("bitewing", held, count=8, labelled=False, seed=11, size=SIZE)
    out = str(tmp_path / "out")
    judge_copies(real, copied, encoder=str(pretrained), held_out=str(held), out=out)
    assert len(list(csv.DictReader((tmp_path / "out" / "real.csv").open()))) == 8
    assert json.loads((tmp_path / "out" / "judge.json").read_text())["copies"]["held_out"] == 8


def test_the_conditioning_encoder_is_refused(
    classes: Path, synthesizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, own = tmp_path / "drawn", str(synthesizer / "model" / "encoder")
    radiffuse.generate(
        run=str(synthesizer), out=str(drawn), strategy=("manifold",), count=6, steps=2, machine=CPU
    )
    capsys.readouterr()
    arguments = ["--encoder", own, "--accelerator", "cpu"]
    line = line_of(["judge", str(classes), str(drawn), *arguments], capsys)
    assert "was conditioned on" in line
    # Images whose run is not known: it is said that this could not be checked.
    (drawn / "generation.json").unlink()
    judge_copies(classes, drawn, encoder=own)
    assert "could not be checked" in capsys.readouterr().err


def test_both_parts_say_what_each_says_alone(
    real: Path, copied: Path, pretrained: Path, tmp_path: Path
) -> None:
    common = {"encoder": str(pretrained), "machine": CPU}
    settings = {"real": str(real), "fake": str(copied)} | common
    both = radiffuse.judge(**settings, out=str(tmp_path / "both"), draws=5, pairs=2)
    apart = [
        radiffuse.judge(**settings, only=("fidelity",), draws=5),
        radiffuse.judge(**settings, only=("memorization",), pairs=2),
    ]
    assert both.tables == apart[0].tables | apart[1].tables
    assert both.warnings == apart[0].warnings + apart[1].warnings
    page = (tmp_path / "both" / "report.html").read_text()
    assert "Fréchet distance" in page
    assert page.count("data:image/png") == 4


def test_copies_are_looked_for_among_the_images_that_were_trained_on(
    real: Path, copied: Path, unlabelled: Path, pretrained: Path
) -> None:
    settings = {"fake": str(copied), "encoder": str(pretrained), "machine": CPU}
    alone = radiffuse.judge(real=str(real), only=("memorization",), **settings)
    given = radiffuse.judge(real=str(unlabelled), trained=str(real), draws=5, **settings)
    assert given.tables["nearest"] == alone.tables["nearest"]
    assert given.tables["fidelity"][0]["real"] == 20


def test_a_folder_holds_one_judgment(tmp_path: Path) -> None:
    """Copies that an earlier one found do not lie beside the fidelity of other images."""
    row = {
        "part": "all",
        "measure": "frechet",
        "value": 1.0,
        "low": 0.5,
        "high": 1.5,
        "network": "n",
    }
    row |= {"real": 9, "synthetic": 8, "patients": 7, "uncorrected": 3.0}
    for name in ("nearest", "real", "summary"):
        (tmp_path / f"{name}.csv").write_text("image,distance\n")
    (tmp_path / "pairs.npz").touch()
    leave(Judgment("n", tables={"fidelity": [row]}), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fidelity.csv", "judge.json"]
    page = write_judge_report(tmp_path).read_text()
    assert "without the bias of small samples, which the uncorrected one holds" in page
    assert "1.0000 [0.5000" in page
