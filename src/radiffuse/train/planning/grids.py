"""The grids that a plan tries, from what each allows."""

from __future__ import annotations

from collections.abc import Sequence

from ...data.ceiling import Ceiling, Grid, candidates, sufficient
from ...data.fingerprint import Fingerprint
from ...data.plan import target_spacing
from .configuration import FINER, Request

UNLABELLED_SIDE = 256
"""2D: longer side of the grid where no labels say how fine it must be [ours]."""


def grids_of(found: Fingerprint, ceilings: Sequence[Ceiling], request: Request) -> list[Grid]:
    """Grids in order of preference: the coarsest that suffices, then coarser ones; as given, if it is."""
    given = request.plan
    if found.spatial_dims == 3:
        if given.spacing or given.size:
            return [given.spacing or target_spacing(found)]
    elif sides := given.grid or given.size:
        return [tuple(float(n) for n in (sides * 2 if len(sides) == 1 else sides))]
    every = candidates(found)
    enough = sufficient(ceilings, request.target)
    finest = len(every) - 1
    if enough is not None:
        finest = every.index(enough.grid)
    elif not ceilings:
        finest = _without_labels(found, every)
    return every[finest::-1]


def finer_grids(
    found: Fingerprint, ceilings: Sequence[Ceiling], request: Request
) -> list[tuple[Grid, bool]]:
    """2D: grids finer than the coarsest that suffices, from fine to coarse; none where the grid is given.

    Each comes with whether half of it still suffices.
    """
    enough = sufficient(ceilings, request.target)
    if found.spatial_dims == 3 or request.plan.grid or request.plan.size or enough is None:
        return []
    sides = {max(grid): grid for grid in candidates(found)}
    coarse = max(enough.grid)
    return [
        (grid, side >= 2 * coarse)
        for side, grid in sides.items()
        if coarse < side <= FINER * coarse
    ][::-1]


def _without_labels(found: Fingerprint, every: Sequence[Grid]) -> int:
    if found.spatial_dims == 3:
        return len(every) - 1
    return max(i for i, grid in enumerate(every) if i == 0 or max(grid) <= UNLABELLED_SIDE)
