"""Copy the tables of a finished study into ``results/``, with what is needed to repeat it.

    python benchmarks/publish_study.py STUDY NAME --command "radiffuse study ..." [--claim ptdr-1]

Writes ``results/NAME.csv`` (mean Dice with interval by method and labels) and ``results/NAME-paired.csv`` (each method
against the reference). With ``--claim`` the row of ``results/claims.csv`` is filled from the budget with the fewest
labels.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path

import pandas as pd

from radiffuse.evaluation.folders import ALL_CLASSES
from radiffuse.files import write_atomic

RESULTS = Path(__file__).parents[1] / "results"


def hardware() -> str:
    """Processor and cores, in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{os.cpu_count()} cores, {model}, float32"


def main() -> None:
    """Read the study's tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True)
    parser.add_argument("--claim", help="id of the claim that this study tests")
    parser.add_argument("--method", default="finetune", help="method of that claim")
    parser.add_argument("--data", default="", help="the data, in words, for the claim")
    given = parser.parse_args()
    summary = pd.read_csv(given.study / "summary.csv")
    overall = summary[(summary["class"] == ALL_CLASSES) & (summary["metric"] == "dice")]
    origin = {"command": given.command, "date": date.today().isoformat(), "hardware": hardware()}
    table = overall[["method", "labels", "mean", "low", "high", "n"]].rename(
        columns={"mean": "dice"}
    )
    _write(table, origin, RESULTS / f"{given.name}.csv")
    paired = pd.read_csv(given.study / "comparisons.csv")
    paired = paired[paired["metric"] == "dice"].drop(columns="metric")
    _write(paired, origin, RESULTS / f"{given.name}-paired.csv")
    if given.claim:
        _claim(given, paired)


def _write(table: pd.DataFrame, origin: dict[str, str], path: Path) -> None:
    small = {
        name: table[name].map("{:.2g}".format) for name in ("p_value", "p_holm") if name in table
    }
    table = table.round(4).assign(**small, **origin)
    write_atomic(path, table.to_csv(index=False))
    print(path)


def _claim(given: argparse.Namespace, paired: pd.DataFrame) -> None:
    rows = paired[paired["method"] == given.method].sort_values("labels")
    first = rows.iloc[0]
    claims = pd.read_csv(RESULTS / "claims.csv", dtype=str)
    row = claims["id"] == given.claim
    values = {
        "data": given.data,
        "command": given.command,
        "seeds": str(int(first["draws"])),
        "value": "; ".join(f"{r.labels} labels {r.difference:+.3f}" for r in rows.itertuples()),
        "interval": "; ".join(f"{r.low:+.3f} to {r.high:+.3f}" for r in rows.itertuples()),
        "test": f"Dice against {first['reference']}, Wilcoxon on one mean difference per patient, "
        "Holm; interval by bootstrap over draws and patients",
        "verdict": _overall(list(rows["verdict"])),
    }
    for column, value in values.items():
        claims.loc[row, column] = value
    write_atomic(RESULTS / "claims.csv", claims.to_csv(index=False))


def _overall(verdicts: list[str]) -> str:
    """One word for all budgets: it holds or fails only where all agree."""
    return verdicts[0] if len(set(verdicts)) == 1 else "not decided"


if __name__ == "__main__":
    main()
