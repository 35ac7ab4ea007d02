"""What ``results/`` says of itself: where tables come from, what their intervals are, and that verdicts follow."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest

from radiffuse.evaluation.statistics import verdict

RESULTS = Path(__file__).parents[1] / "results"
TABLES = sorted(path.name for path in RESULTS.glob("*.csv"))
ORIGIN = {"claims.csv", "scale-plan.csv", "walk.csv"}
"""Without columns of their origin: what was measured for each claim, what follows from ``scale.csv``, a diary."""
ROUNDING = 6e-5
"""Half of the last digit of a table, and a little."""


def intervals() -> dict[str, list[str]]:
    """Patterns of tables by the kind of their intervals, as the README of the results lists them."""
    text = (RESULTS / "README.md").read_text()
    section = text[text.index("## Intervals") : text.index("## Defaults")]
    kinds = [part for part in section.split("\n\n") if "**" in part]
    return {part[2:10]: re.findall(r"`([\w*-]+\.csv)`", part) for part in kinds}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_where_it_comes_from_and_what_its_intervals_are(name: str) -> None:
    columns = pd.read_csv(RESULTS / name, nrows=0).columns
    assert {"command", "date"} <= set(columns) or name in ORIGIN
    bounded = any(column == "low" or column.endswith("_low") for column in columns)
    named = [kind for kind, patterns in intervals().items() for p in patterns if fnmatch(name, p)]
    if bounded and name not in ("scale.csv", "speed.csv"):
        assert len(named) == 1


@pytest.mark.parametrize(
    "name", [n for n in TABLES if n.endswith(("-paired.csv", "-gaps.csv", "-labels.csv"))]
)
def test_verdicts_follow_from_interval_and_p(name: str) -> None:
    table = pd.read_csv(RESULTS / name)
    assert len(table)
    for row in table.to_dict("records"):
        said, low, high = row["verdict"], row["low"], row["high"]
        if row.get("metric") == "hd95":
            low, high = -high, -low
        margin = 0.0 if row.get("metric") == "hd95" else 0.01
        possible = {
            verdict(low + by, high - by, row["p_holm"], draws=row["draws"], margin=margin).replace(
                " on this draw", ""
            )
            for by in (0, ROUNDING)
        }
        assert said.removesuffix(" on this draw") in possible, row
        one = row["draws"] == 1 and said != "not decided"
        assert said.endswith("on this draw") == one


FROM = {
    "ptdr-1": ("lungs-64-paired.csv", "finetune", "scratch"),
    "guided-3": ("guided-longer-paired.csv", "guided", "contrastive"),
}
"""Claims that are a row of a paired table."""


def claims() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "claims.csv", dtype=str).set_index("id")


def assert_says(claim: str, rows: pd.DataFrame) -> None:
    """Differences, ends and the counts of verdicts, as far as the table is rounded."""
    row = claims().loc[claim]
    values = [float(x) for x in re.findall(r"([+-]\d\.\d{3})(?:;|$)", row["value"])]
    ends = [float(x) for x in re.findall(r"[+-]\d\.\d{3}", row["interval"])]
    assert values == pytest.approx(list(rows["difference"]), abs=5.6e-4)
    assert ends == pytest.approx(list(rows[["low", "high"]].to_numpy().ravel()), abs=5.6e-4)
    counts = rows["verdict"].value_counts()
    words = [f"{word} in {n} of {len(rows)}" for word, n in counts.items()]
    assert sorted(row["verdict"].split("; ")) == sorted(words if len(counts) > 1 else counts.index)


@pytest.mark.parametrize("claim", FROM)
def test_a_claim_says_what_its_table_says(claim: str) -> None:
    name, method, reference = FROM[claim]
    table = pd.read_csv(RESULTS / name)
    assert_says(
        claim,
        table[(table["method"] == method) & (table["reference"] == reference)].sort_values(
            "labels"
        ),
    )


@pytest.mark.parametrize("claim", [f"recycling-{n}" for n in range(1, 6)])
def test_a_claim_of_recycling_says_what_its_table_says(claim: str) -> None:
    table = pd.read_csv(RESULTS / "recycling-claims.csv")
    assert_says(claim, table[table["claim"] == claim])


def test_the_claim_about_copies_has_every_strategy() -> None:
    table = pd.read_csv(RESULTS / "synthesis-memorization.csv").query("strategy != 'all'")
    row = claims().loc["dino-7"]
    shares = {
        name: float(share) for name, share in re.findall(r"([\w-]+) (\d+\.\d)%", row["value"])
    }
    assert shares == pytest.approx(
        dict(zip(table["strategy"], 100 * table["suspected"], strict=True)), abs=0.051
    )
    fewer, more = (table["high"] < 0.05).sum(), (table["low"] > 0.05).sum()
    assert f"better in {fewer} of 5" in row["verdict"]
    assert f"worse in {more} of 5" in row["verdict"]
