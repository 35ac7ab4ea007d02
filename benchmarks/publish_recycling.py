"""The five claims of Fu et al. 2023, one by one, from finished studies of mask diffusion.

    python benchmarks/publish_recycling.py lungs=runs/lungs-rec bitewings=runs/bw-rec --command "..." [--leak leak.csv]

Each study holds the strategies and the ensemble at one label budget, with both samplers. Writes ``recycling.csv`` (Dice
at the last step), ``recycling-steps.csv`` (Dice along the sampling), ``recycling-claims.csv`` (every comparison, with
interval and paired test) and the five rows of ``claims.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from results import fill_claim, origin, overall, write_table

from radiffuse.evaluation.statistics import clustered_difference, clustered_mean, holm, verdict
from radiffuse.evaluation.tables import over_classes

RIVALS = ("standard", "recycle-next", "self-condition", "self-condition-next")
MARGIN = 0.01
"""Claim 4: differences of mean Dice below this are called equal [ours]."""
DECLINE = 0.005
"""Claim 3: a fall of mean Dice along the sampling that recycling must be shown to stay above [ours]."""
PAIR = ["draw", "case", "group"]
TEXT = {"case": str, "group": str, "class": str}


def main() -> None:
    """Read the studies, write tables and claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--leak", action="append", default=[], help="NAME=CSV of mask_leak.py")
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    studies = {name: Path(path) for name, path in (s.split("=") for s in given.studies)}
    made = origin(given.command)
    cases = {
        name: over_classes(pd.read_csv(path / "results.csv", dtype=TEXT))
        for name, path in studies.items()
    }
    steps = {
        name: pd.read_csv(path / "steps.csv", dtype=TEXT)
        for name, path in studies.items()
        if (path / "steps.csv").exists()
    }
    leaks = {name: pd.read_csv(p, dtype=TEXT) for name, p in (s.split("=") for s in given.leak)}
    write_table(
        pd.concat([_means(t, ["method", "labels"], n) for n, t in cases.items()]),
        made,
        "recycling.csv",
    )
    write_table(
        pd.concat([_means(t, ["method", "step", "timestep"], n) for n, t in steps.items()]),
        made,
        "recycling-steps.csv",
    )
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
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    write_table(table, made, "recycling-claims.csv")
    for claim, part in table.groupby("claim"):
        fill_claim(str(claim), _claim(part, given.command))


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
    row = {"claim": claim, "data": data, "comparison": what} | asdict(test)
    return row | {"draws": pairs["draw"].nunique()}


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


def _verdict(row: dict[str, object]) -> str:
    """Each claim's own rule, in words of ``statistics.verdict``."""
    low, high, p = (float(str(row[name])) for name in ("low", "high", "p_holm"))
    claim, what = row["claim"], str(row["comparison"])
    if claim == "recycling-4":  # on par: the whole interval within the margin
        if low > -MARGIN and high < MARGIN:
            return "holds"
        return "does not hold" if high < -MARGIN or low > MARGIN else "not decided"
    if claim == "recycling-3":
        if what.startswith(
            "recycle,"
        ):  # keeps or improves: a decline beyond the margin is excluded
            return "holds" if low > -DECLINE else "does not hold" if high < 0 else "not decided"
        # others decline or wander: shown to decline
        return {"does not hold": "holds", "holds": "does not hold"}.get(
            verdict(low, high, p), "not decided"
        )
    return verdict(low, high, p)


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
        "test": f"{tests[claim]}; Wilcoxon on one mean difference per patient, Holm; bootstrap over draws and patients",
        "verdict": overall(list(part["verdict"])),
    }


if __name__ == "__main__":
    main()
