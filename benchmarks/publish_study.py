"""Copy the tables of a finished study into ``results/``, with what is needed to repeat it.

    python benchmarks/publish_study.py STUDY NAME --command "radiffuse study ..." [--claim ptdr-1]

Writes ``results/NAME.csv`` (mean Dice with interval by method and labels), ``results/NAME-paired.csv`` (each method
against the reference) and ``results/NAME-gaps.csv`` (how its lead shrinks from the fewest labels to the most). With
``--claim`` a row of ``results/claims.csv`` is filled with one method against the reference, or against ``--rival``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml
from results import fill_claim, origin, overall, write_table

from radiffuse.evaluation.tables import ALL_CLASSES, over_classes
from radiffuse.reports.study import compare


def main() -> None:
    """Read the study's tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True)
    parser.add_argument("--claim", help="id of the claim that this study tests")
    parser.add_argument("--method", default="finetune", help="method of that claim")
    parser.add_argument("--reference", help="compare with this method; else that of the study")
    parser.add_argument("--rival", help="compare with this method in the claim, not the reference")
    parser.add_argument("--data", default="", help="the data, in words, for the claim")
    given = parser.parse_args()
    summary = pd.read_csv(given.study / "summary.csv")
    means = summary[(summary["class"] == ALL_CLASSES) & (summary["metric"] == "dice")]
    table = means[["method", "labels", "mean", "low", "high", "n"]].rename(columns={"mean": "dice"})
    write_table(table, origin(given.command), f"{given.name}.csv")
    reference = (
        given.reference or yaml.safe_load((given.study / "study.yaml").read_text())["reference"]
    )
    compared = compare(_cases(given.study), reference)
    for rows, target in ((compared.against, "paired"), (compared.gaps, "gaps")):
        if len(rows):
            rows = rows[rows["metric"] == "dice"].drop(columns="metric")
            write_table(rows, origin(given.command), f"{given.name}-{target}.csv")
    if given.claim:
        _claim(given)


def _cases(study: Path) -> pd.DataFrame:
    text = {"case": str, "group": str, "class": str}
    return over_classes(pd.read_csv(study / "results.csv", dtype=text))


def _claim(given: argparse.Namespace) -> None:
    cases = _cases(given.study)
    paired = pd.read_csv(given.study / "comparisons.csv")
    if given.rival:
        both = cases[cases["method"].isin((given.method, given.rival))]
        paired = compare(both, given.rival).against
    paired = paired[paired["metric"] == "dice"]
    rows = paired[paired["method"] == given.method].sort_values("labels")
    first = rows.iloc[0]
    values = {
        "data": given.data,
        "command": given.command,
        "seeds": str(int(first["draws"])),
        "value": "; ".join(f"{r.labels} labels {r.difference:+.3f}" for r in rows.itertuples()),
        "interval": "; ".join(f"{r.low:+.3f} to {r.high:+.3f}" for r in rows.itertuples()),
        "test": f"Dice against {first['reference']}, Wilcoxon on one mean difference per patient, "
        "Holm; interval by bootstrap over draws and patients",
        "verdict": overall(list(rows["verdict"])),
    }
    fill_claim(given.claim, values)


if __name__ == "__main__":
    main()
