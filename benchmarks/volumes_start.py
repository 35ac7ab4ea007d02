"""Fine-tuning from a network pre-trained on volumes of CT, against the same network from scratch, with few labels.

    radiffuse anatomy abdomen --textured --count 80 --size 128,128,80 --seed 20 --labelled false --out ABDOMENS
    radiffuse pretrain ABDOMENS --with SHARED/ct-sarcoma --only 'abdomen-|STS_0(02|08|12|19|24)' --out RUN \
        --config benchmarks/volumes_start.yaml
    python benchmarks/volumes_start.py --work FOLDER --shared SHARED --start RUN

Tasks: large organs of drawn abdomens of another seed; tumors of ``ct-sarcoma``, where the patients that pre-training
saw, without their labels, may be labelled, and others are validation and test; and the organs of the two scans of
``ct-abdomen``, by the networks that learned from drawn abdomens alone. Both methods have plan, network, steps and
labelled cases in common. The part ``validation`` decides whether the start is worth shipping. Interrupted, the same
command goes on; ``--tasks`` does a part of the work and writes no table.

Writes ``results/volumes-start.csv`` and all scores to ``results/scores/volumes-start.csv.gz``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import origin, write_scores, write_table

import radiffuse
from radiffuse.config import Data, Machine
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.class_names import read_classes
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.splits import Splits, write_splits
from radiffuse.evaluation.matching import match
from radiffuse.evaluation.statistics import clustered_difference, clustered_mean, holm, verdict
from radiffuse.evaluation.tables import BOUNDS, over_classes
from radiffuse.inference.predictor import Predictor
from radiffuse.system.files import read_yaml
from radiffuse.train.run import Run

ORGANS = ("spleen", "right kidney", "left kidney", "liver", "stomach")
"""The others are too small to be learned in the time."""
TASKS = ("drawn", "sarcoma")
DRAWS = 3
METHODS = ("scratch", "finetune")
SEEN = ("STS_002", "STS_008", "STS_012", "STS_019", "STS_024")
"""Patients of ``ct-sarcoma`` that pre-training sees."""
UNSEEN = {"validation": ("STS_041", "STS_042"), "test": ("STS_025", "STS_032", "STS_035")}
DRAWN = {"train": 7, "validation": 3, "test": 6}
REAL = {"abdomen": "totalsegmentator-v1", "slab": "totalsegmentator"}
"""Scans of ``ct-abdomen``, with the names of their classes."""
WINDOW = (-160.0, 240.0)
KEYS = ["data", "part", "labels"]


@dataclass(frozen=True)
class Task:
    """Something to segment: labelled cases in three parts, seen at a spacing in millimeters.

    Attributes:
        draws: How many, by number of labels.
        names: Of the classes by value of the labels; None: those that the data set declares.
    """

    name: str
    data: Path
    splits: Splits
    spacing: float
    draws: Mapping[int, int]
    names: tuple[str, ...] | None = None

    @property
    def reader(self) -> dict[str, Any]:
        """How the labels become classes: ``names`` by value."""
        if self.names is None:
            return {}
        return {"label_values": tuple(range(len(self.names))), "class_names": self.names}


def main() -> None:
    """Train, segment, score, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True, help="folder of the real data")
    parser.add_argument(
        "--start", required=True, help="pre-trained run, or the name of shipped weights"
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--patch", type=int, default=24)
    given = parser.parse_args()
    found = [
        one(given, task, method, labels, draw)
        for task in tasks(given)
        if task.name in given.tasks
        for labels, draws in task.draws.items()
        for draw in range(draws)
        for method in METHODS
    ]
    if set(given.tasks) < set(TASKS):
        return
    scores = write_scores(pd.concat(found, ignore_index=True), "volumes-start")
    flags = f"--steps {given.steps} --batch {given.batch} --patch {given.patch}"
    command = (
        f"python benchmarks/volumes_start.py --work . --shared ../shared/data --start RUN {flags}"
    )
    write_table(table(scores), origin(command), "volumes-start.csv")


def tasks(given: argparse.Namespace) -> Iterator[Task]:
    """What is segmented."""
    drawn = given.work / "drawn"
    count, size = sum(DRAWN.values()), (96, 96, 60)
    radiffuse.anatomy(
        kind="abdomen", out=str(drawn), count=count, size=size, seed=21, textured=True
    )
    declared = json.loads((drawn / "classes.json").read_text()).values()
    organs = tuple(name if name in ORGANS else "background" for name in declared)
    names = [path.name.removesuffix(".nii.gz") for path in sorted((drawn / "images").iterdir())]
    ends = np.cumsum(list(DRAWN.values()))[:-1]
    train, validation, test = (tuple(map(str, part)) for part in np.split(np.array(names), ends))
    yield Task("drawn", drawn, _splits(train, validation, test), 8.0, {1: 3, 5: 2}, organs)
    sarcoma = _splits(SEEN, UNSEEN["validation"], UNSEEN["test"])
    yield Task("sarcoma", given.shared / "ct-sarcoma", sarcoma, 4.0, {5: 2})


def one(given: argparse.Namespace, task: Task, method: str, labels: int, draw: int) -> pd.DataFrame:
    """Scores of a network on the cases that it did not learn from, and on real abdomens after drawn ones."""
    out = given.work / f"{task.name}-{method}-{labels}-{draw}"
    kept = out.with_suffix(".csv")
    if kept.exists():
        return pd.read_csv(kept, dtype={"case": str, "group": str})
    run = trained(given, task, method, labels, draw, out)
    predictor = Predictor.open([Run.open(Path(run))], Machine(accelerator="cpu"))
    held = {name: part for part in ("validation", "test") for name in task.splits.part(part)}
    found = scored(predictor, open_dataset(task.data, Data(**task.reader)), list(held))
    parts = [found.assign(part=found["case"].map(held), data=task.name)]
    if task.name == "drawn" and labels == max(task.draws):
        for name, truth in REAL.items():
            real = scored(predictor, open_dataset(given.shared / "ct-abdomen"), [name], truth)
            parts.append(real.assign(part="test", data="real abdomens"))
    table = pd.concat(parts).assign(method=method, labels=labels, draw=draw)
    table.to_csv(kept, index=False)
    print(kept.stem, table.groupby(["data", "part"])["dice"].mean().round(4).to_dict(), flush=True)
    return table


def trained(
    given: argparse.Namespace, task: Task, method: str, labels: int, draw: int, out: Path
) -> str:
    """The run, by its folder."""
    split = given.work / f"{task.name}.json"
    if not split.exists():
        write_splits(split, task.splits)
    how: dict[str, Any] = {"from_": given.start}
    if method == "scratch":
        how = {"network": network()}
    radiffuse.fit(
        data=str(task.data), out=str(out), method=method, labels=labels, draw=draw,
        split={"file": str(split)},
        plan={"size": (given.patch,), "spacing": (task.spacing,) * 3, "window": WINDOW},
        training={
            "steps": given.steps, "batch_size": given.batch, "seed": draw, "validate_every": 0,
            "average_decay": 0.95,
        },
        machine={"accelerator": "cpu"},
        reader={"cache": str(given.work / "cache"), **task.reader},
        **how,
    )  # fmt: skip
    return str(out)


def network() -> dict[str, Any]:
    """That of the pre-trained run."""
    found: dict[str, Any] = read_yaml(Path(__file__).with_suffix(".yaml"))["network"]
    return found


def scored(
    predictor: Predictor, data: Dataset, names: Sequence[str], truth: str = ""
) -> pd.DataFrame:
    """Dice of each class of the named cases; ``truth`` says what the values of their labels are called."""
    rows = []
    classes = predictor.plan.classes
    true = read_classes(truth) if truth else dict(enumerate(classes))
    matching = match(dict(enumerate(classes)), true)
    for case in data:
        if case.name not in names:
            continue
        image = read_case_image(case)
        mask = image.with_array(predictor.probabilities(image).argmax(0)[None])
        label = read_case_label(case, image)
        found, wanted = (
            matching.translate(scan, case.name, side).array
            for side, scan in enumerate((mask, label))
        )
        for value, name in enumerate(matching.classes[1:], start=1):
            one, other = found == value, wanted == value
            total = one.sum() + other.sum()
            dice = 2 * (one & other).sum() / total if total else np.nan
            rows.append({"case": case.name, "group": case.group, "class": name, "dice": dice})
    return pd.DataFrame(rows)


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Both methods and their difference, by task, part and number of labels."""
    cases = over_classes(scores.assign(group=scores["group"].fillna(scores["case"])), ("dice",))
    known = scores[["case", "data", "part"]].drop_duplicates()
    cases = cases.merge(known, on="case")
    wide = cases.pivot_table(
        index=["data", "part", "labels", "draw", "group"], columns="method", values="dice"
    ).reset_index()
    rows = []
    for (data, part, labels), pairs in wide.groupby(KEYS):
        by = {"draw": pairs["draw"].tolist(), "group": pairs["group"].tolist()}
        row = {"data": data, "part": part, "labels": labels}
        for method in METHODS:
            found = clustered_mean(pairs[method], **by, bounds=BOUNDS["dice"])
            row |= {method: found.mean, f"{method}_low": found.low, f"{method}_high": found.high}
        test = clustered_difference(pairs["finetune"], pairs["scratch"], **by)
        row |= {"difference": test.difference, "low": test.low, "high": test.high}
        row |= {"p_value": test.p_value, "patients": pairs["group"].nunique()}
        rows.append(row | {"draws": test.draws, "note": test.note})
    adjusted = holm(row["p_value"] for row in rows)
    return pd.DataFrame(
        row | {"p_holm": p, "verdict": verdict(row["low"], row["high"], p, draws=row["draws"])}
        for row, p in zip(rows, adjusted, strict=True)
    )


def _splits(
    train: tuple[str, ...],
    validation: tuple[str, ...],
    test: tuple[str, ...],
) -> Splits:
    """Each draw orders the training cases by its own number."""
    orders = [np.random.default_rng(draw).permutation(len(train)) for draw in range(DRAWS)]
    draws = tuple(tuple(train[i] for i in order) for order in orders)
    return Splits(train, validation, test, draws)


if __name__ == "__main__":
    main()
