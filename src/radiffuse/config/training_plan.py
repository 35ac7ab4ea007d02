"""What the plan decides about a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from .network import Network
from .types import Fraction, NonNegativeFloat, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training does where its settings leave it open; part of ``plan.json``, and what happens."""

    network: Network | None
    """The U-Net; None: that of the settings or of the run to start from."""
    batch_size: PositiveInt
    """Images or patches per step."""
    micro_batch: PositiveInt
    """Of these at once."""
    steps: PositiveInt
    """Optimizer steps."""
    precision: Literal["32-true", "bf16-mixed"]
    """Arithmetic."""
    checkpoint_activations: bool
    """Whether activations are recomputed in the backward pass."""
    compile: bool
    """Whether the network is compiled."""
    minutes: NonNegativeFloat
    """Predicted time of the training."""
    memory_gib: NonNegativeFloat
    """Predicted memory: of the GPU, or of the process."""
    slowed: Annotated[float, Within(1)] = 1.0
    """How many times as long the training takes while other work has the cores as it had when steps were timed."""
    coarse: Fraction = 0.0
    """Share of the steps, the first ones, at half the resolution."""
