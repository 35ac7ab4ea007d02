"""Types of settings, with the marks for legal values and metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Within:
    """The legal range of a number, both ends included; infinity and NaN are never legal."""

    low: float
    high: float = math.inf


@dataclass(frozen=True)
class Spelled:
    """The legal form of a text.

    Attributes:
        pattern: Regular expression of the whole text.
        legal: What it allows, in words.
    """

    pattern: str
    legal: str


PositiveInt = Annotated[int, Within(1)]
NonNegativeInt = Annotated[int, Within(0)]
NonNegativeFloat = Annotated[float, Within(0)]
Fraction = Annotated[float, Within(0, 1)]

STEP = Spelled(
    r"none|largest|fill|topmost:\d+(\.\d+)?|(erode|dilate|open):\d+(:\d+)?",
    "none, largest, fill, topmost:SHARE, or one of erode, dilate and open with :SIDE or :SIDE:CUT",
)
Step = Annotated[str, STEP]
"""A step of ``PlanSettings.postprocess``."""
Place = Annotated[
    str,
    Spelled(
        r"(train|validation|test)(:\d+%?(-\d+)?)?",
        "PART, PART:END, PART:END-LESS or PART:PERCENT%-LESS",
    ),
]
"""A part of a site and where it ends; see ``Split.places``."""

Floats = tuple[float, ...]
Ints = tuple[int, ...]

POSITIONAL = {"positional": True}
"""Metadata: the setting is given without a flag."""

FULL_NAMES = {"full_names": True}
"""Metadata: the settings of the group have no short names, so that others keep theirs."""


def only_for(*values: str) -> dict[str, object]:
    """Metadata: the setting takes effect only with these methods of ``fit`` or objectives of ``pretrain``."""
    return {"only_for": values}


def used_for(*values: str) -> dict[str, object]:
    """Metadata: the methods of ``fit`` or objectives of ``pretrain`` that a study uses the group for."""
    return {"used_for": values}


IGNORE = 255
"""Label of pixels that losses and scores ignore."""

Strategy = Literal[
    "recycle",
    "standard",
    "recycle-next",
    "self-condition",
    "self-condition-next",
    "none",
]
