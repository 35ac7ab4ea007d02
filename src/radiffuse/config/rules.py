"""What a rule of effect is, and those about what a data set says besides its images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = tuple[Callable[[Any], object], str, str]
"""Where it holds, what takes no effect then (names of settings or groups), and why."""
UNREAD = {
    "masks": ("label_values label_threshold class_names", "no label map is read"),
    "sites": ("sites", "nothing is split by site"),
    "finding": ("finding", "no film is classified"),
}
"""What a data set says besides its images: the settings that say how, and why they take none where it is unused."""


def always(settings: Any) -> bool:
    """The condition of what a command never uses."""
    return True


def unread(
    *parts: str, group: str = "reader", when: Callable[[Any], object] = always
) -> list[Rule]:
    """Rules for the parts of ``UNREAD`` that a command does not use."""
    return [
        (when, " ".join(f"{group}.{name}" for name in names.split()), why)
        for names, why in map(UNREAD.__getitem__, parts)
    ]


NO_MASK = "no mask is predicted"
UNTRAINED = "nothing is trained"
UNPASTED = "no label map is learned, and a box is pasted with its label"
UNSEGMENTED = "nothing is segmented"
UNPLACED = "heads see no coordinates"
UNPLANNED = "this command plans no time or memory"
TRAINING = (
    "machine.compile machine.checkpoint_activations machine.deterministic machine.strategy "
    "machine.memory machine.rate"
)
PASSES = f"{TRAINING} machine.channels_last"
FLOAT32: Rule = (
    lambda s: s.machine.precision == "bf16-mixed",
    "machine.precision",
    "the command computes in 32 bits",
)
UNKEPT: Rule = (always, "reader.cache", "nothing is kept")
ALONE: Rule = (always, f"{TRAINING} machine.workers machine.scheduler", UNTRAINED)
