"""Five chosen labels beside five random ones, on films of lungs: ``python benchmarks/select_scans.py [--seconds 600]``.

Each draw parts the patients anew, so that intervals are over draws of patients as well. From the training pool five
films are taken at random, typical (``radiffuse select POOL --from films-64``), or uncertain (three typical ones, then
two by a network that was trained on them); the same network is trained on each and scored on the same test films.
``results/select.csv`` has a row for each way, with the paired difference to chance over all draws so far. Repeating the
command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path

import pandas as pd
from results import origin, write_scores, write_table

import radiffuse
from radiffuse.evaluation.statistics import clustered_difference, holm, verdict
from radiffuse.evaluation.tables import over_classes

CHOICES = ("typical", "uncertain")


def study(draw: int, given: argparse.Namespace) -> pd.DataFrame:
    """Mean Dice of each test film of one division of the patients, by method."""
    out = given.work / f"select-{draw}"
    folder = radiffuse.study(
        data=given.data,
        from_="films-64",
        methods=("finetune",),
        reference="finetune",
        choices=CHOICES,
        labels=(given.labels,),
        draws=1,
        out=out,
        finetune={
            "split": {"test": 0.4, "validation": 0.0, "seed": draw},
            "training": {"steps": given.steps, "batch_size": 8},
            "machine": {"threads": 1},
        },
    ).parent
    table = over_classes(pd.read_csv(folder / "results.csv", dtype={"case": str, "group": str}))
    return table.assign(draw=draw)


def rows(table: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of each way, and its paired difference to random labels."""
    keys = ["draw", "group", "case"]
    wide = table.pivot(index=keys, columns="method", values="dice").reset_index()
    found = []
    for method in ("finetune", *(f"finetune@{choice}" for choice in CHOICES)):
        paired = clustered_difference(
            wide[method], wide["finetune"], draw=list(wide["draw"]), group=list(wide["group"])
        )
        chosen = method.partition("@")[2] or "random"
        means = wide.groupby("draw")[method].mean()
        found.append(
            {"choice": chosen, "draws": len(means), "n": len(wide), "dice": wide[method].mean()}
            | {"worst_draw": means.min(), "difference": paired.difference}
            | {"low": paired.low, "high": paired.high, "p_value": paired.p_value}
        )
    table = pd.DataFrame(found)
    table["p_holm"] = [math.nan, *holm(table["p_value"][1:])]
    ends = zip(table["low"], table["high"], table["p_holm"], table["draws"], strict=True)
    table["verdict"] = ["", *(verdict(*three, draws=n) for *three, n in list(ends)[1:])]
    return table


def main() -> None:
    """Run draw after draw, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cxr-lungs"))
    parser.add_argument("--work", type=Path, default=Path("runs"))
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--name", default="select.csv")
    given = parser.parse_args()
    began, tables = time.monotonic(), []
    source = origin(shlex.join(["python", *sys.argv]))
    for draw in range(given.draws):
        tables.append(study(draw, given))
        scores = write_scores(pd.concat(tables, ignore_index=True), Path(given.name).stem)
        found = rows(scores).assign(labels=given.labels, steps=given.steps)
        write_table(found, source, given.name)
        if time.monotonic() - began > given.seconds:
            break
    print(found)


if __name__ == "__main__":
    main()
