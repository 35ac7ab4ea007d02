"""The five claims of Fu et al. 2023, one by one, from finished studies of mask diffusion.

    python benchmarks/publish_recycling.py lungs=runs/lungs-rec drawn=runs/bw-rec --command "..." --leak lungs=leak.csv

Each study holds the strategies and the ensemble at one label budget, with both samplers. Writes ``recycling.csv`` (Dice
at the last step), ``recycling-steps.csv`` (Dice along the sampling), ``recycling-claims.csv`` (every comparison, with
interval and paired test) and the five rows of ``claims.csv``. Every score is kept in ``results/scores``, as
``recycling.csv.gz``, ``-steps`` and ``-leak``; without studies the tables are computed from these.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from results import (
    HOW,
    fill_claim,
    keep_scores,
    kept_scores,
    origin,
    overall,
    read_scores,
    scores_path,
    write_table,
)

from radiffuse.evaluation.statistics import (
    MARGIN,
    clustered_difference,
    clustered_mean,
    holm,
    verdict,
)
from radiffuse.evaluation.tables import over_classes

RIVALS = ("standard", "recycle-next", "self-condition", "self-condition-next")
PAIR = ["draw", "case", "group"]
STEPS = "recycling-steps"


def main() -> None:
    """Read the studies, write tables and claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", help="NAME=FOLDER; none: from the scores kept")
    parser.add_argument("--leak", action="append", default=[], help="NAME=CSV of mask_leak.py")
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    made = origin(given.command)
    scores, steps, leaks = _scores(parser, given.studies, given.leak)
    cases = {name: over_classes(table) for name, table in scores.items()}
    tables = (
        ("recycling", cases, ["method", "labels"]),
        (STEPS, steps, ["method", "step", "timestep"]),
    )
    for target, found, by in tables:
        if found:
            means = pd.concat([_means(table, by, name) for name, table in found.items()])
            write_table(means, made, f"{target}.csv")
    rows = [row for name, table in leaks.items() for row in _leak(table, name)]
    for name, table in cases.items():
        rows += list(_against_rivals(table, name))
    for name, table in steps.items():
        rows += list(_along(table, name))
    for name, table in cases.items():
        rows += list(_against_none(table, name))
    table = pd.DataFrame([row for row in rows if row])
    table["p_holm"] = np.nan
    for _, part in table.groupby("claim"):
        table.loc[part.index, "p_holm"] = holm(part["p_value"])
    table["verdict"] = [
        verdict(row.low, row.high, row.p_holm, draws=row.draws) for row in table.itertuples()
    ]
    write_table(table, made, "recycling-claims.csv")
    for claim, part in table.groupby("claim"):
        fill_claim(str(claim), _claim(part, given.command))


def _scores(
    parser: argparse.ArgumentParser, studies: Sequence[str], leaks: Sequence[str]
) -> list[dict[str, pd.DataFrame]]:
    """Scores of cases, along the sampling, and of the leak, by data set: of the studies, or those kept."""
    names = ("recycling", STEPS, "recycling-leak")
    if not studies:
        if leaks or not scores_path(names[0]).exists():
            parser.error("name studies: scores are not kept, or --leak would not fit them")
        return [kept_scores(name) for name in names]
    folders, files = (
        {name: Path(path) for name, path in (word.split("=", 1) for word in words)}
        for words in (studies, leaks)
    )
    along = {name: path / "steps.csv" for name, path in folders.items()}
    along = {name: path for name, path in along.items() if path.exists()}
    return [
        keep_scores({data: read_scores(path) for data, path in paths.items()}, name)
        for name, paths in zip(names, (folders, along, files), strict=True)
    ]


def _means(table: pd.DataFrame, by: list[str], data: str) -> pd.DataFrame:
    rows = []
    for key, part in table.groupby(by, sort=False):
        interval = clustered_mean(
            part["dice"], draw=part["draw"].tolist(), group=part["group"].tolist()
        )
        values = {"dice" if k == "mean" else k: v for k, v in asdict(interval).items()}
        rows.append({"data": data} | dict(zip(by, key, strict=True)) | values)
    return pd.DataFrame(rows)


def _compared(
    claim: str, data: str, what: str, a: pd.DataFrame, b: pd.DataFrame
) -> dict[str, object]:
    """A minus b, both with the columns of ``PAIR`` and dice."""
    pairs = a[[*PAIR, "dice"]].merge(b[[*PAIR, "dice"]], on=PAIR, suffixes=("_a", "_b"))
    if pairs.empty:
        return {}
    test = clustered_difference(
        pairs["dice_a"], pairs["dice_b"], draw=pairs["draw"].tolist(), group=pairs["group"].tolist()
    )
    return {"claim": claim, "data": data, "comparison": what} | asdict(test)


def _leak(table: pd.DataFrame, data: str) -> Iterator[dict[str, object]]:
    """What the answer to the true mask is better by, over timesteps: standard, and standard minus recycle."""
    lean = table.assign(dice=table["dice_true"] - table["dice_own"])
    lean = lean.groupby(["method", *PAIR])["dice"].mean().reset_index()
    none = lean.assign(dice=0.0)
    by = {str(name): part for name, part in lean.groupby("method")}
    zero = none[none["method"] == "standard"]
    yield _compared("recycling-1", data, "standard: true minus own mask", by["standard"], zero)
    what = "lean on the true mask, standard minus recycle"
    yield _compared("recycling-1", data, what, by["standard"], by["recycle"])


def _against_rivals(table: pd.DataFrame, data: str) -> Iterator[dict[str, object]]:
    for suffix, sampler in (("", "ddpm"), ("@ddim", "ddim")):
        for rival in RIVALS:
            one, other = (table[table["method"] == m + suffix] for m in ("recycle", rival))
            yield _compared("recycling-2", data, f"recycle minus {rival}, {sampler}", one, other)


def _along(table: pd.DataFrame, data: str) -> Iterator[dict[str, object]]:
    """Last minus first step."""
    first, last = (table[table["step"] == n] for n in (table["step"].min(), table["step"].max()))
    for method in ("recycle", *RIVALS):
        for suffix, sampler in (("", "ddpm"), ("@ddim", "ddim")):
            one, other = (part[part["method"] == method + suffix] for part in (last, first))
            yield _compared(
                "recycling-3", data, f"{method}, {sampler}: last minus first step", one, other
            )


def _against_none(table: pd.DataFrame, data: str) -> Iterator[dict[str, object]]:
    by = {str(name): part for name, part in table.groupby("method")}
    for suffix, sampler in (("", "ddpm"), ("@ddim", "ddim")):
        if "none" in by and f"recycle{suffix}" in by:
            what = f"recycle minus none, {sampler}"
            yield _compared("recycling-4", data, what, by[f"recycle{suffix}"], by["none"])
    if "none" in by and "ensemble" in by:
        yield _compared("recycling-5", data, "ensemble minus none", by["ensemble"], by["none"])


def _claim(part: pd.DataFrame, command: str) -> dict[str, str]:
    tests = {
        "recycling-1": "Dice of the answer to the true mask minus that to the network's own, mean over five timesteps",
        "recycling-2": "Dice at the last step, recycle minus each rival",
        "recycling-3": "Dice at the last minus at the first sampling step",
        "recycling-4": f"Dice of recycle minus none; on par: the interval lies within {MARGIN:g} of 0",
        "recycling-5": "Dice of the ensemble of none and recycle minus none",
    }
    claim = str(part["claim"].iloc[0])
    return {
        "data": ", ".join(dict.fromkeys(part["data"])),
        "command": command,
        "seeds": str(int(part["draws"].min())),
        "value": "; ".join(
            f"{r.data}, {r.comparison}: {r.difference:+.3f}" for r in part.itertuples()
        ),
        "interval": "; ".join(f"{r.low:+.3f} to {r.high:+.3f}" for r in part.itertuples()),
        "test": f"{tests[claim]}; {HOW}",
        "verdict": overall(list(part["verdict"])),
    }


if __name__ == "__main__":
    main()
