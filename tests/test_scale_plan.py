"""The published plan is what follows from the published measurements."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


def test_the_plan_follows_from_the_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale_plan

    measured = pd.read_csv(ROOT / "results" / "scale.csv")
    again = scale_plan.plan(measured)
    assert again.to_csv(index=False) == (ROOT / "results" / "scale-plan.csv").read_text()
    twice = measured.assign(value=measured["value"] * (1 + measured["what"].eq("film 2048 to 256")))
    prepare = scale_plan.plan(twice)["core_hours"] / again["core_hours"]
    assert prepare[0] == pytest.approx(2, rel=0.01)
    assert (prepare[1:] == 1).all()
    sys.modules.pop("scale_plan")
    assert not pd.read_csv(io.StringIO(again.to_csv(index=False))).isna().any().any()
