"""What runs, masks and scores hold is what ``docs/reference/run-folder.md`` says, no file more and no file less."""

from __future__ import annotations

import fnmatch
import json
import re
import stat
from pathlib import Path

import numpy as np
import yaml

import radiffuse
from conftest import TINY
from radiffuse.system.hardware import this_machine

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "run-folder.md"
ELSEWHERE = {
    "`wandb.json`, `mlflow.json`",
    "`skipped.json`",
    "`CASE-confidence.tif`, `.nii.gz`",
    "`CASE.png`, `CASE.nii.gz`",
}
"""Rows whose files are not in the folders made here, or not under that name."""


def rows(section: str) -> dict[str, list[str]]:
    """Patterns of files by the first cell of each row of a section's first table."""
    text = PAGE.read_text().split(f"\n## {section}", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"^\| file \| what \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    cells = [line.split(" | ")[0].strip("| ") for line in table[1].splitlines()]
    names = {cell: re.findall(r"`([^`]+)`", cell) for cell in cells}
    return {
        cell: [
            name.replace("CASE", "*").replace("00000500/", "*/").removesuffix("/") for name in each
        ]
        for cell, each in names.items()
    }


def compare(section: str, folders: list[Path]) -> None:
    """Every file has a row, and every row a file in one of the folders."""
    table = rows(section)
    patterns = [name for each in table.values() for name in each]
    files = {p.relative_to(f).as_posix() for f in folders for p in f.rglob("*") if p.is_file()}
    known = [p for p in patterns if not p.startswith("model")] + ["model/*", ".lock"]
    unknown = [f for f in files if not any(_matches(f, pattern) for pattern in known)]
    assert not unknown
    empty = [cell for cell in table if not any(_matches(f, p) for f in files for p in table[cell])]
    assert set(empty) <= ELSEWHERE


def _matches(file: str, pattern: str) -> bool:
    return fnmatch.fnmatch(file, pattern) or fnmatch.fnmatch(file, f"{pattern}/*")


def test_a_run_holds_what_the_page_says(films: Path, pretrained: Path, tmp_path: Path) -> None:
    machine = {"accelerator": "cpu", "precision": "32-true"}
    run = radiffuse.fit(
        data=films, method="finetune", from_=pretrained, out=tmp_path / "run", network=TINY,
        machine=machine,
        training={"steps": 2, "batch_size": 2, "log_every": 1, "validate_every": 1},
    ).folder  # fmt: skip
    compare("A run", [pretrained, run])
    masks = radiffuse.predict(
        runs=run, data=films, out=tmp_path / "masks", confidence=True, cases="test", machine=machine
    )
    compare("Masks", [masks])
    scores = radiffuse.evaluate(masks=masks, truth=films, out=tmp_path / "scores")
    compare("Scores", [scores])
    for folder in (run, masks, scores):
        for path in (folder, *folder.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config.keys() == {"command", "run_version", "radiffuse", "settings", "decided"}
    cost = json.loads((run / "cost.json").read_text())
    assert cost.keys() == {"predicted", "measured"}
    measured = cost["measured"]
    assert measured.pop("minutes") >= 0 < measured.pop("memory_gib")
    assert set(measured.pop("normalization")) in ({"torch"}, {"pieces"}, {"pieces", "torch"})
    hardware = this_machine("cpu")
    assert measured == {"hardware": hardware, "precision": "32-true", "compiled": False}
    assert cost["predicted"].keys() == {"minutes", "memory_gib"}
    listed = re.search(r"\| `data.json` \| (.*) \|", PAGE.read_text())
    assert listed is not None
    keys = {*re.findall(r"`(\w+)`", listed[1])}
    keys |= {*re.findall(r"\*\*After `fit`\*\* `data.json` also has `(\w+)`", PAGE.read_text())}
    assert json.loads((run / "data.json").read_text()).keys() == keys
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    training, validation = ([x for x in lines if key in x] for key in ("loss", "validation"))
    assert training
    assert validation
    wanted = {"step", "loss", "learning_rate", "images", "images_per_second", "seconds"}
    assert all(line.keys() >= wanted for line in training)
    record = json.loads((masks / "prediction.json").read_text())
    assert record.keys() >= {"runs", "settings", "classes"}
    entries = [json.loads(line) for line in (masks / "masks.jsonl").read_text().splitlines()]
    assert len({entry["case"] for entry in entries}) == len(list(masks.glob("*.png")))
    for entry in entries:
        assert {"scan", "trained", "files"} <= entry.keys()
        assert {"size", "time", "sha256", "state", "voxels"} <= entry["scan"].keys()
    with np.load(scores / "overlays.npz", allow_pickle=False) as arrays:
        assert arrays.files
