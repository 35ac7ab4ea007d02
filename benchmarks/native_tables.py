"""Tables of ``native_size.py`` from the scores of films: means with their intervals, and pairs with their tests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
from native_scores import METRICS

from radiffuse.evaluation.statistics import (
    MARGIN,
    clustered_difference,
    clustered_mean,
    holm,
    verdict,
)
from radiffuse.evaluation.tables import BOUNDS

COST = ("steps", "train_seconds", "predict_seconds", "memory_gib")
EXPECTED = {key: f"expected_{key}" for key in ("dice", "low", "high", "level")}
"""Columns of what was expected of each mask, by its keys in ``masks.jsonl``; only automatic runs expect anything."""
SHARED = ["class", "draw", "case", "group"]
"""Columns of what two compared scores have in common."""


def means(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each name, number of labels and class."""
    rows = []
    for (labels, name, kind), part in _groups(table):
        row = {"name": name, "class": kind, "labels": labels}
        row |= {"draws": part["draw"].nunique(), "films": part["case"].nunique()}
        for metric in METRICS:
            keys = {"draw": list(part["draw"]), "group": list(part["group"])}
            found = clustered_mean(
                part[metric], **keys, bounds=BOUNDS[metric.removesuffix("_1pct")]
            )
            row |= {metric: found.mean, f"{metric}_low": found.low, f"{metric}_high": found.high}
        row |= kept(part)
        cost = part.reindex(columns=["draw", *COST]).groupby("draw").first().mean().dropna()
        rows.append(row | cost.to_dict() | {"flags": part["flags"].iloc[0]} | _where(part))
    return pd.DataFrame(rows)


def _groups(table: pd.DataFrame) -> list[tuple[tuple[int, str, str], pd.DataFrame]]:
    """By number of labels, name and class; sizes in names stand by number: ``films 64`` before ``films 128``."""

    def order(item: tuple[tuple[int, str, str], pd.DataFrame]) -> tuple[object, ...]:
        labels, name, kind = item[0]
        parts = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
        return labels, parts, kind

    return sorted(table.groupby(["labels", "name", "class"]), key=order)


def _where(*parts: pd.DataFrame) -> dict[str, str]:
    """The hardware of the runs, which need not be that of whoever publishes them."""
    known = pd.concat([part.reindex(columns=["hardware"]) for part in parts])["hardware"].dropna()
    return {"hardware": "; ".join(sorted(set(known)))} if len(known) else {}


def kept(part: pd.DataFrame) -> dict[str, float]:
    """How often the Dice lay in the interval that was expected of the mask, and how often that was promised."""
    known = part.reindex(columns=["dice", *EXPECTED.values()]).dropna()
    if not len(known):
        return {}
    inside = known["dice"].between(known[EXPECTED["low"]] - 5e-5, known[EXPECTED["high"]] + 5e-5)
    return {
        "expected_dice": known[EXPECTED["dice"]].mean(),
        "kept": inside.mean(),
        "promised": known[EXPECTED["level"]].mean(),
    }


def pairs(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each name against the reference with as many labels, on the draws and films that both have."""
    found = []
    for (labels, name, kind), part in _groups(table):
        rival = table[(table["name"] == reference) & (table["labels"] == labels)]
        if name != reference:
            _refuse_other_labels(part, rival, name, reference)
            row = {"name": name, "class": kind, "reference": reference, "labels": labels}
            found.append((row, part, rival))
    return _tested(found)


def budgets(table: pd.DataFrame, reference: int) -> pd.DataFrame:
    """Each name against itself with another number of labels, on the draws and films that both have."""
    found = []
    for (labels, name, kind), part in _groups(table):
        if labels != reference:
            rival = table[(table["labels"] == reference) & (table["name"] == name)]
            row = {"name": name, "class": kind, "labels": labels, "reference": reference}
            found.append((row, part, rival))
    return _tested(found)


def _tested(
    compared: Iterable[tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]],
) -> pd.DataFrame:
    """A row for each metric of each comparison; p is adjusted within a metric, over all comparisons."""
    rows = []
    for row, part, rival in compared:
        both = part.merge(rival, on=SHARED, suffixes=("", "_r"))
        for metric in METRICS if len(both) else ():
            test = clustered_difference(
                both[metric],
                both[f"{metric}_r"],
                draw=list(both["draw"]),
                group=list(both["group"]),
            )
            values = {"metric": metric, "difference": test.difference, "low": test.low}
            values |= {"high": test.high, "p_value": test.p_value, "draws": test.draws}
            values |= {"patients": test.n, "note": test.note}
            rows.append(row | values | _where(part, rival))
    found = pd.DataFrame(rows)
    for metric, part in found.groupby("metric") if rows else ():
        adjusted = holm(part["p_value"])
        found.loc[part.index, "p_holm"] = adjusted
        sides = part[["low", "high"]] if metric != "hd95" else -part[["high", "low"]]
        margin = MARGIN if metric != "hd95" else 0.0  # fewer pixels are better, and any matters
        found.loc[part.index, "verdict"] = [
            verdict(low, high, p, draws=draws, margin=margin)
            for (low, high), p, draws in zip(sides.to_numpy(), adjusted, part["draws"], strict=True)
        ]
    return found


def _refuse_other_labels(
    part: pd.DataFrame, rival: pd.DataFrame, name: str, reference: str
) -> None:
    """A draw is one set of labelled films; scores from before this was kept have no column of it."""
    both = part.merge(rival, on=SHARED, suffixes=("", "_r"))
    known = both.reindex(columns=["draw", "learned", "learned_r"]).dropna()
    other = sorted({*known[known["learned"] != known["learned_r"]]["draw"]})
    if other:
        draws = ", ".join(map(str, other))
        problem = f"{name} and {reference} did not learn from the same films in draw {draws}"
        raise SystemExit(f"{problem}. Run both with the same --split flags")
