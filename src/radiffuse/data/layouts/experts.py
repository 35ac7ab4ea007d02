"""Masks of several experts for one image: ``Image_01L_1stHO.png`` and ``Image_01L_2ndHO.png`` of CHASE_DB1.

Fraz et al. 2012 (doi 10.1109/TBME.2012.2205687): 14 children, both eyes; the first observer is the truth by custom.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..issues import Issues
from .listing import stem

EXPERT = re.compile(r"(.+)_(\d)(?:st|nd|rd|th)HO", re.IGNORECASE)
"""The name of a mask: that of its image, and the number of the human observer."""


def first_experts(
    paths: Sequence[PurePosixPath],
) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """All files but masks of which there is one by an expert of a lower number, and those masks."""
    numbers = {p: (p.parent / m[1], int(m[2])) for p in paths if (m := EXPERT.fullmatch(stem(p)))}
    first: dict[PurePosixPath, int] = {}
    for place, number in numbers.values():
        first[place] = min(number, first.get(place, number))
    later = [path for path, (place, number) in numbers.items() if number > first[place]]
    passed = set(later)
    return [path for path in paths if path not in passed], later


def say_experts(where: Path, later: Sequence[PurePosixPath], issues: Issues) -> None:
    """Say that masks of other experts than the first are passed over."""
    if later:
        problem = (
            f"has masks of several experts: those of the first are the labels, {len(later)} of others, "
            f"such as {later[0].name}, are passed over"
        )
        issues.warning(where, problem, "To use those of another, move away the masks of the first")
