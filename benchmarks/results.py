"""How the scripts of this folder write to ``results/``: tables with their origin, and claims."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from radiffuse.evaluation.statistics import ALPHA
from radiffuse.evaluation.tables import ALL_CLASSES, summarize
from radiffuse.system.files import write_atomic
from radiffuse.system.hardware import processor

HOW = "t test and interval for new draws and patients (variance components), p by Holm's method"
"""How comparisons are made, in words for a claim."""
RESULTS = Path(__file__).parents[1] / "results"
FIGURES = RESULTS.parent / "docs" / "images"


def hardware() -> str:
    """Processor and cores, in words."""
    return f"{os.cpu_count()} cores, {processor()}, float32"


def origin(command: str) -> dict[str, str]:
    """Columns that say where a table comes from."""
    return {"command": command, "date": date.today().isoformat(), "hardware": hardware()}


def origin_of(name: str, command: str) -> dict[str, str]:
    """The same of a table that was published before, whose scores were not made again: when and on what is kept."""
    known = pd.read_csv(RESULTS / f"{name}.csv", dtype=str).iloc[0]
    return {"command": command, "date": known["date"], "hardware": known["hardware"]}


def write_table(table: pd.DataFrame, origin: Mapping[str, str], name: str) -> None:
    """Write a table to ``results/``, rounded, with its origin in every row."""
    small = {
        column: table[column].map(_shown, na_action="ignore")
        for column in ("p_value", "p_holm")
        if column in table
    }
    write_atomic(RESULTS / name, table.round(4).assign(**small, **dict(origin)).to_csv(index=False))
    print(RESULTS / name)


def _shown(p: float) -> str:
    """A p-value of two digits; of more where these would hide that it is below the level."""
    texts = (f"{p:.{digits}g}" for digits in range(2, 17))
    return next(text for text in texts if (float(text) < ALPHA) == (p < ALPHA))


def write_figure(figure: Figure, name: str) -> None:
    """Write ``docs/images/NAME.svg``; equal figures make equal files."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
    print(FIGURES / f"{name}.svg")


def scores_path(name: str) -> Path:
    """Where the scores behind a table are kept."""
    return RESULTS / "scores" / f"{name}.csv.gz"


def write_scores(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Write every score behind a table to ``results/scores/NAME.csv.gz``, so that others can compute on them.

    Returns:
        The scores as they are in the file, rounded: what is computed of them, others get too.
    """
    path = scores_path(name)
    path.parent.mkdir(exist_ok=True)
    # Without a time in it, equal scores make an equal file.
    write_atomic(path, gzip.compress(table.round(6).to_csv(index=False).encode(), mtime=0))
    print(path)
    return read_scores(path)


def read_scores(path: Path) -> pd.DataFrame:
    """Scores of a study: its ``results.csv``, or what ``write_scores`` wrote; names stay text."""
    path = path / "results.csv" if path.is_dir() else path
    text = ("case", "group", "class", "method", "name", "learned")
    return pd.read_csv(path, dtype=dict.fromkeys(text, str))


def keep_scores(tables: Mapping[str, pd.DataFrame], name: str) -> dict[str, pd.DataFrame]:
    """Write the scores of several data sets as ``write_scores`` does, and read them as others will, by data set."""
    path = scores_path(name)
    if tables:
        write_scores(pd.concat([t.assign(data=data) for data, t in tables.items()]), name)
    else:  # those of another time are not behind the tables any more
        path.unlink(missing_ok=True)
    return kept_scores(name)


def kept_scores(name: str) -> dict[str, pd.DataFrame]:
    """What ``keep_scores`` kept; nothing if there is no such file."""
    path = scores_path(name)
    if not path.exists():
        return {}
    table = read_scores(path)
    return {str(data): t.drop(columns="data") for data, t in table.groupby("data", sort=False)}


def mean_dice(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice over all classes with its interval, a row for each method and number of labels."""
    table = summarize(scores, by=("method", "labels"), metrics=("dice",))
    table = table[table["class"] == ALL_CLASSES].rename(columns={"mean": "dice"})
    return table[["method", "labels", "dice", "low", "high", "n"]]


def beside(kept: pd.DataFrame | None, new: Sequence[pd.DataFrame], column: str) -> pd.DataFrame:
    """New rows in the place of those with the same values of a column, beside all others."""
    rows = pd.concat(new)
    if kept is None:
        return rows
    order = {name: i for i, name in enumerate(dict.fromkeys([*kept[column], *rows[column]]))}
    table = pd.concat([kept[~kept[column].isin(rows[column])], rows])
    return table.sort_values(column, key=lambda names: names.map(order), kind="stable")


def fill_claim(claim: str, values: Mapping[str, str]) -> None:
    """Put what became of a claim into its row of ``results/claims.csv``."""
    claims = pd.read_csv(RESULTS / "claims.csv", dtype=str)
    row = claims["id"] == claim
    if not row.any():
        raise SystemExit(f"{claim} is no claim of results/claims.csv")
    for column, value in values.items():
        claims.loc[row, column] = value
    write_atomic(RESULTS / "claims.csv", claims.to_csv(index=False))


def overall(verdicts: Sequence[str]) -> str:
    """The verdict of several comparisons, with how many of them have it where they differ."""
    counts = Counter(verdicts)
    if len(counts) == 1:
        return verdicts[0]
    return "; ".join(f"{word} in {n} of {len(verdicts)}" for word, n in counts.most_common())
