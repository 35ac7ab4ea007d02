"""Types and marks that the settings share."""

from __future__ import annotations

Floats = tuple[float, ...]
Ints = tuple[int, ...]

POSITIONAL = {"positional": True}
"""Metadata of a setting that is given without a flag."""
