"""Organs of volumes without labels, measured: ``python benchmarks/zeroshot_volumes.py --work FOLDER``.

Draws textured abdomens, pre-trains a regressor of body coordinates and a denoiser that it guides, and segments labelled
abdomens of other patients by k-means, with each number of clusters, of: the guided features with the coordinates, and
without; those of the same network untrained, with the coordinates; and gray values with the coordinates. Every organ is
scored by the segments that the labels of the other half of the patients name; the number of clusters of a half is that
which is best within the other one. Interrupted, the same command trains on.

Writes ``results/zeroshot-volumes.csv`` and all scores to ``results/scores/zeroshot-volumes.csv.gz``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from results import origin, write_scores, write_table
from torch import Tensor
from torch.nn import functional

import radiffuse
from radiffuse.config import ZeroShot
from radiffuse.data.cases import read_case_image, read_case_label
from radiffuse.data.layouts import open_dataset
from radiffuse.evaluation.statistics import clustered_difference, clustered_mean
from radiffuse.synthesis.dense import DenseWindows, open_volumes
from radiffuse.synthesis.overlaps import Overlap, first_half, matched_across, overlap_of
from radiffuse.synthesis.volumes import find_volume_clusters, read_volume_places, segment_volume
from radiffuse.train.run import Run

COUNTS = (16, 32)
CPU = torch.device("cpu")
FIRST = "guided + coordinates"
LARGE = ("liver", "spleen", "stomach", "right kidney", "left kidney", "aorta")
"""Organs of which most are wider than two voxels of 6 mm."""


def main() -> None:
    """Draw, train, segment, choose across halves of the patients, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--voxels", type=int, nargs=3, default=(64, 64, 40), help="of a volume")
    parser.add_argument("--window", type=int, default=32, help="voxels along each axis")
    parser.add_argument("--pool", type=int, default=40, help="unlabelled volumes")
    parser.add_argument("--scored", type=int, default=12, help="labelled volumes")
    parser.add_argument("--regressor-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args()
    guided, untrained = train(given)
    data = draw(given, "scored", given.scored, labelled=True, seed=1)
    scores = pd.concat(list(scored(guided, untrained, data)))
    scores = write_scores(scores, "zeroshot-volumes")
    flags = " ".join(
        f"--{name.replace('_', '-')} {' '.join(map(str, np.ravel(value)))}"
        for name, value in vars(given).items()
        if name != "work"
    )
    rows = table(scores)
    command = f"python benchmarks/zeroshot_volumes.py --work . {flags}"
    write_table(pd.DataFrame(rows), origin(command), "zeroshot-volumes.csv")


def draw(given: argparse.Namespace, name: str, count: int, *, labelled: bool, seed: int) -> str:
    """Textured abdomens."""
    out, size = str(given.work / name), tuple(given.voxels)
    options = {"labelled": labelled, "seed": seed, "size": size, "textured": True}
    radiffuse.anatomy(kind="abdomen", out=out, count=count, **options)
    return out


def train(given: argparse.Namespace) -> tuple[Run, Run]:
    """The guided run, and one of the same network and coordinates after a step that changes nothing to speak of."""
    pool = draw(given, "pool", given.pool, labelled=False, seed=0)
    spacing = tuple(380 / given.voxels[0] for _ in range(3))
    window = (given.window,) * 3
    common = {
        "data": pool,
        "plan": {"size": window, "spacing": spacing, "window": (-160.0, 240.0)},
        "machine": {"accelerator": "cpu"},
    }
    network = {
        "preset": "tiny", "width": 16, "multipliers": (1, 2, 4), "blocks": 1, "unshuffle": 2,
    }  # fmt: skip
    training = {"batch_size": given.batch, "learning_rate": 1e-3}
    regressor = radiffuse.pretrain(
        out=str(given.work / "regressor"),
        objective="coordinates",
        network=network | {"attention_factors": ()},
        regressor={"crop": 1.0},
        training=training | {"steps": given.regressor_steps},
        **common,
    )
    runs = []
    for name, steps, rate in (("guided", given.steps, 1e-3), ("untrained", 1, 1e-9)):
        run = radiffuse.pretrain(
            out=str(given.work / name),
            coordinates=str(regressor.folder),
            network=network | {"attention_factors": (8,)},
            diffusion={
                "schedule": "cosine", "num_train_timesteps": 300, "loss": "smooth-l1",
                "timestep_sampling": "low", "shift": 1.0,
            },
            training={
                "batch_size": given.batch, "steps": steps, "learning_rate": rate,
                "warmup_steps": min(50, steps // 5), "average_decay": 0.99,
            },
            augmentation={"flip": ()},
            zoom=1.0,
            **common,
        )  # fmt: skip
        runs.append(Run.open(run.folder))
    return runs[0], runs[1]


def sources(guided: Run, untrained: Run) -> Iterator[tuple[str, DenseWindows, float]]:
    """What is clustered, by name, with the weight of the coordinates."""
    both = remembered(open_volumes(guided, ZeroShot(noises=1), CPU))

    def gray(window: Tensor) -> Tensor:
        where = both.of(window)[:, -3:]
        return torch.cat([functional.adaptive_avg_pool3d(window, where.shape[2:]), where], 1)

    yield FIRST, both, 1.0
    yield "guided alone", DenseWindows(lambda window: both.of(window)[:, :-3]), 0.0
    yield (
        "untrained + coordinates",
        remembered(open_volumes(untrained, ZeroShot(noises=1), CPU)),
        1.0,
    )
    # A single gray value has the variance of one feature: beside it each coordinate counts as much.
    yield "gray + coordinates", DenseWindows(gray, 3), 3.0


def remembered(dense: DenseWindows) -> DenseWindows:
    """The same features, computed once for each window, since every number of clusters sees the same windows."""
    known: dict[bytes, Tensor] = {}

    def of(window: Tensor) -> Tensor:
        key = hashlib.sha256(window.numpy().tobytes()).digest()
        if key not in known:
            known[key] = dense.of(window)
        return known[key]

    return DenseWindows(of, dense.coordinates)


@torch.no_grad()
def scored(guided: Run, untrained: Run, data: str) -> Iterator[pd.DataFrame]:
    """Dice of every source, number of clusters, case and organ, with names by the other half of the patients.

    ``chosen``: whether the number of clusters is that which was best within the other half, itself halved.
    """
    dataset, plan = open_dataset(data).labelled, guided.plan
    scans = [read_case_image(case) for case in dataset]
    pairs = list(zip(dataset, scans, strict=True))
    truths = [read_case_label(case, scan).array[0] for case, scan in pairs]
    groups = np.array([case.group for case in dataset])
    for name, dense, weight in sources(guided, untrained):
        # As if there were more volumes: a fifth of the places, for the sake of time.
        places = list(read_volume_places(scans, 5 * len(scans), dense, plan, CPU, 0))
        overlaps = {}
        for count in COUNTS:
            clusters = find_volume_clusters(places, count, 0, dense.coordinates, weight)
            found = (segment_volume(clusters, dense, plan, scan, CPU) for scan in scans)
            overlaps[count] = [
                overlap_of(segments, truth, count, len(dataset.classes))
                for segments, truth in zip(found, truths, strict=True)
            ]
        chosen = best_counts(overlaps, groups)
        for count, each in overlaps.items():
            dice = matched_across(each, groups)
            print(f"{name}, {count} clusters: {np.nanmean(dice):.3f}", flush=True)
            rows = [
                {"method": name, "clusters": count, "chosen": chosen[i] == count,
                 "case": case.name, "group": case.group, "class": organ, "dice_matched": dice[i, j]}
                for i, case in enumerate(dataset)
                for j, organ in enumerate(dataset.classes[1:])
            ]  # fmt: skip
            yield pd.DataFrame(rows)


def best_counts(
    overlaps: Mapping[int, Sequence[Overlap]], groups: NDArray[np.str_]
) -> NDArray[np.int64]:
    """The number of clusters for each case: the best for the other half, which its labels never touch."""
    inside, chosen = first_half(groups), np.zeros(len(groups), np.int64)
    for half in (inside, ~inside):
        others = np.flatnonzero(~half)
        dice = {
            count: np.nanmean(matched_across([each[i] for i in others], groups[others]))
            for count, each in overlaps.items()
        }
        chosen[half] = max(dice, key=lambda count: dice[count])
    return chosen


def table(scores: pd.DataFrame) -> list[dict[str, object]]:
    """A row for each method over all organs, over the large ones, and for each organ; all against the first method."""
    picked = scores[scores["chosen"]]
    wide = {
        name: of.pivot(index="group", columns="class", values="dice_matched")
        for name, of in picked.groupby("method", sort=False)
    }
    organs, rows = list(scores["class"].unique()), []
    sets = {"all": organs, "large": list(LARGE), **{organ: [organ] for organ in organs}}
    for name, dice in wide.items():
        counts = picked[picked["method"] == name]["clusters"].unique()
        for what, columns in sets.items():
            mine, first = (d[columns].mean(axis=1) for d in (dice, wide[FIRST]))
            patients = list(mine.index)
            interval = clustered_mean(mine, group=patients, bounds=(0, 1))
            row: dict[str, object] = {
                "method": name,
                "clusters": " ".join(map(str, sorted(counts))),
            }
            row |= {"organs": what, "dice_matched": interval.mean}
            row |= {"low": interval.low, "high": interval.high, "n": interval.n}
            if name != FIRST and what in ("all", "large"):
                test = clustered_difference(first, mine, group=patients)
                row |= {"guided_minus_this": test.difference, "difference_low": test.low}
                row |= {"difference_high": test.high, "p_value": test.p_value}
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
