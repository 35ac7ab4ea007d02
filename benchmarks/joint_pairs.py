"""Image and mask together, at five labels: ``python benchmarks/joint_pairs.py`` writes ``results/joint-pairs.csv``.

On the chest films of ``../shared/data`` at a small size, with the adults' films as the pool, in equal steps: (a) the
joint network as a segmenter against ``--method scratch`` and ``diffusion``; (b) the network from scratch with pairs
that the joint one of the same draw drew (``fit --with``) against the same without; (c) how close each drawn pair lies
to its nearest labelled one, beside how close the films of validation lie: five labels may be learned by heart. Dice is
that of the validation cases, on the films' own grid, never of the test cases. Seconds are those of the processor.

What was trained and drawn is kept in the folder ``--out``; a repeated command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import origin, write_scores, write_table

import radiffuse
from radiffuse.config import Data, Machine
from radiffuse.data.dataset import Dataset
from radiffuse.data.layouts import open_dataset
from radiffuse.data.scan import Array
from radiffuse.evaluation.statistics import clustered_difference, holm, verdict
from radiffuse.evaluation.tables import read_scores
from radiffuse.train.cases import prepare_dataset
from radiffuse.train.run import Run

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
LABELS = 5
DISTANCES = [
    f"{kind}_{what}"
    for kind in ("drawn", "real")
    for what in ("image_median", "image_least", "mask_median")
]
"""Columns of ``_copies``."""
COLUMNS = ["case", "group", "class", "dice", "method", "draw", "seconds", *DISTANCES]
CPU = {"accelerator": "cpu", "precision": "32-true"}


def main() -> None:
    """Train, draw, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("build") / "joint-pairs")
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20, 200])
    given = parser.parse_args()
    parts: list[pd.DataFrame] = []
    for draw in range(given.draws):
        parts += _one_draw(given, draw)
    scores = write_scores(pd.concat(parts).reindex(columns=COLUMNS), "joint-pairs")
    command = f"python benchmarks/joint_pairs.py --side {given.side} --steps {given.steps}"
    command += f" --draws {given.draws} --pairs {' '.join(map(str, given.pairs))}"
    write_table(_table(scores), origin(command), "joint-pairs.csv")


def _table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, compared with the network from scratch."""
    rows, keys = [], ["draw", "case"]
    base = scores[scores["method"] == "scratch"].set_index(keys)
    for name, of in scores.groupby("method", sort=False):
        own = of.set_index(keys)
        row: dict[str, Any] = {"method": name, "draws": of["draw"].nunique(), "films": len(of)}
        row |= {"dice": of["dice"].mean()}
        if name != "scratch":
            test = clustered_difference(
                own["dice"],
                base.loc[own.index, "dice"],
                draw=[draw for draw, _ in own.index],
                group=list(own["group"]),
            )
            row |= {"difference": test.difference, "low": test.low, "high": test.high}
            row["p_value"] = test.p_value
        per_draw = of.groupby("draw")[["seconds", *DISTANCES]].first()
        rows.append(row | per_draw.mean().to_dict())
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"])
    table["verdict"] = [
        "" if row.method == "scratch" else verdict(row.low, row.high, row.p_holm, draws=row.draws)
        for row in table.itertuples()
    ]
    return table


def _one_draw(given: argparse.Namespace, draw: int) -> list[pd.DataFrame]:
    """Scores of every validation film by each method, of a draw of labelled films."""
    lungs, pool = (str(given.data / name) for name in ("cxr-lungs", "cxr-adults"))
    common = {
        "data": lungs,
        "labels": LABELS,
        "draw": draw,
        "split": {"test": 0.4, "validation": 0.2},
        "network": {"preset": "tiny"},
        "plan": {"size": (given.side, given.side)},
        "training": {
            "steps": given.steps,
            "batch_size": 8,
            "seed": draw,
            "keep": "last",
            "validate_every": given.steps,
        },
        "machine": CPU,
    }
    out = given.out / f"draw-{draw}"

    def fitted(name: str, **settings: object) -> Run:
        return _timed(out / name, lambda: radiffuse.fit(out=out / name, **common, **settings))

    runs = {name: fitted(name, method=name) for name in ("scratch", "diffusion", "joint")}
    runs["joint+pool"] = joint = fitted("joint+pool", method="joint", unlabelled=(pool,))
    rows = [_scores(draw, name, run) for name, run in runs.items()]
    for count in given.pairs:
        name = f"pairs-{count}"
        folder = _timed(
            out / name,
            lambda count=count, name=name: radiffuse.generate(
                run=joint.folder, out=out / name, count=count, seed=draw, machine=CPU
            ),
        )
        run = fitted(f"scratch+{count}-pairs", method="scratch", with_=(str(folder),))
        rows.append(
            _scores(draw, f"scratch+{count}-pairs", run).assign(**_copies(joint, Path(folder)))
        )
    return rows


def _timed(folder: Path, act: Callable[[], Any]) -> Any:
    """What an act gives; its seconds are added up over the times that it was begun, until it has ended."""
    path = folder.with_suffix(".seconds.json")
    spent = json.loads(path.read_text()) if path.is_file() else {"seconds": 0.0, "ended": False}
    start = time.process_time()
    ended = False
    try:
        found = act()
        ended = True
        return found
    finally:
        if not spent["ended"]:
            seconds = spent["seconds"] + time.process_time() - start
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"seconds": seconds, "ended": ended}))


def _scores(draw: int, method: str, run: Run) -> pd.DataFrame:
    scores = read_scores(run.folder / "validation" / "cases.csv")[
        ["case", "group", "class", "dice"]
    ]
    seconds = json.loads(run.folder.with_suffix(".seconds.json").read_text())["seconds"]
    return scores.assign(method=method, draw=draw, seconds=round(seconds, 1))


def _copies(joint: Run, folder: Path) -> dict[str, float]:
    """Distance of each drawn pair to its nearest labelled one, and of real films to theirs, medians and least.

    The distance of images is the root of the mean squared difference, in [-1, 1]; that of masks is 1 - Dice of the
    foreground, between the same two.
    """
    lungs = open_dataset(joint.data["root"])
    learned, held = set(joint.data["split"]["train"]), set(joint.data["split"]["validation"])
    own, others = (
        _arrays(joint, lungs.filter(lambda c, names=names: c.name in names))
        for names in (learned, held)
    )
    drawn = _arrays(joint, open_dataset(folder))
    found: dict[str, float] = {}
    for kind, (images, masks) in (("drawn", drawn), ("real", others)):
        apart = np.sqrt(
            ((images[:, None] - own[0][None]) ** 2).reshape(len(images), len(own[0]), -1).mean(2)
        )
        nearest = apart.argmin(1)
        dice = [_dice(a, b) for a, b in zip(masks, own[1][nearest], strict=True)]
        found |= {
            f"{kind}_image_median": float(np.median(apart.min(1))),
            f"{kind}_image_least": float(apart.min()),
            f"{kind}_mask_median": float(np.median(1 - np.array(dice))),
        }
    return found


def _arrays(run: Run, dataset: Dataset) -> tuple[Array, Array]:
    """Images ``(N, C, *S)`` and masks ``(N, *S)``, prepared as the run's own."""
    prepared = prepare_dataset(dataset, run.plan, Data(), Machine(), labelled=True)
    order = range(len(prepared))
    images = np.stack([np.asarray(prepared.image(i), np.float32) for i in order])
    return images, np.stack([np.asarray(prepared.label(i)) for i in order])


def _dice(one: Array, other: Array) -> float:
    counted = (one != 255) & (other != 255)
    a, b = (one > 0) & counted, (other > 0) & counted
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


if __name__ == "__main__":
    main()
