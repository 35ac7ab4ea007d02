"""Types and marks that the settings share."""

from __future__ import annotations

from typing import Literal

Floats = tuple[float, ...]
Ints = tuple[int, ...]

POSITIONAL = {"positional": True}
"""Metadata of a setting that is given without a flag."""

FULL_NAMES = {"full_names": True}
"""Metadata of a group whose settings go by their full names, so that others keep the short ones."""

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
