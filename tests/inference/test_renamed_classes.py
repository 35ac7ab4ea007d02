"""Classes that had no name when a run was trained get one in its plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radiffuse.config import Machine
from radiffuse.data.plan import Plan
from radiffuse.errors import RunError
from radiffuse.inference.predictor import Predictor
from radiffuse.train.run import Run
from tiny_runs import chosen_run, finished_run

PLAN = Plan(2, ("image",), ("background", "class-1"), (16, 16))
CPU = Machine(accelerator="cpu", precision="32-true")


@pytest.mark.parametrize("chosen", [False, True])
def test_classes_are_renamed_in_the_plan_of_the_run(tmp_path: Path, chosen: bool) -> None:
    folder = tmp_path / "seg"
    run = chosen_run(folder, PLAN, PLAN) if chosen else finished_run(folder, PLAN)
    values = json.loads((run / "plan.json").read_text())

    def named(*classes: str) -> tuple[str, ...]:
        (run / "plan.json").write_text(json.dumps(values | {"classes": classes}))
        return Predictor.open([Run.open(run)], CPU).plan.classes

    assert named("background", "lung") == ("background", "lung")
    if not chosen:
        return  # the network itself says how many it tells apart, when it first sees an image
    with pytest.raises(RunError, match="names 3 classes, the network tells 2 apart"):
        named("background", "lung", "heart")
