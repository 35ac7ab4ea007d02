"""Lungs without labels, measured: ``python benchmarks/zeroshot.py LUNGS --work FOLDER [--run RUN --features encoder]``.

The films are clustered with each number of clusters. The number used for a film was chosen by the Dice of the films
of other patients: the patients are halved, and each half gets the number that is best on the other one. Instead of the
features of ``--run``, ``--baseline`` clusters gray values or the features of its network untrained. Rows of other
sources in ``results/synthesis-zeroshot.csv`` and their scores of every film, in
``results/scores/synthesis-zeroshot.csv.gz``, are kept; those of DiffSeg are made anew from ``--diffseg``, a folder of
``radiffuse zeroshot``. Only the included denoiser fills the claim.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import (
    RESULTS,
    beside,
    fill_claim,
    origin,
    read_scores,
    scores_path,
    write_scores,
    write_table,
)
from torch.nn import functional

from radiffuse.commands.zeroshot import ZeroShotSegmenter, made_by, open_zeroshot
from radiffuse.config import Data, Machine, ZeroShot
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.data.streams import Stream
from radiffuse.evaluation.statistics import clustered_mean
from radiffuse.inference.masks import Recorded, write_masks
from radiffuse.nets.registry import save_network
from radiffuse.train.start import find_pretrained, load_denoiser

COUNTS = (3, 4, 5, 6, 8, 12, 16)
TABLE = RESULTS / "synthesis-zeroshot.csv"
PAPER = 0.844
"""Dice of claim dino-6."""
DONE = (
    "features of the decoder of a denoiser, clustered over all films, and clusters named lungs by a rule without "
    "labels; how many clusters was chosen by the labels of other patients"
)
"""What was done for the claim."""
SHIPPED = "films-64"
GRAY, UNTRAINED, DIFFSEG = "gray values", "untrained network", "diffseg"


def main() -> None:
    """Segment, choose across halves of the patients, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lungs", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default=SHIPPED)
    parser.add_argument("--features", choices=("denoiser", "encoder"), default="denoiser")
    parser.add_argument("--baseline", choices=(GRAY, UNTRAINED), help="instead of these features")
    parser.add_argument("--name", help="of the source, in the table; None: by the run")
    parser.add_argument("--diffseg", type=Path)
    given = parser.parse_args()
    usual = ("clusters" if given.features == "denoiser" else "patch tokens") + f" of {given.run}"
    of = given.source = given.name or given.baseline or usual
    scores = {count: _segment(given, count) for count in COUNTS}
    chosen = cross_chosen({count: table["dice_rule"] for count, table in scores.items()})
    groups = scores[COUNTS[0]]["group"].astype(str).tolist()
    rows = [_row(of, "chosen", "dice_rule", chosen, groups)]
    for count, table in scores.items():
        rows += [
            _row(of, str(count), f"dice_{n}", table[f"dice_{n}"], groups)
            for n in ("rule", "matched")
        ]
    films = [table.assign(method=of, clusters=str(count)) for count, table in scores.items()]
    made = origin(command(given))
    claims = of == f"clusters of {SHIPPED}" and given.run == SHIPPED and not given.baseline
    if claims:
        rows.append(_row("grid of 16 x 16", "", "ceiling", _ceiling(given.lungs), groups))
    tables = [pd.DataFrame(rows).assign(**made)]
    if given.diffseg is not None:
        cases = read_scores(given.diffseg / "zeroshot.csv").assign(method=DIFFSEG, clusters="")
        names = ("dice_rule", "dice_matched")
        diffseg = pd.DataFrame([_row(DIFFSEG, "", name, cases[name], groups) for name in names])
        tables.append(diffseg.assign(**origin("python benchmarks/synthesis.py")))
        films.append(cases)
    kept = scores_path(TABLE.stem)
    write_scores(beside(read_scores(kept) if kept.exists() else None, films, "method"), TABLE.stem)
    write_table(
        beside(pd.read_csv(TABLE, dtype={"clusters": str}), tables, "method"), {}, TABLE.name
    )
    if claims:
        _claim(rows[0], made["command"])


def command(given: argparse.Namespace) -> str:
    """What makes the rows again."""
    words = f"python benchmarks/zeroshot.py ../shared/data/cxr-lungs --work . --run {given.run}"
    if given.features != "denoiser":
        words += f" --features {given.features}"
    for name in ("baseline", "name"):
        if value := getattr(given, name):
            words += f' --{name} "{value}"'
    return words


def _claim(best: Mapping[str, Any], made_by: str) -> None:
    fill_claim(
        "dino-6",
        {
            "data": "cxr-lungs, 59 adult films",
            "done": DONE,
            "command": made_by,
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
    """Masks and scores of every film, as ``radiffuse zeroshot`` makes them."""
    run, of = given.run, given.source.replace(" ", "-").replace("/", "-")
    if given.baseline == UNTRAINED:
        run = untrained(run, given.work / "untrained")
    settings = ZeroShot(
        run=run,
        data=str(given.lungs),
        out=str(given.work / f"{of}-{count}"),
        features=given.features,
        clusters=count,
        machine=Machine(accelerator="cpu"),
    )
    segmenter, out = open_zeroshot(settings), Path(settings.out)
    assert isinstance(segmenter, ZeroShotSegmenter)
    if given.baseline == GRAY:
        vars(segmenter)["dense"] = lambda film: film
    writer = Recorded(out, segmenter.groups, segmenter.channels, segmenter)
    table = segmenter.scores(write_masks(out, made_by(segmenter), segmenter.dataset, writer))
    return table.set_index(table["group"].astype(str))


def untrained(name: str, folder: Path) -> str:
    """A copy of a run whose network has the weights with which a training begins."""
    run = find_pretrained(name)
    shutil.copytree(run.folder, folder, dirs_exist_ok=True)
    unet = load_denoiser(run)
    unet.initialize(torch.Generator().manual_seed(0))
    save_network(unet, folder / "model")
    return str(folder)


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


if __name__ == "__main__":
    main()
