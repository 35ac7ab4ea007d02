"""Copy the tables of a finished study into ``results/``, with what is needed to repeat it.

    python benchmarks/publish_study.py STUDY NAME --command "radiffuse study ..." [--claim ptdr-1]

Writes ``results/NAME.csv`` (mean Dice with interval by method and labels), ``results/NAME-paired.csv`` (each method
against each ``--reference``), ``results/NAME-gaps.csv`` (how its lead shrinks from the fewest labels to the most), and
``results/scores/NAME.csv.gz``, every score behind them. ``STUDY`` is a study's folder, or such a file of scores; with
that of NAME itself, date and hardware of the table stay. With ``--claim`` a row of ``results/claims.csv`` is filled
with one method against the reference, or against ``--rival``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import yaml
from results import (
    HOW,
    fill_claim,
    mean_dice,
    origin,
    origin_of,
    overall,
    read_scores,
    scores_path,
    write_scores,
    write_table,
)

from radiffuse.evaluation.tables import over_classes
from radiffuse.reports.study import compare


def main() -> None:
    """Read the study's tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder, or file of scores")
    parser.add_argument("name")
    parser.add_argument("--command", required=True)
    parser.add_argument("--claim", help="id of the claim that this study tests")
    parser.add_argument("--method", default="finetune", help="method of that claim")
    parser.add_argument(
        "--reference", nargs="+", help="compare with each of these methods; else that of the study"
    )
    parser.add_argument("--rival", help="compare with this method in the claim, not the reference")
    parser.add_argument("--data", default="", help="the data, in words, for the claim")
    given = parser.parse_args()
    kept = given.study.resolve() == scores_path(given.name).resolve()
    made = origin_of(given.name, given.command) if kept else origin(given.command)
    scores = write_scores(read_scores(given.study), given.name)
    write_table(mean_dice(scores), made, f"{given.name}.csv")
    cases = over_classes(scores)
    settings = given.study / "study.yaml"
    references = given.reference or [yaml.safe_load(settings.read_text())["reference"]]
    compared = [compare(cases, reference) for reference in references]
    against = pd.concat([each.against for each in compared])
    for rows, target in ((against, "paired"), (compared[0].gaps, "gaps")):
        if len(rows):
            rows = rows[rows["metric"] == "dice"].drop(columns="metric")
            write_table(rows, made, f"{given.name}-{target}.csv")
    if given.claim:
        _claim(given, cases, compared[0].against)


def _claim(given: argparse.Namespace, cases: pd.DataFrame, paired: pd.DataFrame) -> None:
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
        "test": f"Dice against {first['reference']}; {HOW}",
        "verdict": overall(list(rows["verdict"])),
    }
    fill_claim(given.claim, values)


if __name__ == "__main__":
    main()
