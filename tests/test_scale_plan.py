"""The plan for whole collections is what follows from the measured unit costs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "results" / "scale.csv"
UNITS = {
    "bytes of a film": 2e6,
    "film 2048 to 256": 0.36,
    "film DINOv2-base": 3.6,
    "film masks": 0.036,
    "bytes of a volume": 1e6,
    "volume": 0.18,
    "ptdr-paper, training step of an image": 1000.0,
    "denoiser step": 0.018,
}


@pytest.fixture
def scale_plan(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scale_plan

    return scale_plan


def test_hours_and_bytes_are_unit_costs_times_cases(scale_plan: ModuleType) -> None:
    rows = [{"part": "units", "what": what, "value": value} for what, value in UNITS.items()]
    rows.append({"part": "growth", "what": "volume", "value": 1e9})  # another part's
    table = scale_plan.plan(pd.DataFrame(rows)).set_index(["set", "stage"])
    films = table.loc[("films", "prepare")]
    assert films["core_hours"] == pytest.approx(868_000 * 0.36 / 3600, rel=0.01)
    assert films["gb_read"] == 1740  # three figures of 1736
    assert films["gb_kept"] == 114
    assert films["cores_for_a_day"] == 4
    volumes = table.loc[("volumes", "prepare")]
    assert volumes["core_hours"] == pytest.approx(10_000 * 78.6432 * 0.18 / 3600, rel=0.01)
    assert volumes["gb_kept"] == 197
    pretrain = table.loc[("films", "pretrain, ptdr-paper")]
    assert pretrain["core_hours"] == pytest.approx(6.4e6 * 1000 * 0.018 / 3600, rel=0.01)


@pytest.mark.skipif(not MEASURED.exists(), reason="benchmarks/scale.py has not been run")
def test_the_published_plan_follows_from_the_published_measurements(
    scale_plan: ModuleType,
) -> None:
    again = scale_plan.plan(pd.read_csv(MEASURED)).to_csv(index=False)
    assert again == (ROOT / "results" / "scale-plan.csv").read_text()
