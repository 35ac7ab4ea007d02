"""Which anatomies can be drawn, and the one way to draw them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from . import abdomen, bitewing, chest
from .drawing import Drawing

SMALLEST, LARGEST = 16, 4096
"""Legal number of pixels along an axis."""


Render = Callable[
    [np.random.Generator, np.random.Generator, Sequence[int], tuple[float, ...]], Drawing
]


@dataclass(frozen=True)
class Anatomy:
    """One anatomy.

    Attributes:
        name: As given to ``draw``.
        classes: Names by label value, background first.
        field: Field of view in millimeters along each axis where no spacing is given; None: as far as it takes.
        size: Pixels along each axis where no size is given.
        render: Draws one case from: generator of all that is in the picture, generator of the detector's noise, which
            depends on the size; pixels along each axis; millimeters per pixel.
        textured: The same with flesh and noise as in real images; None: there is no such drawing.
    """

    name: str
    classes: tuple[str, ...]
    field: tuple[float | None, ...]
    size: tuple[int, ...]
    render: Render
    textured: Render | None = None

    @property
    def spatial_dims(self) -> int:
        """2 for films, 3 for CT."""
        return len(self.field)

    def spacing(self, size: Sequence[int]) -> tuple[float, ...]:
        """Of the usual field of view; where an axis has none, pixels are square."""
        first = (self.field[0] or 0.0) / size[0]
        return tuple(
            first if mm is None else mm / n for mm, n in zip(self.field, size, strict=True)
        )


_textured = functools.partial(abdomen.draw, textured=True)
ANATOMIES: dict[str, Anatomy] = {
    one.name: one
    for one in (
        Anatomy("bitewing", bitewing.CLASSES, (bitewing.HEIGHT, None), (64, 64), bitewing.draw),
        Anatomy("chest", chest.CLASSES, (chest.HEIGHT, None), (64, 64), chest.draw),
        Anatomy("abdomen", abdomen.CLASSES, abdomen.FIELD, (64, 64, 40), abdomen.draw, _textured),
    )
}


def find(anatomy: str) -> Anatomy:
    """The anatomy of that name.

    Raises:
        InputError: There is none.
    """
    if anatomy not in ANATOMIES:
        known = ", ".join(ANATOMIES)
        raise InputError("anatomy", f"unknown anatomy {anatomy!r}", f"Choose from {known}")
    return ANATOMIES[anatomy]


def draw(
    anatomy: str,
    seed: int,
    index: int,
    size: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
    *,
    textured: bool = False,
) -> Drawing:
    """Draw one case: the same arguments give the same bytes.

    Another size or spacing gives the same scene at another resolution or field of view, with other
    noise.

    Args:
        anatomy: Name in ``ANATOMIES``.
        seed: Seed of the data set, 0 or more.
        index: Number of the case, 0 or more.
        size: Pixels along each axis: (rows, columns), or (right, anterior, superior).
        spacing: Millimeters per pixel along each axis; None: the usual field of view of the
            anatomy.
        textured: With flesh and noise as in real images; the scene and its labels are the same.

    Raises:
        InputError: An argument is not legal.
    """
    chosen = find(anatomy)
    verify(chosen, seed, index, size, spacing, textured=textured)
    step = chosen.spacing(size) if spacing is None else tuple(float(mm) for mm in spacing)
    scene, noise = map(np.random.default_rng, np.random.SeedSequence((seed, index)).spawn(2))
    render = chosen.textured if textured else chosen.render
    assert render is not None
    return render(scene, noise, size, step)


def verify(
    anatomy: Anatomy,
    seed: int,
    index: int,
    size: Sequence[int],
    spacing: Sequence[float] | None = None,
    *,
    textured: bool = False,
) -> None:
    """Raise InputError where ``draw`` would, before anything is drawn."""

    def whole(value: object) -> bool:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)

    for name, value in (("seed", seed), ("index", index)):
        if not whole(value) or value < 0:
            problem = f"{value!r} is not a whole number from 0"
            raise InputError(name, problem, f"Give a {name} such as 0")
    dims = anatomy.spatial_dims
    if len(size) != dims or not all(whole(n) and SMALLEST <= n <= LARGEST for n in size):
        problem = f"{','.join(map(str, size))} is not legal for {anatomy.name}"
        remedy = f"Give {dims} whole numbers from {SMALLEST} to {LARGEST}"
        raise InputError("size", problem, remedy)
    legal = spacing is None or all(np.isfinite(s) and s > 0 for s in spacing)
    if spacing is not None and (len(spacing) != dims or not legal):
        problem = f"{tuple(spacing)!r} is not legal for {anatomy.name}"
        raise InputError("spacing", problem, f"Give {dims} positive numbers, in millimeters")
    if textured and anatomy.textured is None:
        others = ", ".join(name for name, one in ANATOMIES.items() if one.textured)
        raise InputError("textured", f"is not for {anatomy.name}, but for {others}", "Leave it out")
