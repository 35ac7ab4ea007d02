"""Networks of two grids, with the pool and without it, and votes of them: on films of their hospital and of another.

    python benchmarks/grid_votes.py OUT DATA OTHER --draw 0 --of RUN --runs fine=RUN pool=RUN --votes fine fine,pool
    python benchmarks/native_size.py publish OUT TABLE --reference NAME --part dev --by "THESE COMMANDS"

``OUT`` gets ``votes-LABELS-DRAW.csv`` of DATA, and ``other-LABELS-DRAW.csv`` of OTHER, whose labels are those of a
reference (``other_hospital.py films``). Each run segments every film once, averaged with the mirrored one; a vote is
the mean of these probabilities, and two pieces of it are kept. Films of DATA that no run learned from and that are no
test films are the part ``dev``, on which ``fit`` was decided; those of OTHER are all of that part.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from native_scores import measured
from results import hardware

from radiffuse import Run
from radiffuse.config import Data, Machine
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.inference.postprocess import postprocess
from radiffuse.inference.predictor import Predictor

AFTER = ("1=keep:2",)
CLASSES = ("background", "class-1")


def main() -> None:
    """Score the votes of one draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", nargs="+", help="films of the runs' hospital, then of others")
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--of", type=Path, required=True, help="run of this draw, for its splits")
    parser.add_argument("--runs", nargs="+", required=True, help="NAME=FOLDER of each")
    parser.add_argument("--votes", nargs="+", required=True, help="names of runs, apart by commas")
    given = parser.parse_args()
    runs = {name: Run.open(folder) for name, folder in (one.split("=", 1) for one in given.runs)}
    machine = Machine(accelerator="cpu", threads=1)
    predictors = {
        name: Predictor.open([run], machine, tta=("mirror",)) for name, run in runs.items()
    }
    known = {"labels": given.labels, "draw": given.draw, "hardware": hardware(), "flags": ""}
    known |= {"steps": 0, "train_seconds": float("nan"), "predict_seconds": float("nan")}
    given.out.mkdir(parents=True, exist_ok=True)
    for place, data in enumerate(given.data):
        parts = {} if place else _parts(given.of)
        rows = [known | row for row in _scores(data, predictors, given.votes, parts)]
        kind = "other" if place else "votes"
        path = given.out / f"{kind}-{given.labels}-{given.draw}.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        print(path, pd.DataFrame(rows).groupby(["part", "name"])[["dice", "nsd"]].mean().round(4))


def _parts(run: Path) -> dict[str, str | None]:
    """The part of each case that is not ``dev``; None: it was learned from, or chosen by."""
    splits = json.loads((run / "splits.json").read_text())
    learned = json.loads((run / "data.json").read_text())["split"]["train"]
    return dict.fromkeys(splits["test"], "test") | dict.fromkeys((*splits["validation"], *learned))


def _scores(
    data: str,
    predictors: Mapping[str, Predictor],
    votes: Sequence[str],
    parts: Mapping[str, str | None],
) -> Iterator[dict[str, Any]]:
    """Scores of every vote on every film."""
    for case in open_dataset(Path(data), Data()):
        if (part := parts.get(case.name, "dev")) is None:
            continue
        image = read_case_image(case)
        truth = read_case_label(case, image)
        each = {name: one.probabilities(image) for name, one in predictors.items()}
        for vote in votes:
            label = np.mean([each[name] for name in vote.split(",")], axis=0).argmax(0)
            label = postprocess(label.astype(np.uint8), AFTER, truth.spacing)
            mask = replace(truth, array=label.reshape(truth.array.shape).astype(truth.array.dtype))
            for kind, scores in measured(image, mask, truth, CLASSES).items():
                where = {"case": case.name, "group": case.group, "part": part, "class": kind}
                yield {"name": " and ".join(vote.split(","))} | where | scores


if __name__ == "__main__":
    main()
