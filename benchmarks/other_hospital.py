"""How segmenters of one hospital's films do on those of another, for which nobody drew labels.

    python benchmarks/other_hospital.py films FOLDER CLASSES REFERENCE --each 70 --steps 1=keep:2
    python benchmarks/other_hospital.py score WORK NAME MASKS FOLDER OUT --labels 5 --draw 0 --steps 1=keep:2
    python benchmarks/native_size.py publish OUT TABLE --reference NAME --part dev --by "THESE COMMANDS"

``films`` copies one film a patient, as many of each class, and segments them with the run REFERENCE, which learned from
far more labels; the films of all other patients go to FOLDER/pool, as ``--unlabelled`` of a run. ``--skip``
passes over the films of an earlier call, by which something was decided. ``score`` compares the masks of a run that
``native_size.py`` trained with these; the masks stay in MASKS, for a FOLDER with another reference.
So it says how far a run agrees with a better one, not with the truth: networks that are alike may agree where both are
wrong. Take several references, with a pool and without, before you believe an order.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path

import pandas as pd
from native_scores import METRICS
from native_size import scores_of, seconds_of, step_after

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset
from radiffuse.errors import InputError
from radiffuse.inference.records import Record, identity
from radiffuse.train.run import Run

THREADS = ("--machine.threads", "1")


def main() -> None:
    """Make the films with the masks of a reference, or score a run on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    films, score = commands.add_parser("films"), commands.add_parser("score")
    films.add_argument("folder", type=Path)
    films.add_argument("classes")
    films.add_argument("reference")
    films.add_argument("--each", type=int, default=70, help="films of each class")
    films.add_argument("--skip", type=int, default=0, help="films of each class passed over first")
    score.add_argument("work", type=Path)
    score.add_argument("name")
    score.add_argument("masks", type=Path)
    score.add_argument("folder", type=Path)
    score.add_argument("out", type=Path)
    score.add_argument("--draw", type=int, default=0)
    score.add_argument("--labels", type=int, default=5)
    for one in (films, score):
        one.add_argument("--steps", required=True, help="after segmentation, apart by commas")
    given = parser.parse_args()
    (_films if given.command == "films" else _score)(given)


def _films(given: argparse.Namespace) -> None:
    dataset = list(open_dataset(given.classes, Data()))
    table = pd.DataFrame({"group": c.group, "class": c.target} for c in dataset)
    places = slice(given.skip, given.skip + given.each)
    chosen = table.drop_duplicates("group").groupby("class").nth(places)
    for part in ("images", "pool"):
        (given.folder / part).mkdir(parents=True)
    for i, case in enumerate(dataset):
        if i in chosen.index or case.group not in set(chosen["group"]):
            part = "images" if i in chosen.index else "pool"
            shutil.copy(case.images[0], given.folder / part)
    _predict(given.reference, given.folder, given.folder / "labels", given.steps)


def _score(given: argparse.Namespace) -> None:
    called = f"{given.name}-{given.labels}-{given.draw}"
    run, masks = given.work / called, given.masks / called
    if not masks.exists():
        _predict(str(run), given.folder, masks, given.steps)
    elif (record := Record.read(masks)) is None or record.header["runs"] != made_by(run):
        raise InputError(masks, f"holds masks that {run} did not make", "Name another folder MASKS")
    given.out.mkdir(parents=True, exist_ok=True)
    known = pd.read_csv(f"{run}.csv").iloc[0]
    row = {"name": given.name, "labels": given.labels, "draw": given.draw}
    cost = {"train_seconds": known["train_seconds"], "predict_seconds": float("nan")}
    flags = [*shlex.split(known["flags"]), "--plan.postprocess", given.steps]
    found = scores_of(run, masks, str(given.folder), row, cost, flags)
    found.to_csv(given.out / f"{called}.csv", index=False)
    print(called, found[list(METRICS)].mean().round(4).to_dict())


def made_by(run: Path) -> list[dict[str, str]]:
    """What ``prediction.json`` says of the one run that made masks."""
    return [{"run": str(run), **identity(Run.open(run))}]


def _predict(run: str, folder: Path, masks: Path, steps: str) -> None:
    """Masks of the films in a folder."""
    seconds_of(["predict", run, str(folder / "images"), "--out", str(masks), *THREADS])
    step_after(masks, steps)


if __name__ == "__main__":
    main()
