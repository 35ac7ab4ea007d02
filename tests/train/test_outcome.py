"""What a training took is said beside what its plan predicted, also where that is seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from radiffuse.config import Machine, TrainingPlan
from radiffuse.data.plan import Plan
from radiffuse.train.loop import Trained
from radiffuse.train.outcome import compare_costs
from radiffuse.train.run import Run


def test_seconds_are_not_rounded_to_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the steps were done in this process, in 69 seconds."""
    planned = TrainingPlan(
        network=None, batch_size=8, micro_batch=8, steps=30, precision="32-true",
        checkpoint_activations=False, compile=False, minutes=0.04, memory_gib=0.6,
    )  # fmt: skip
    plan = Plan(2, ("image",), ("background", "a"), (32, 32), training=planned)
    (tmp_path / "plan.json").write_text(plan.to_json())
    trained = Trained(nn.Identity(), nn.Identity(), seconds=69.0, steps=15)
    compare_costs(Run(tmp_path), trained, 30, Machine(accelerator="cpu"))
    assert "took 2 min 18 s (predicted 2 s), " in capsys.readouterr().err
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["measured"]["minutes"], cost["predicted"]["minutes"]) == (2.3, 0.04)
