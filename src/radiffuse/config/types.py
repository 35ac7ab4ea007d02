"""Types and marks that the settings share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Within:
    """The legal range of a number, both ends included; infinity and NaN are never legal.

    Attributes:
        low: Lowest legal value.
        high: Highest legal value.
    """

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
"""A step that predicted masks go through, see ``PlanSettings.postprocess``."""
Place = Annotated[
    str,
    Spelled(
        r"(train|validation|test)(:\d+%?(-\d+)?)?",
        "PART, PART:END, PART:END-LESS or PART:PERCENT%-LESS",
    ),
]
"""A part of a site, and where it ends, see ``Split.places``."""

Floats = tuple[float, ...]
Ints = tuple[int, ...]

POSITIONAL = {"positional": True}
"""Metadata of a setting that is given without a flag."""

FULL_NAMES = {"full_names": True}
"""Metadata of a group whose settings go by their full names, so that others keep the short ones."""


def only_for(*values: str) -> dict[str, object]:
    """Metadata of a setting that has an effect with some methods of ``fit``, or objectives of ``pretrain``, alone."""
    return {"only_for": values}


def used_for(*values: str) -> dict[str, object]:
    """Metadata of a group of a study: the methods of ``fit``, or objectives of ``pretrain``, it is used with."""
    return {"used_for": values}


IGNORE = 255
"""Label of pixels that no loss and no score counts."""

Strategy = Literal[
    "recycle",
    "standard",
    "recycle-next",
    "self-condition",
    "self-condition-next",
    "none",
]
