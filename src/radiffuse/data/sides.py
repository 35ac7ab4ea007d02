"""Whether left and right may be exchanged: not where a class has a side, by its name or by where it is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .class_names import organ
from .fingerprint import Fingerprint

SIDED = re.compile(
    r"(?<!c)left(?!over)|(?<!b)(?<!up)right|\b([lr]|lt|rt|lft|rgt|lv|rv|la|ra|lad|lcx|rca|lca|lvot|rvot)\b"
    r"|\b(links|linke|rechts|rechte|gauche|droit|izquierd|derech|sinist|destr|dext|esquerd|direit)"
)
"""Words for a side in the names of classes (English, German, Romance languages, Latin), and the heart's short names."""
LONE = re.compile(
    r"\b(liver|hepat|spleen|splenic|stomach|gastr|gall ?bladder|pancrea|duoden|heart|cardiac|myocard|ventricular|aort"
    r"|vena cava|ivc|svc|portal|azygos|c(a)?ecum|appendi|sigmoid|colon\b|mediastin|cardiomegaly)"
)
"""Organs that lie on one side, or whose two sides differ."""
UNNAMED = re.compile(r"(class|label|value|mask|object|structure|region)?|.*\b\d+")
"""Names that say nothing of sides, as those that are numbered, such as teeth."""
OFF = 0.1
"""A center so far from the middle, as a fraction of the body's width, is on a side [ours]."""
ENOUGH = 5
"""Cases in which a class must always be on the same side, to have it [ours]."""


def sides(classes: Sequence[str], found: Fingerprint) -> tuple[tuple[int, ...], str]:
    """The axes along which images may be mirrored, and why, or why not; top and bottom, front and back always differ.

    Args:
        classes: Names by label value, background first.
        found: Where they are in the label maps that were read.
    """
    measured = {row.name: row.sides for row in found.classes}
    for name in classes[1:]:
        if why := _side(name, measured.get(name, ())):
            return (), why
    axis = left_to_right(found.spatial_dims)
    return ((axis,), "no class has a side") if len(classes) > 1 else ((), "nothing is segmented")


def left_to_right(dims: int) -> int:
    """The axis of left and right of an image of so many axes: the columns of a film, the first axis of a volume."""
    return 1 if dims == 2 else 0


def _side(name: str, places: Sequence[float]) -> str:
    """Why a class has a side; empty if it has none."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", organ(name)).lower()
    words = " ".join(re.findall(r"[^\W_]+", apart))
    for kind, why in ((SIDED, "is of one side"), (LONE, "is not the same on both sides")):
        if kind.search(words):
            return f"{name} {why}"
    off = [place for place in places if abs(place) > OFF]
    if len(off) == len(places) >= ENOUGH and len({place > 0 for place in off}) == 1:
        return f"{name} is always on the same side"
    if UNNAMED.fullmatch(words) and (off or not places) and len(places) < ENOUGH:
        return f"{name} is off the middle, and its name does not say what it is"
    return ""
