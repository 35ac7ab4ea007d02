"""Ensembles whose members are equally good: what a second network of the same kind adds, and what mask diffusion adds.

    python benchmarks/equal_ensemble.py OUT STUDY SECOND

``STUDY`` is a finished study with ``none`` and ``recycle``; ``SECOND`` names the runs of ``none`` that were trained
with another seed and nothing else changed, with ``{draw}`` for the number of the draw. The test cases of the study are
segmented by ``none`` of the other seed alone, by both (``none+none``), and by ``none`` and ``recycle``
(``none+recycle``), as ``radiffuse predict`` does with two runs. ``OUT/results.csv`` has their scores beside those of
the study; ``publish_rows.py`` makes a table of it. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from results import read_scores

from radiffuse.config import Data, Machine
from radiffuse.data.layouts import open_dataset
from radiffuse.evaluation.tables import read_scores as read_cases
from radiffuse.inference.members import Overrides
from radiffuse.inference.predictor import Predictor
from radiffuse.inference.scoring import score_cases
from radiffuse.system.files import make_folder, read_json
from radiffuse.train.run import Run

FREE = {"data", "out", "reader", "machine"}
"""Settings in which two runs may differ although they were trained alike."""


def main() -> None:
    """Segment with every ensemble of every draw, gather the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("second", help="folder of each second run, with {draw}")
    given = parser.parse_args()
    data = read_json(given.study / "data.json")
    dataset, names = open_dataset(Path(data["root"]), Data()).labelled, data["split"]["test"]
    kept = read_scores(given.study)
    tables = [kept[kept["method"].isin(("none", "recycle"))]]
    for labels, draw, name, runs in ensembles(given.study, given.second):
        folder = given.out / "scores" / f"{name.replace(', ', '-')}-{labels}-{draw}"
        if not (folder / "cases.csv").exists():
            make_folder(folder)
            sampled = Overrides(sampler="ddpm" if "recycle" in name else None)
            score_cases(
                Predictor.open(runs, Machine(accelerator="cpu"), sampled), dataset, names, folder
            )
        cases = read_cases(folder / "cases.csv")
        tables.append(cases.assign(method=name, labels=labels, draw=draw))
    table = pd.concat(tables)
    table.to_csv(given.out / "results.csv", index=False)
    print(table.groupby(["labels", "method"], sort=False)["dice"].mean().round(4).to_string())


def ensembles(study: Path, second: str) -> Iterator[tuple[int, int, str, list[Run]]]:
    """Labels, draw, name and runs of everything that is scored."""
    for folder in sorted((study / "runs").glob("none-*")):
        _, labels, draw = folder.name.split("-")
        none, other = Run.open(folder), Run.open(second.format(draw=draw))
        verify_alike(none, other)
        recycle = Run.open(study / "runs" / f"recycle-{labels}-{draw}")
        for name, runs in (
            ("none, other seed", [other]),
            ("none+none", [none, other]),
            ("none+recycle", [none, recycle]),
        ):
            yield int(labels), int(draw), name, runs


def verify_alike(first: Run, other: Run) -> None:
    """Refuse runs that differ by more than the seed of their training, or not even by that."""
    a, b = (trained_by(run) for run in (first, other))
    differ = [key for key in a.keys() & b.keys() if a[key] != b[key]]
    if first.data["split"] != other.data["split"]:
        differ.append("the cases")
    if differ != ["training.seed"]:
        found = ", ".join(sorted(differ)) or "nothing"
        raise SystemExit(
            f"{other.folder} and {first.folder} differ in {found}, not in the seed alone"
        )


def trained_by(run: Run) -> dict[str, Any]:
    """What a run was trained by; settings of a group stand alone."""
    known = {k: v for k, v in run.config["settings"].items() if k not in FREE}
    groups = {k: v for k, v in known.items() if isinstance(v, dict)}
    inner = {f"{k}.{name}": v for k, group in groups.items() for name, v in group.items()}
    return {k: v for k, v in known.items() if k not in groups} | inner


if __name__ == "__main__":
    main()
