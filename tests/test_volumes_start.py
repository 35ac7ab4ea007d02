"""What ``benchmarks/volumes_start.py`` publishes follows from the scores behind it."""

from __future__ import annotations

import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

RESULTS = Path(__file__).parents[1] / "results"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RESULTS.parent / "benchmarks"))
    yield import_module("volumes_start")
    for name in ("volumes_start", "results"):
        sys.modules.pop(name, None)


def test_difference_is_that_of_the_same_cases_draws_and_labels(script: Any) -> None:
    # Dice .2 and .4 of the two classes of a case from scratch, .1 more of each when fine-tuned, .3 more in draw 1.
    rows = [
        {"data": "drawn", "part": "test", "labels": 1, "draw": draw, "case": case, "group": case,
         "class": name, "method": method,
         "dice": dice + (method == "finetune") * (0.1 + 0.2 * draw)}
        for draw in (0, 1)
        for case in ("a", "b")
        for name, dice in (("liver", 0.2), ("spleen", 0.4))
        for method in ("scratch", "finetune")
    ]  # fmt: skip
    table = script.table(pd.DataFrame(rows)).set_index(["data", "part", "labels"])
    row = table.loc[("drawn", "test", 1)]
    assert row["scratch"] == pytest.approx(0.3)
    assert row["finetune"] == pytest.approx(0.5)
    assert row["difference"] == pytest.approx(0.2)
    assert (row["patients"], row["draws"]) == (2, 2)


def test_published_table_follows_from_the_scores_that_were_kept(script: Any) -> None:
    published = pd.read_csv(RESULTS / "volumes-start.csv")
    scores = sys.modules["results"].read_scores(RESULTS / "scores" / "volumes-start.csv.gz")
    again = pd.read_csv(io.StringIO(script.table(scores).round(4).to_csv(index=False)))
    columns = [c for c in again if c not in ("p_value", "p_holm")]
    pd.testing.assert_frame_equal(published[columns], again[columns], check_dtype=False)
