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
Seed = Annotated[int, Within(0, 2**32 - 1)]
NonNegativeFloat = Annotated[float, Within(0)]
PositiveFloat = Annotated[float, Within(1e-6)]
Fraction = Annotated[float, Within(0, 1)]

STEP = Spelled(
    r"none|(\d+=)?(largest|fill|keep:[1-9]\d*|(topmost|drop|islands):\d+(\.\d+)?|(erode|dilate|open):\d+(:\d+)?)",
    "none, largest, fill, keep:COUNT, drop:VOLUME, islands:SHARE, topmost:SHARE, or one of erode, dilate and open with "
    ":SIDE or :SIDE:CUT, for one class as in 2=largest",
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
Timestep = NonNegativeInt | Literal["clean"]
"""A training timestep, to which an image is noised, or the image without noise, seen at timestep 0."""
Stride = Annotated[str, Spelled(r"[12](x[12]){1,2}", "1 or 2 for each axis, such as 1x2x2")]
"""Down-sampling from one level to the next."""

Memory = Annotated[str, Spelled(r"\d+(\.\d+)?(GiB|MiB|GB|MB)", "a number with GiB, MiB, GB or MB")]
"""An amount of memory."""

Hours = Annotated[float, Within(0.001)]
"""A time to train."""

Floats = tuple[float, ...]
Ints = tuple[int, ...]

POSITIONAL = {"positional": True}
"""Metadata: the setting is given without a flag."""

FULL_NAMES = {"full_names": True}
"""Metadata: the settings of the group have no short names, so that others keep theirs."""


Ramp = Literal["none", "input", "output"]
"""What a regressor of body coordinates does with the place of a voxel in its patch."""


def before(value: object) -> dict[str, object]:
    """Metadata: the value that holds for runs from before the setting was there."""
    return {"before": value}


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


def numbers(count: int) -> dict[str, object]:
    """Metadata: how many numbers the setting has."""
    return {"numbers": count}
