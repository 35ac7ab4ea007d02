"""One table of rows of several studies, beside one another: methods that no single study holds.

    python benchmarks/publish_rows.py NAME --reference none --command "..."
        --rows films none=runs/base recycle=runs/base "recycle, other way=runs/other:recycle" --rows volumes ...

``--rows`` begins with the name of a data set. Each ROW=STUDY:METHOD gives a method of a study's folder, or of a file of
scores, a name of its own; without METHOD its name is ROW. Writes ``results/NAME.csv`` (mean Dice with interval),
``results/NAME-paired.csv`` (the rows against each reference, p by Holm's method over the table), and
``results/scores/NAME.csv.gz``, from which both are computed where no rows are given.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from results import (
    keep_scores,
    kept_scores,
    mean_dice,
    origin,
    read_scores,
    scores_path,
    write_table,
)

from radiffuse.evaluation.statistics import holm, verdict
from radiffuse.evaluation.tables import over_classes
from radiffuse.reports.study import compare

PLACE = ["labels", "draw", "case", "class"]


def main() -> None:
    """Gather the rows, keep their scores, write both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name")
    parser.add_argument("--rows", nargs="+", action="append", default=[])
    parser.add_argument("--reference", nargs="+", required=True, help="rows to compare with")
    parser.add_argument("--command", required=True)
    given = parser.parse_args()
    if not given.rows and not scores_path(given.name).exists():
        parser.error("name --rows: no scores are kept")
    found = {data: gather(data, rows) for data, *rows in given.rows}
    scores = keep_scores(found, given.name) if found else kept_scores(given.name)
    made = origin(given.command)
    write_table(pd.concat(means(scores)), made, f"{given.name}.csv")
    write_table(paired(scores, given.reference), made, f"{given.name}-paired.csv")


def gather(data: str, rows: Sequence[str]) -> pd.DataFrame:
    """The scores of the rows of a data set, which must be of the same cases, draws and labels."""
    parts: list[pd.DataFrame] = []
    for row in rows:
        name, _, source = row.partition("=")
        study, _, method = source.partition(":")
        scores = read_scores(Path(study))
        part = scores[scores["method"] == (method or name)].assign(method=name)
        if part.empty:
            known = ", ".join(dict.fromkeys(scores["method"]))
            raise SystemExit(f"{study} has no method {method or name}: it has {known}")
        first = (parts or [part])[0]
        if set(map(tuple, part[PLACE].to_numpy())) != set(map(tuple, first[PLACE].to_numpy())):
            raise SystemExit(
                f"{data}: {name} has other cases, draws or labels than {first['method'].iloc[0]}"
            )
        parts.append(part)
    return pd.concat(parts)


def means(scores: Mapping[str, pd.DataFrame]) -> list[pd.DataFrame]:
    """Mean Dice of each row with its interval, a table for each data set."""
    tables = []
    for data, part in scores.items():
        table = mean_dice(part)
        table.insert(0, "data", data)
        tables.append(table)
    return tables


def paired(scores: Mapping[str, pd.DataFrame], references: Sequence[str]) -> pd.DataFrame:
    """Every row against each reference, but two references against one another once."""
    tables = []
    for data, part in scores.items():
        cases = over_classes(part)
        for i, reference in enumerate(references):
            others = cases[~cases["method"].isin(references[:i])]
            if set(others["method"]) == {reference}:
                continue
            rows = compare(others, reference).against
            rows = rows[rows["metric"] == "dice"].drop(columns="metric")
            rows.insert(0, "data", data)
            tables.append(rows)
    table = pd.concat(tables)
    table["p_holm"] = holm(table["p_value"])
    table["verdict"] = [
        verdict(row.low, row.high, row.p_holm, draws=row.draws) for row in table.itertuples()
    ]
    return table


if __name__ == "__main__":
    main()
