"""What telling the network the wrong time costs: ``python benchmarks/legacy_timesteps.py NAME=STUDY --work FOLDER``.

The released code of Fu et al. 2023 tells the network (i + 1) / steps of T at sampling step i, where training used the
training timestep. Every run of mask diffusion in finished studies segments the test cases both ways (DDPM, the same
noise); the difference is legacy minus exact, and "better" means that the old mapping is. Writes
``legacy-timesteps.csv``, and the score of every case to ``results/scores/legacy-timesteps.csv.gz``, from which the
table is computed where no study is given.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from results import keep_scores, kept_scores, origin, write_table

from radiffuse.config import Data, Machine
from radiffuse.data.layouts import open_dataset
from radiffuse.evaluation.statistics import clustered_difference, holm, verdict
from radiffuse.evaluation.tables import over_classes
from radiffuse.inference.members import Overrides
from radiffuse.inference.predictor import Predictor
from radiffuse.inference.scoring import score_cases
from radiffuse.system.files import read_json
from radiffuse.train.run import Run

SCORES = "legacy-timesteps"
TEXT = {"case": str, "group": str, "class": str}


def main() -> None:
    """Segment again with the old mapping, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", help="NAME=FOLDER; none: from the scores kept")
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    if given.studies and given.work is None:
        parser.error("give --work for the masks")
    rows = []
    studies = {name: Path(path) for name, path in (s.split("=", 1) for s in given.studies)}
    found = {name: pd.concat(both_ways(name, path, given.work)) for name, path in studies.items()}
    kept = keep_scores(found, SCORES) if found else kept_scores(SCORES)
    for name, pairs in kept.items():
        for method, part in pairs.groupby("method", sort=False):
            keys = {"draw": part["draw"].tolist(), "group": part["group"].tolist()}
            test = clustered_difference(part["legacy"], part["exact"], **keys)
            rows.append(
                {
                    "data": name,
                    "method": method,
                    "exact": part["exact"].mean(),
                    "legacy": part["legacy"].mean(),
                    **asdict(test),
                }
            )
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"])
    table["verdict"] = [
        verdict(row.low, row.high, row.p_holm, draws=row.draws) for row in table.itertuples()
    ]
    print(table)
    write_table(table, origin("python benchmarks/legacy_timesteps.py"), "legacy-timesteps.csv")


def both_ways(name: str, study: Path, work: Path) -> list[pd.DataFrame]:
    """Dice of every test case with the exact and the old mapping, one table per run."""
    data = json.loads((study / "data.json").read_text())
    dataset = open_dataset(Path(data["root"]), Data()).labelled
    frames = []
    for folder in sorted((study / "runs").iterdir()):
        method, _, draw = folder.name.rsplit("-", 2)
        if read_json(folder / "model" / "config.json")["kind"] != "mask-denoiser":
            continue
        out = work / f"{name}-{folder.name}"
        if not (out / "cases.csv").exists():
            old = Predictor.open([Run.open(folder)], Machine(), Overrides(legacy_timesteps=True))
            score_cases(old, dataset, data["split"]["test"], out)
        legacy, exact = (
            over_classes(
                pd.read_csv(path / "cases.csv", dtype=TEXT).assign(
                    method=method, labels=0, draw=draw
                )
            )
            for path in (out, study / "scores" / folder.name)
        )
        both = legacy.merge(exact, on=["case", "group"], suffixes=("", "_exact"))
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "draw": int(draw),
                    "case": both["case"],
                    "group": both["group"],
                    "legacy": both["dice"],
                    "exact": both["dice_exact"],
                }
            )
        )
        print(name, folder.name, flush=True)
    return frames


if __name__ == "__main__":
    main()
