"""Plans that no machine of this size can train with or predict by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from radiffuse.config import Machine, UNetConfig
from radiffuse.data.plan import Plan
from radiffuse.errors import InputError
from radiffuse.inference.members import Overrides
from radiffuse.inference.predictor import Predictor
from radiffuse.system.hardware import Memory
from radiffuse.train import memory as module
from radiffuse.train.memory import verify_memory
from radiffuse.train.run import Run
from tiny_runs import finished_run

CPU = Machine(accelerator="cpu", precision="32-true")


def test_a_plan_larger_than_the_machine_is_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16384 x 16384 pixels by 8 channels in float32 are 8 GiB, and stem and one block keep 2 of these."""
    monkeypatch.setattr(module, "memory", lambda: Memory(2**40, 2**30, 15 * 2**30))
    plan = Plan(2, ("image",), ("background", "a"), (16384, 16384))
    run = Run.open(finished_run(tmp_path / "run", plan))
    with pytest.raises(
        InputError, match="16384x16384: takes 16 GiB or more for one image, cpu has 15"
    ):
        Predictor.open([run], CPU, Overrides())
    monkeypatch.setattr(module, "memory", lambda: Memory(2**40, 2**30, None))
    assert Predictor.open([run], CPU, Overrides()).plan == plan


def test_the_bound_is_a_lower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What autograd keeps, as it is measured, is more."""
    from radiffuse.nets.summary import summarize

    for unet in (
        UNetConfig(width=16, multipliers=(1, 2), blocks=1, attention_factors=()),
        UNetConfig(spatial_dims=3, width=8, multipliers=(1, 2), blocks=2, attention_factors=()),
    ):
        size = (32,) * unet.spatial_dims
        cost = summarize(unet, size)
        for machine, kept in (
            (CPU, cost.activation_bytes),
            (replace(CPU, checkpoint_activations=True), cost.checkpointed_bytes),
        ):
            monkeypatch.setattr(module, "memory", lambda kept=kept: Memory(kept, kept, None))
            verify_memory(size, unet, machine, training=True)
