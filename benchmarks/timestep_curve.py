"""Dice by timestep of the probed features, by size of organs: ``python benchmarks/timestep_curve.py STUDY``.

``STUDY`` is a study with non-linear probes on single timesteps (``--probing.sweep``), or its scores as they are kept in
``results/scores/guided-timesteps.csv.gz``. Writes these, ``guided-timesteps.csv``, for each way of pre-training, size
group and timestep the mean Dice with its interval and the paired difference to ``--peak``, and draws
``docs/images/guided-timesteps.svg``; the clean image is timestep 0. Groups are thirds of the classes by mean volume.
With ``--data`` the claims guided-4 and guided-5 are filled.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from results import (
    HOW,
    fill_claim,
    origin,
    overall,
    read_scores,
    write_figure,
    write_scores,
    write_table,
)

from radiffuse.evaluation.statistics import clustered_difference, clustered_mean, holm, verdict
from radiffuse.evaluation.tables import SIZES, size_groups
from radiffuse.reports.style import SERIES, styled

HEAD = re.compile(r"(\w+)(?:@nonlinear)?(?:@t=(\d+|clean))?")
NAMES = {"diffusion": "denoising", "guided": "guided denoising"}


def main() -> None:
    """Read the study, write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder, or file of scores")
    parser.add_argument("--peak", type=int, default=10, help="timestep of the plain heads")
    parser.add_argument("--command", required=True)
    parser.add_argument("--name", default="guided-timesteps", help="of the table and the figure")
    parser.add_argument("--data", help="the data, in words, for the claims")
    given = parser.parse_args()
    scores = write_scores(read_scores(given.study), given.name)
    table = curve(by_group(scores, given.peak), given.peak)
    write_table(table, origin(given.command), f"{given.name}.csv")
    write_figure(draw(table), given.name)
    if given.data:
        about = {
            "data": given.data,
            "command": given.command,
            "seeds": str(scores["draw"].nunique()),
        }
        _claims(table, given.peak, about)


def _claims(table: pd.DataFrame, peak: int, about: Mapping[str, str]) -> None:
    """The peak against lower timesteps, and the highest one against the peak, of the guided features."""
    rows = table[(table["way"] == "guided") & (table["timestep"] != peak)]
    low, high = rows[rows["timestep"] < peak], rows[rows["timestep"] == rows["timestep"].max()]
    for claim, part in (("guided-4", low), ("guided-5", high)):
        found = list(part.itertuples())
        said = [
            f"{r.size} organs, timestep {r.timestep} against {peak}: {r.difference:+.3f}"
            for r in found
        ]
        fill_claim(claim, {
            **about,
            "value": "guided, " + "; ".join(said),
            "interval": "; ".join(f"{r.difference_low:+.3f} to {r.difference_high:+.3f}" for r in found),
            "test": f"Dice by size group of organs; {HOW}",
            "verdict": overall([str(r.verdict) for r in found]),
        })  # fmt: skip


def by_group(results: pd.DataFrame, peak: int) -> pd.DataFrame:
    """Mean Dice of each case over the classes of a size group.

    Args:
        results: ``results.csv`` of a study.
        peak: Timestep of heads whose name has none, where no name has it: else they join several.
    """
    found = results["method"].str.extract(f"^{HEAD.pattern}$")
    joined = found[1].isna() & (found[1] == str(peak)).any()
    rows = results.assign(way=found[0], timestep=found[1].fillna(str(peak)).replace("clean", "0"))
    rows = rows[found[0].isin(NAMES) & ~joined].astype({"timestep": int})
    sizes = rows[rows["truth_voxels"] > 0].groupby("class")["truth_voxels"].mean()
    rows = rows.assign(size=rows["class"].map(size_groups(sizes.to_dict())))
    rows = rows[rows["counted"].astype(bool) & rows["size"].notna()]
    keys = ["way", "size", "timestep", "draw", "case", "group"]
    return rows.groupby(keys, as_index=False)["dice"].mean()


def curve(cases: pd.DataFrame, peak: int) -> pd.DataFrame:
    """Means with intervals, and differences to the peak with Holm's p over the timesteps of a group."""
    rows = []
    for (way, size), part in cases.groupby(["way", "size"]):
        tests = {}
        for t, now in part.groupby("timestep"):
            mean = clustered_mean(now["dice"], draw=list(now["draw"]), group=list(now["group"]))
            row = {"way": way, "size": size, "timestep": t, "dice": mean.mean,
                   "low": mean.low, "high": mean.high, "n": mean.n}  # fmt: skip
            rows.append(row)
            if t == peak:
                continue
            both = now.merge(part[part["timestep"] == peak], on=["draw", "case", "group"])
            test = clustered_difference(
                both["dice_x"], both["dice_y"], draw=list(both["draw"]), group=list(both["group"])
            )
            tests[t] = test
            row |= {"difference": test.difference, "difference_low": test.low,
                    "difference_high": test.high}  # fmt: skip
        adjusted = dict(zip(tests, holm(t.p_value for t in tests.values()), strict=True))
        for row in rows:
            if (row["way"], row["size"]) == (way, size) and row["timestep"] in adjusted:
                p = float(adjusted[row["timestep"]])
                row["p_holm"] = p
                low, high = row["difference_low"], row["difference_high"]
                row["verdict"] = verdict(low, high, p, draws=tests[row["timestep"]].draws)
    return pd.DataFrame(rows)


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A panel for each way, a line for each size group."""
    ways = [way for way in NAMES if way in set(table["way"])]
    figure = Figure(figsize=(7.6, 3.4))
    panels = figure.subplots(1, len(ways), sharey=True, squeeze=False)[0]
    for axes, way in zip(panels, ways, strict=True):
        for i, size in enumerate(reversed(SIZES)):
            rows = table[(table["way"] == way) & (table["size"] == size)].sort_values("timestep")
            axes.plot(rows["timestep"], rows["dice"], "o-", color=SERIES[i], label=size)
            axes.vlines(rows["timestep"], rows["low"], rows["high"], color=SERIES[i], alpha=0.6)
        axes.set_xscale("symlog")  # the clean image, 0, has a place
        axes.xaxis.set_major_locator(FixedLocator(sorted(set(table["timestep"]))))
        axes.xaxis.set_minor_locator(NullLocator())
        names = ["clean" if t == 0 else str(t) for t in sorted(set(table["timestep"]))]
        axes.set_xticklabels(names)
        axes.set_xlabel("timestep of 300")
        axes.set_title(NAMES[way])
    panels[0].set_ylabel("Dice")
    panels[0].set_ylim(bottom=0)
    panels[-1].legend(title="organs", frameon=False)
    return figure


if __name__ == "__main__":
    main()
