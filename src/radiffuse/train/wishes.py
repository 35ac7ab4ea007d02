"""Which settings are left to the plan, and what was decided for them in a run that is resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.values import completed, flatten

OPEN = {
    "diffusion.shift",
    "training.steps",
    "training.batch_size",
    "training.micro_batch",
    "machine.precision",
    "machine.compile",
    "machine.checkpoint_activations",
    "plan.size",
    "plan.grid",
    "plan.spacing",
    "plan.ceiling",
}
"""Settings that the plan decides where they are not given, beside those of the network."""


def is_open(name: str, value: Any) -> bool:
    """Whether a setting leaves something to the plan."""
    return (name in OPEN or name.startswith("network.")) and value in (None, "auto")


def as_decided(
    content: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[str]]:
    """Settings of a command that resumes a run, given the content of its ``config.yaml``, with what was decided for it.

    Where the settings still leave something open, what was decided stands; the names of these settings come second.
    """
    wishes, before = flatten(settings), flatten(content["settings"])
    names = [name for name in content.get("decided", ()) if is_open(name, wishes.get(name))]
    filled: dict[str, Any] = {}
    for name in names:
        *groups, last = name.split(".")
        inside = filled
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = before.get(name)
    return completed(settings, filled), names
