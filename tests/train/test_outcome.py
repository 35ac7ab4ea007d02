"""What a training took is said beside what its plan predicted, also where that is seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

import radiffuse
from conftest import pretrain_settings
from radiffuse.commands import pretrain
from radiffuse.config import Machine, TrainingPlan
from radiffuse.data.plan import Plan
from radiffuse.train.loop import Trained
from radiffuse.train.outcome import compare_costs
from radiffuse.train.run import Run


def test_seconds_are_not_rounded_to_minutes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the work was done in this process, in 69 seconds."""
    planned = TrainingPlan(
        network=None, batch_size=8, micro_batch=8, steps=30, precision="32-true",
        checkpoint_activations=False, compile=False, minutes=0.04, memory_gib=0.6,
    )  # fmt: skip
    plan = Plan(2, ("image",), ("background", "a"), (32, 32), training=planned)
    (tmp_path / "plan.json").write_text(plan.to_json())
    trained = Trained(nn.Identity(), nn.Identity(), seconds=69.0, share=0.5)
    compare_costs(Run(tmp_path), trained, Machine(accelerator="cpu"))
    assert "took 2 min 18 s (predicted 2 s), " in capsys.readouterr().err
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["measured"]["minutes"], cost["predicted"]["minutes"]) == (2.3, 0.04)


def test_a_run_that_is_stopped_after_its_last_step_keeps_what_it_took(
    unlabelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if that was right after the checkpoint: then the minutes are known alone, from the log."""
    settings = pretrain_settings(unlabelled, tmp_path / "run", tmp_path / "cache")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "save_network", stopped)
        with pytest.raises(KeyboardInterrupt):
            radiffuse.pretrain(**settings)
    path = tmp_path / "run" / "cost.json"
    measured = json.loads(path.read_text())["measured"]
    assert measured["memory_gib"] > 0
    log = Run(tmp_path / "run").log()
    minutes = round(max(row["seconds"] for row in log if "seconds" in row) / 60, 2)
    for known in (measured | {"minutes": minutes}, {"minutes": minutes}):
        radiffuse.pretrain(**settings)
        assert json.loads(path.read_text())["measured"] == known
        path.unlink()
        (tmp_path / "run" / "model" / "config.json").unlink()  # it has not finished
