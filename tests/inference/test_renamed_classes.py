"""What may be changed in the plan of a run after training: names of classes and steps after segmentation."""

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


@pytest.mark.parametrize("chosen", [False, True])
def test_steps_after_segmentation_are_those_of_the_plan_of_the_run(
    tmp_path: Path, chosen: bool
) -> None:
    folder = tmp_path / "seg"
    run = chosen_run(folder, PLAN, PLAN) if chosen else finished_run(folder, PLAN)
    path = run / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"postprocess": ["1=keep:1"]}))
    assert Predictor.open([Run.open(run)], CPU).after == ("1=keep:1",)


@pytest.mark.parametrize("change", [{"high": 90.0}, {"mirror": [1]}, {"resize": "fit"}])
def test_what_the_plans_of_its_runs_decide_is_refused_in_that_of_a_choice(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = chosen_run(tmp_path / "seg", PLAN, PLAN) / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        RunError, match=rf"plan\.json: has {min(change)} .*, and its runs have plans"
    ):
        Predictor.open([Run.open(tmp_path / "seg")], CPU)
