"""The configurations that a plan tries on a grid: patches from large to small, and networks for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from ...config import UNetConfig, fitting_size, network_settings, resolve_network
from ...data.ceiling import Grid
from ...data.fingerprint import Fingerprint
from ...data.scan import times
from ...errors import InputError
from ..open_settings import usual_batch
from ..start import verify_size
from .capacities import CAPACITIES, Capacity
from .configuration import COARSE, Configuration, Request

SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
"""Sides of patches that are tried, as shares of the body or film."""
SMALLEST_PATCH = {2: 128, 3: 16}
"""Pixels or voxels that the longest side of a patch has at least."""
LEAST_SHARE = 0.25
"""A patch has at least this share of the sides of film or body; below it a coarser grid is better, for organs are told
apart by what lies around them [ours; nnU-Net plans a coarser grid below a quarter of the voxels]."""
ENOUGH_SIDE = 96
"""3D: sides of a patch that need not be longer, however small their share."""


def options(
    found: Fingerprint,
    grid: Grid,
    request: Request,
    processes: int,
    *,
    finer: bool = False,
    halves: bool = False,
) -> Iterator[tuple[Configuration, float]]:
    """Configurations on a grid in order of preference, each with the least voxels of a patch that it is worth.

    On a grid that is ``finer`` than suffices films are seen whole; where half of it suffices as well, the first steps
    see half of it if the request and the network allow it.
    """
    dims, given = found.spatial_dims, request.plan.size
    spacing = grid if dims == 3 else found.spacing
    whole = found.body_on(grid) if dims == 3 else grid
    ends = {"in_channels": found.channels, "out_channels": request.classes or found.channels}
    inside = dims == 2 and request.plan.grid is not None  # a patch lies within a given grid
    fixed = request.start
    if fixed is None and request.network is not None:
        fixed = resolve_network(request.network, spatial_dims=dims, **ends)
    for capacity in CAPACITIES if fixed is None else CAPACITIES[-1:]:
        for scale in SCALES if given is None and not finer else (1.0,):
            wanted = [max(8.0, n * scale) for n in whole]
            if scale < 1 and not _large_enough(wanted, whole, dims):
                break
            size = _patch(wanted, whole, given, fixed, inside=inside, all_of_it=scale == 1)
            unet = fixed or capacity.network(size, spacing, **ends)
            batch = request.training.batch_size or usual_batch(request.kind, dims, processes)
            film = tuple(float(max(n, p)) for n, p in zip(whole, size, strict=True))
            yield (
                Configuration(
                    grid=film if dims == 2 and request.plan.grid is None else grid,
                    size=size,
                    whole=film,
                    network=None if fixed or request.own else network_settings(unet),
                    unet=unet,
                    batch=batch,
                    micro=batch,
                    checkpointed=False,
                    capacity=capacity,
                    finer=finer,
                    coarse=_coarse(request, size, unet.size_multiple, planned=halves),
                ),
                0.0 if fixed or given else _least(capacity, whole),
            )


def _patch(
    wanted: Sequence[float],
    whole: Sequence[float],
    given: tuple[int, ...] | None,
    fixed: UNetConfig | None,
    *,
    inside: bool,
    all_of_it: bool,
) -> tuple[int, ...]:
    """The patch: as given, else the nearest to the wanted one that the network takes, or any network of ours.

    Raises:
        InputError: The network does not take the given one, or none as small as the grid that it lies ``inside``.
    """
    if given is not None:
        size = given * len(whole) if len(given) == 1 else given
        if fixed is not None:
            verify_size(size, fixed)
        return size
    if fixed is None:
        return fitting_size([math.ceil(n - 1e-6) for n in wanted], down=inside)
    size = _of_network(fixed, wanted, inside=inside, all_of_it=all_of_it)
    if inside and any(n > g for n, g in zip(size, whole, strict=True)):
        problem = f"is smaller than the least patch of the network, {times(size)}"
        remedy = "Give a larger one, or a network of fewer levels"
        raise InputError(f"--plan.grid {times(whole)}", problem, remedy)
    return size


def _coarse(
    request: Request, size: Sequence[int], multiple: Sequence[int], *, planned: bool
) -> float:
    """As given; else the planned share where the method can and the network takes half of the size."""
    if (given := request.training.coarse) is not None:
        return given
    takes = all(n % (2 * m) == 0 for n, m in zip(size, multiple, strict=True))
    return COARSE if planned and request.halves and takes else 0.0


def _of_network(
    unet: UNetConfig, wanted: Sequence[float], *, inside: bool, all_of_it: bool
) -> tuple[int, ...]:
    """The patch nearest to the wanted one that a network takes: no larger if ``inside``, no smaller if it is all."""
    rounding: Callable[[float], int] = round
    if inside or all_of_it:
        rounding = math.floor if inside else math.ceil
    return _rounded(wanted, unet.size_multiple, rounding)


def _least(capacity: Capacity, whole: Sequence[float]) -> float:
    """Voxels that a patch must have for a capacity to be worth it."""
    dims, everything = len(whole), math.prod(whole)
    least = min(capacity.patch[dims - 2], everything)
    if dims == 2 and capacity is not CAPACITIES[-1]:
        least = max(least, everything / 4)  # half the sides: a film is one scene
    return least


def _rounded(
    wanted: Sequence[float], multiple: Sequence[int], rounding: Callable[[float], int]
) -> tuple[int, ...]:
    """A patch whose sides are multiples, at least 8."""
    sides = []
    for n, m in zip(wanted, multiple, strict=True):
        count = rounding(n / m - 1e-6 if rounding is math.ceil else n / m)
        sides.append(m * max(count, math.ceil(8 / m)))
    return tuple(sides)


def _large_enough(wanted: Sequence[float], whole: Sequence[float], dims: int) -> bool:
    enough = math.inf if dims == 2 else ENOUGH_SIDE
    sides = zip(wanted, whole, strict=True)
    return max(wanted) >= SMALLEST_PATCH[dims] and all(
        w >= min(LEAST_SHARE * n, enough) for w, n in sides
    )
