"""The steps on predicted masks that a plan names, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence


def split_step(step: str) -> tuple[int | None, str, list[float]]:
    """The class that a step is for (None: each), its name, and its numbers: ``2=keep:3`` is ``(2, "keep", [3.0])``."""
    value, _, what = step.rpartition("=")
    name, *numbers = what.split(":")
    return int(value) if value else None, name, [float(number) for number in numbers]


def steps_in_words(steps: Sequence[str], classes: Sequence[str], dims: int) -> str:
    """Steps as a person says them, ``lung: the 2 largest pieces are kept``; ``none`` where there are none.

    Args:
        steps: As in ``Plan.postprocess``.
        classes: Names by label value.
        dims: Spatial axes.
    """
    told: dict[str, list[str]] = {}
    for step in steps:
        if step != "none":
            name = _class_in_words(split_step(step)[0], classes)
            told.setdefault(step_in_words(step, dims), []).append(name)
    return "; ".join(f"{', '.join(of)}: {words}" for words, of in told.items()) or "none"


def step_in_words(step: str, dims: int) -> str:
    """A step as a person says it, without its class."""
    _, name, numbers = split_step(step)
    first = numbers[0] if numbers else 1
    if name in ("largest", "keep"):
        return (
            "the largest piece is kept" if first == 1 else f"the {first:g} largest pieces are kept"
        )
    if name == "drop":
        return f"pieces below {first:g} {'mm²' if dims == 2 else 'mm³'} are dropped"
    if name == "islands":
        return f"pieces below {100 * first:.2g} % of the image are dropped"
    if name == "topmost":
        return (
            f"the largest piece is kept, or the second if it has {100 * first:g} % of its size and "
            "begins nearer to the top"
        )
    if name == "fill":
        return "holes are filled"
    verb = {"erode": "eroded", "dilate": "dilated", "open": "opened"}[name]
    return f"{verb} by {first:g} {'pixels' if dims == 2 else 'voxels'}"


def _class_in_words(value: int | None, classes: Sequence[str]) -> str:
    if value is None:
        return "every class"
    return classes[value] if value < len(classes) else f"class {value}"
