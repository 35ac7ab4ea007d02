"""How well body coordinates find a place again: ``python benchmarks/landmarks.py RUN SCANS``.

RUN is a finished run of ``radiffuse pretrain --objective coordinates``, SCANS are labelled scans it never saw. The
center of every organ is carried from each scan to the next by its coordinates; beside it stands what the point at the
same share of the scan's extent would have missed by. Writes ``landmarks.csv``: error in mm by organ and over all, with
intervals over targets, and every error to ``results/scores/landmarks.csv.gz``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from results import origin, write_scores, write_table

from radiffuse.config import Data
from radiffuse.data.layouts import open_dataset
from radiffuse.evaluation.statistics import clustered_mean
from radiffuse.inference.coordinates import carried_landmarks
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.registry import load_network
from radiffuse.train.run import Run


def main() -> None:
    """Carry, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--command", required=True, help="how run and scans were made")
    given = parser.parse_args()
    run = Run.open(given.run)
    regressor = load_network(run.model).eval()
    assert isinstance(regressor, CoordinateRegressor)
    dataset = open_dataset(given.scans, Data()).labelled
    found = pd.DataFrame(carried_landmarks(regressor, run.plan, dataset))
    found = write_scores(found, "landmarks")
    parts = {"all": found} | dict(list(found.groupby("class", sort=False)))
    rows = []
    for name, part in parts.items():
        row: dict[str, object] = {"class": name, "pairs": len(part)}
        for column in ("error", "same_place"):
            interval = clustered_mean(part[column], group=part["target"].tolist())
            row |= {
                column: interval.mean,
                f"{column}_low": interval.low,
                f"{column}_high": interval.high,
            }
        rows.append(row)
    write_table(pd.DataFrame(rows), origin(given.command), "landmarks.csv")


if __name__ == "__main__":
    main()
