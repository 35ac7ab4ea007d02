"""A learning rate that would end before it has risen, in any group of the settings of a command."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..errors import InputError
from .given import flag
from .learning import Training
from .values import groups_in


def refuse_early_decay(settings: Any, prefix: str = "") -> None:
    """Refuse a learning rate whose decay would end before its warm-up does, in any group of the settings.

    Raises:
        InputError: Names the setting.
    """
    if isinstance(settings, Training) and settings.decay != "constant":
        ends, warm = settings.decay_steps, settings.warmup_steps
        if ends is not None and ends <= warm:
            where = f"--{prefix}decay-steps {ends}"
            problem = f"is no later than the step at which the warm-up ends, {warm}"
            raise InputError(where, problem, f"Give a later one, or lower --{prefix}warmup-steps")
    kind: type = type(settings)
    for field in groups_in(kind):
        value = getattr(settings, field)
        if dataclasses.is_dataclass(value):
            refuse_early_decay(value, f"{prefix}{flag(field)}.")
