"""Procedural anatomy: any number of images that are drawn, not taken, with exact label maps.

Every drawing is a pure function of (anatomy, seed, index, size, spacing). Shapes are defined in
millimeters, so the size only changes the resolution. Three anatomies: ``bitewing`` and ``chest``
radiographs, ``abdomen`` CT.
"""

from __future__ import annotations

from .drawing import Drawing
from .registry import ANATOMIES, Anatomy, draw
from .writer import is_drawn, write_dataset

__all__ = ["ANATOMIES", "Anatomy", "Drawing", "draw", "is_drawn", "write_dataset"]
