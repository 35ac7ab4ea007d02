"""Which anatomies can be drawn, and the one way to draw them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from radiffuse.errors import InputError

from . import abdomen, bitewing, chest
from .drawing import Drawing

SMALLEST, LARGEST = 16, 4096
"""Legal number of pixels along an axis."""


@dataclass(frozen=True)
class Anatomy:
    """One anatomy.

    Attributes:
        name: As given to ``draw``.
        spatial_dims: 2 for films, 3 for CT.
        classes: Names by label value, background first.
        render: Draws one case from (generator of the scene, generator of noise, size, spacing).
    """

    name: str
    spatial_dims: int
    classes: tuple[str, ...]
    render: Callable[
        [np.random.Generator, np.random.Generator, Sequence[int], Sequence[float] | None], Drawing
    ]


ANATOMIES: dict[str, Anatomy] = {
    "bitewing": Anatomy("bitewing", 2, bitewing.CLASSES, bitewing.draw),
    "chest": Anatomy("chest", 2, chest.CLASSES, chest.draw),
    "abdomen": Anatomy("abdomen", 3, abdomen.CLASSES, abdomen.draw),
}


def find(anatomy: str) -> Anatomy:
    """The anatomy of that name.

    Raises:
        InputError: There is none.
    """
    if anatomy not in ANATOMIES:
        raise InputError(
            "anatomy", f"unknown anatomy {anatomy!r}", f"choose from {', '.join(ANATOMIES)}"
        )
    return ANATOMIES[anatomy]


def draw(
    anatomy: str,
    seed: int,
    index: int,
    size: tuple[int, ...],
    spacing: tuple[float, ...] | None = None,
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

    Raises:
        InputError: An argument is not legal.
    """
    chosen = find(anatomy)
    _check(chosen, seed, index, size, spacing)
    scene, noise = np.random.SeedSequence((seed, index)).spawn(2)
    return chosen.render(np.random.default_rng(scene), np.random.default_rng(noise), size, spacing)


def _check(
    anatomy: Anatomy, seed: int, index: int, size: Sequence[int], spacing: Sequence[float] | None
) -> None:
    for name, value in (("seed", seed), ("index", index)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise InputError(
                name, f"{value!r} is not a whole number from 0", f"give a {name} such as 0"
            )
    dims = anatomy.spatial_dims
    if len(size) != dims or not all(
        isinstance(n, (int, np.integer)) and SMALLEST <= n <= LARGEST for n in size
    ):
        raise InputError(
            "size",
            f"{tuple(size)!r} is not legal for {anatomy.name}",
            f"give {dims} whole numbers from {SMALLEST} to {LARGEST}",
        )
    if spacing is not None and (
        len(spacing) != dims or not all(np.isfinite(s) and s > 0 for s in spacing)
    ):
        raise InputError(
            "spacing",
            f"{tuple(spacing)!r} is not legal for {anatomy.name}",
            f"give {dims} positive numbers, in millimeters",
        )
