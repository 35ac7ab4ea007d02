"""What a further call of a study may not change: by what rows that keep their names were made.

Scores are found by the name of their row, label budget and draw. So what the names do not say has to stay as it was, or
old scores would stand in the tables as those of the new settings.
"""

from __future__ import annotations

from pathlib import Path

from ..config import Study
from ..config.given import written
from ..config.studying import PRETRAINING, USED_BY
from ..errors import InputError
from .methods import shared_start

FIRST = ("timesteps", "weights", "samplers")
"""Settings that add rows, but for the first of their values, by which the row without a suffix is made."""
ELSE = "choose another --out"


def refuse_other_rows(before: Study, now: Study, path: Path) -> None:
    """Refuse settings by which rows that are there already would be made otherwise.

    Args:
        before: The settings of the call before.
        now: Those of this one.
        path: Of the file of settings, for messages.

    Raises:
        InputError: Names the setting.
    """
    for name in FIRST:
        was, asked = getattr(before, name)[:1], getattr(now, name)[:1]
        if was != asked and before.trained & USED_BY[name]:
            problem = f"has rows by --{name} {written(was)}, which would be taken for those by {written(asked)}"
            raise InputError(path, problem, f"Give {written(was)} as the first, or {ELSE}")
    was, asked = (one.transfer or ("finetune",) for one in (before, now))
    compares = bool(before.trained & PRETRAINING)
    if compares and was != asked:
        problem = f"has rows by --transfer {written(was)}, and this is {written(asked)}"
        raise InputError(path, problem, f"Give the same, or {ELSE}")
    if compares and {*was} != {"finetune"} and before.places_heads != now.places_heads:
        problem = (
            "has heads that see no coordinates; with guided methods those of all methods would"
        )
        remedy = "Leave these methods out"
        if before.places_heads:
            problem = "has heads that see coordinates; without guided methods none would"
            remedy = "Name the guided methods here too"
        raise InputError(path, problem, f"{remedy}, or {ELSE}")
    if (shared_start(before) is None) != (shared_start(now) is None):
        problem = "has rows by a plan of their own; with these methods all have that of a pre-trained network"
        remedy = "Leave those out that start from one"
        if shared_start(now) is None:
            problem = (
                "has rows by the plan of a pre-trained network; with these methods none has it"
            )
            remedy = "Name a method here too that starts from one"
        raise InputError(path, problem, f"{remedy}, or {ELSE}")
