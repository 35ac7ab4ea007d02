"""How well body coordinates find a place again: ``python benchmarks/landmarks.py RUN [RUN ...]``.

RUNs are finished runs of ``radiffuse pretrain --objective coordinates --regressor.landmarks SCANS`` that differ in
``--regressor.ramp``; SCANS are labelled scans that they never saw. The center of every organ was carried from each scan
to the next by its coordinates; beside it stands what the point at the same share of the scan's extent would have missed
by. Writes ``landmarks.csv``: error in mm by organ and over all, with intervals over targets, and how it differs, in
pairs, from that of the first run and from that of the same place; every error goes to ``results/scores/``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from results import origin, write_scores, write_table

from radiffuse.evaluation.statistics import clustered_difference, clustered_mean
from radiffuse.train.run import Run


def main() -> None:
    """Carry, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--command", required=True, help="how runs and scans were made")
    parser.add_argument("--name", default="landmarks", help="of the tables")
    given = parser.parse_args()
    found = write_scores(pd.concat([carried(run) for run in given.runs]), given.name)
    first = found[found["ramp"] == found["ramp"].iloc[0]]
    rows = [row for _, mine in found.groupby("ramp", sort=False) for row in errors(mine, first)]
    write_table(pd.DataFrame(rows), origin(given.command), f"{given.name}.csv")


def carried(folder: Path) -> pd.DataFrame:
    """Every error of a run."""
    settings = Run.open(folder).config["settings"]
    rows = pd.read_csv(folder / "landmarks.csv", dtype={"source": str, "target": str})
    ramp, steps = settings["regressor"].get("ramp", "none"), settings["training"]["steps"]
    return rows.assign(ramp=ramp, steps=steps)


def errors(mine: pd.DataFrame, first: pd.DataFrame) -> Iterator[dict[str, object]]:
    """A row over all organs and one for each; ``first`` has the errors that the others are compared with."""
    keys = ["source", "target", "class"]
    both = mine.merge(first[[*keys, "error"]], on=keys, suffixes=("", "_first"))
    for name, part in {"all": both, **dict(list(both.groupby("class", sort=False)))}.items():
        row = {name: part[name].iloc[0] for name in ("ramp", "steps")}
        row |= {"class": name, "pairs": len(part)}
        group = part["target"].tolist()
        for column in ("error", "same_place"):
            interval = clustered_mean(part[column], group=group)
            row |= {
                column: interval.mean,
                f"{column}_low": interval.low,
                f"{column}_high": interval.high,
            }
        for reference, column in (("same_place", "same_place"), ("first", "error_first")):
            if name != "all" or (reference == "first" and part["error"].equals(part[column])):
                continue
            test = clustered_difference(part["error"], part[column], group=group)
            row |= {
                f"against_{reference}": test.difference,
                f"against_{reference}_low": test.low,
                f"against_{reference}_high": test.high,
            }
        yield row


if __name__ == "__main__":
    main()
