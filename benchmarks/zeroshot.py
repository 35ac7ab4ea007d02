"""Lungs without labels, measured: ``python benchmarks/zeroshot.py LUNGS --work FOLDER [--run RUN]``.

The films are clustered with each number of clusters. The number used for a film was chosen by the Dice of the films
of other patients: the patients are halved, and each half gets the number that is best on the other one. Rows of DiffSeg
in ``results/synthesis-zeroshot.csv`` are kept, or made anew from ``--diffseg``, a folder of ``radiffuse zeroshot``. The
scores of every film go to ``results/scores/synthesis-zeroshot.csv.gz``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from results import (
    RESULTS,
    fill_claim,
    origin,
    read_scores,
    scores_path,
    write_scores,
    write_table,
)
from torch.nn import functional

import radiffuse
from radiffuse.config import Data
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.streams import Stream
from radiffuse.evaluation.statistics import clustered_mean

COUNTS = (3, 4, 5, 6, 8, 12, 16)
TABLE = RESULTS / "synthesis-zeroshot.csv"
PAPER = 0.844
"""Dice of claim dino-6."""
DONE = (
    "features of the decoder of a denoiser, clustered over all films, and clusters named lungs by a rule without "
    "labels; how many clusters was chosen by the labels of other patients"
)
"""What was done for the claim."""
COMMAND = "python benchmarks/zeroshot.py ../shared/data/cxr-lungs --work . --run {run}"


def main() -> None:
    """Segment, choose across halves of the patients, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lungs", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="films-64")
    parser.add_argument("--diffseg", type=Path)
    given = parser.parse_args()
    scores = {count: _segment(given, count) for count in COUNTS}
    chosen = cross_chosen({count: table["dice_rule"] for count, table in scores.items()})
    of, groups = f"clusters of {given.run}", scores[COUNTS[0]]["group"].astype(str).tolist()
    rows = [_row(of, "chosen", "dice_rule", chosen, groups)]
    for count, table in scores.items():
        rows += [
            _row(of, str(count), f"dice_{n}", table[f"dice_{n}"], groups)
            for n in ("rule", "matched")
        ]
    rows.append(_row("grid of 16 x 16", "", "ceiling", _ceiling(given.lungs), groups))
    films = [table.assign(method=of, clusters=str(count)) for count, table in scores.items()]
    write_scores(pd.concat([*films, _diffseg_films(given.diffseg)]), TABLE.stem)
    made = origin(COMMAND.format(run=given.run))
    table = pd.DataFrame(rows).assign(**made)
    write_table(pd.concat([table, _diffseg(given, groups)]), {}, TABLE.name)
    best = rows[0]
    fill_claim(
        "dino-6",
        {
            "data": "cxr-lungs, 59 adult films",
            "done": DONE,
            "command": made["command"],
            "seeds": "1",
            "value": f"Dice {best['dice']:.3f}",
            "interval": f"{best['low']:.3f} to {best['high']:.3f}",
            "test": "interval over patients",
            "verdict": "worse than claimed" if best["high"] < PAPER else "not decided",
        },
    )


def cross_chosen(scores: Mapping[int, pd.Series]) -> pd.Series:
    """The score of every film with the number of clusters that is best on the films of the other half of the patients.

    Series of scores by number of clusters, each indexed by patient.
    """
    table = pd.DataFrame(scores)
    patients = table.index.unique()
    first = Stream.HALVES.rng(0).permutation(patients)[: len(patients) // 2]
    inside, found = table.index.isin(first), pd.Series(np.nan, index=table.index)
    for half in (inside, ~inside):
        best = table[~half].mean().idxmax()
        print(
            f"{half.sum()} films get {best} clusters, the best of {(~half).sum()} films of other patients"
        )
        found[half] = table.loc[half, best]
    return found


def _segment(given: argparse.Namespace, count: int) -> pd.DataFrame:
    out = given.work / f"clusters-{count}"
    machine = {"accelerator": "cpu"}
    radiffuse.zeroshot(
        run=given.run, data=str(given.lungs), out=str(out), clusters=count, machine=machine
    )
    table = pd.read_csv(out / "zeroshot.csv")
    return table.set_index(table["group"].astype(str))


def _row(
    method: str, clusters: str, score: str, values: pd.Series, groups: list[str]
) -> dict[str, object]:
    found = clustered_mean(values.to_numpy(), group=groups)
    row = {"method": method, "clusters": clusters, "score": score, "dice": found.mean}
    return row | {"low": found.low, "high": found.high, "n": found.n}


def _ceiling(lungs: Path) -> pd.Series:
    """The Dice of the ground truth itself, averaged over a grid of 16 x 16 and enlarged again, by the nearest half."""
    dice = []
    for case in open_dataset(str(lungs), Data()).labelled:
        label = read_case_label(case, read_case_image(case)).array[0]
        truth = torch.from_numpy((label == 1).astype(np.float32))[None, None]
        coarse = functional.interpolate(truth, (16, 16), mode="area")
        fine = functional.interpolate(coarse, truth.shape[2:], mode="bilinear", align_corners=False)
        guess, true = (fine > 0.5) & torch.from_numpy(label != 255), truth > 0.5
        dice.append(2 * float((guess & true).sum()) / float(guess.sum() + true.sum()))
    return pd.Series(dice)


def _diffseg_films(folder: Path | None) -> pd.DataFrame:
    """Its scores by film: of the folder, or those kept, if any."""
    if folder is not None:
        return read_scores(folder / "zeroshot.csv").assign(method="diffseg", clusters="")
    kept = scores_path(TABLE.stem)
    table = read_scores(kept) if kept.exists() else pd.DataFrame({"method": []})
    return table[table["method"] == "diffseg"]


def _diffseg(given: argparse.Namespace, groups: list[str]) -> pd.DataFrame:
    """Its rows as they are, or those of a new folder."""
    if given.diffseg is None:
        table = pd.read_csv(TABLE)
        if "method" not in table:
            table = table.assign(method="diffseg", clusters="")
        return table[table["method"] == "diffseg"]
    cases = _diffseg_films(given.diffseg)
    names = ("dice_rule", "dice_matched")
    rows = [_row("diffseg", "", name, cases[name], groups) for name in names]
    return pd.DataFrame(rows).assign(**origin("python benchmarks/synthesis.py"))


if __name__ == "__main__":
    main()
