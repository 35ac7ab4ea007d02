"""The plan of a training: a pure function of the fingerprint, the machine, the time and what is given.

What is given stays; the rest is decided in this order. The grid is the coarsest on which every class can still be
drawn well (``data.ceiling``), or a coarser one where time or memory do not allow it. On it the patch is as large, and
then the network as large, as memory holds and as can see enough images in the time. Steps fill the hours, or make a
stated number of passes over the images. Each decision comes with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..config import fitting_size, network_settings, resolve_network
from ..data.ceiling import Ceiling, Grid, candidates
from ..data.fingerprint import Fingerprint
from ..data.plan import target_spacing
from ..errors import InputError
from .capacities import CAPACITIES, Capacity
from .configuration import Configuration, Configured, Measured, Request, samples_of
from .machine import GIB, MachineFacts, Pace, Precision
from .open_settings import BATCH
from .reasons import decision_of
from .start import verify_size

SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
"""Sides of patches that are tried, as shares of the body or film."""
SMALLEST_PATCH = {2: 128, 3: 16}
"""Pixels or voxels that the longest side of a patch has at least."""
LEAST_SHARE = 0.25
"""A patch has at least this share of the sides of film or body; below it a coarser grid is better, for organs are told
apart by what lies around them [ours; nnU-Net plans a coarser grid below a quarter of the voxels]."""
ENOUGH_SIDE = 96
"""3D: sides of a patch that need not be longer, however small their share."""
LEAST_SEEN = 0.25
"""Share of the images that a network needs with which it is still trained, where time allows no more [ours]."""
MEASURED_FROM = 30.0
"""Seconds of a predicted training, without hours given, from which it is worth measuring."""
SLOWER = {"cpu": 1.0, "accelerator": 10.0}
"""By how much a machine may be slower than is thought before it is measured: ``GPU_RATE`` is that of a fast card."""


Measure = Callable[[Configuration, Precision], Measured | None]
"""Measures steps of a configuration in an arithmetic; None: it cannot."""


def configure(
    found: Fingerprint,
    ceilings: Sequence[Ceiling],
    facts: MachineFacts,
    request: Request,
    measure: Measure | None = None,
) -> Configured:
    """Plan a training.

    Args:
        found: The data.
        ceilings: What grids allow, from the coarsest on; () without labels.
        facts: The machine to plan for.
        request: What is to be trained.
        measure: Measures steps on this machine; None: its speed is taken from ``facts``.

    Raises:
        InputError: Steps and hours are both given, or nothing fits into memory.
    """
    if request.hours is not None and request.training.steps is not None:
        problem = f"would be ignored: --training.steps {request.training.steps} is given"
        raise InputError(f"--hours {request.hours:g}", problem, "Leave one of them out")
    pace, seen = Pace.of((), facts), dict[Configuration, Measured | None]()
    kind = "cpu" if facts.device == "cpu" else "accelerator"
    timed: list[tuple[float, float]] = []
    precision = facts.arithmetic(request.machine.precision)
    while True:
        config = _choose(found, ceilings, facts, request, pace, precision)
        if measure is None or config in seen:
            break
        seconds = pace.seconds(config.operations)
        if request.hours is None and not seen:
            images, _ = samples_of(request, config, seconds)
            steps = request.training.steps or images / config.batch
            if steps * seconds * SLOWER[kind] < MEASURED_FROM:
                break
        seen[config] = result = measure(config, precision)
        if result is None or len(seen) == MOST_MEASURED[kind]:
            break
        timed.append((config.operations, result.seconds))
        pace = Pace.of(timed, facts)
    measured = seen.get(config)
    seconds = measured.seconds if measured else pace.seconds(config.operations)
    return decision_of(
        found,
        ceilings,
        facts,
        request,
        config,
        seconds,
        measured=measured,
        precision=precision,
    )


MOST_MEASURED = {"cpu": 3, "accelerator": 6}
"""Configurations that are measured, so that planning takes less than a minute."""


# ------------------------------------------------------------------------------------------------ grid, patch, network


def _choose(
    found: Fingerprint,
    ceilings: Sequence[Ceiling],
    facts: MachineFacts,
    request: Request,
    pace: Pace,
    precision: Precision,
) -> Configuration:
    """The first grid, patch and network in order of preference that memory and time allow.

    Where time allows none: for volumes, the first smallest network that sees a quarter of the images it needs; else the
    fastest on the coarsest grid, of the patches that are worth it, for a small part of a fine grid would see less.
    """
    last: Configuration | None = None
    hurried: Configuration | None = None
    smallest = (True, 0, math.inf)
    for place, grid in enumerate(_grids(found, ceilings, request)):
        for config, least in _options(found, grid, request):
            fitted = _into_memory(config, facts, request, precision)
            if fitted is None:
                continue
            samples, worth = round(fitted.samples * request.more), True
            if request.training.steps is not None:
                given = request.training.steps * fitted.batch
                worth = given >= samples or fitted.capacity is CAPACITIES[-1]
                samples = given
            seconds = pace.seconds(fitted.operations) * samples / fitted.batch
            enough = math.prod(fitted.size) >= least
            if seconds <= request.budget and enough and worth:
                return fitted
            small = found.spatial_dims == 3 and fitted.capacity is CAPACITIES[-1]
            if small and enough and seconds * LEAST_SEEN <= request.budget:
                hurried = hurried or fitted
            rank = (not enough, -place, seconds)
            if rank < smallest and worth:
                last, smallest = fitted, rank
    if last is None:
        problem = f"no network fits into {facts.memory / GIB:.1f} GiB of free memory"
        remedy = "Lower --size or --network.width, or use a machine with more memory"
        raise InputError("--plan", problem, remedy)
    return hurried or last


def _grids(found: Fingerprint, ceilings: Sequence[Ceiling], request: Request) -> list[Grid]:
    """Grids in order of preference: the coarsest that reaches the target, then coarser ones; as given, if it is."""
    given = request.plan
    if found.spatial_dims == 3:
        if given.spacing or given.size:
            return [given.spacing or target_spacing(found)]
    elif sides := given.grid or given.size:
        return [tuple(float(n) for n in (sides * 2 if len(sides) == 1 else sides))]
    every = candidates(found)
    tried = {ceiling.grid: ceiling for ceiling in ceilings}
    good = [grid for grid in every if grid in tried and tried[grid].reaches(request.target)]
    finest = every.index(good[0]) if good else len(every) - 1
    if not ceilings:
        finest = min(finest, _without_labels(found, every))
    return every[finest::-1]


UNLABELLED_SIDE = 256
"""2D: longer side of the grid where no labels say how fine it must be [ours]."""


def _without_labels(found: Fingerprint, every: Sequence[Grid]) -> int:
    if found.spatial_dims == 3:
        return len(every) - 1
    return max(i for i, grid in enumerate(every) if i == 0 or max(grid) <= UNLABELLED_SIDE)


def _options(
    found: Fingerprint, grid: Grid, request: Request
) -> Iterator[tuple[Configuration, float]]:
    """Configurations on a grid in order of preference, each with the least voxels of a patch that it is worth."""
    dims, given = found.spatial_dims, request.plan.size
    spacing = grid if dims == 3 else found.spacing
    whole = found.body_on(grid) if dims == 3 else grid
    ends = {
        "spatial_dims": dims,
        "in_channels": found.channels,
        "out_channels": request.classes or found.channels,
    }
    fixed = request.start
    if fixed is None and request.network is not None:
        fixed = resolve_network(request.network, **ends)
    for capacity in CAPACITIES if fixed is None else CAPACITIES[-1:]:
        for scale in SCALES if given is None else (1.0,):
            wanted = [max(8.0, n * scale) for n in whole]
            if scale < 1 and not _large_enough(wanted, whole, dims):
                break
            if given is not None:
                size = given * dims if len(given) == 1 else given
                if fixed is not None:
                    verify_size(size, fixed)
            elif fixed is not None:
                size = _rounded(wanted, fixed.size_multiple, up=scale == 1)
            else:
                size = fitting_size([math.ceil(n - 1e-6) for n in wanted])
            unet = fixed or capacity.network(
                size, spacing, in_channels=found.channels, out_channels=ends["out_channels"]
            )
            batch = request.training.batch_size or BATCH[request.kind, dims]
            film = tuple(float(max(n, p)) for n, p in zip(whole, size, strict=True))
            yield (
                Configuration(
                    grid=film if dims == 2 and request.plan.grid is None else grid,
                    size=size,
                    whole=film,
                    network=None if fixed else network_settings(unet),
                    unet=unet,
                    batch=batch,
                    micro=batch,
                    checkpointed=False,
                    capacity=capacity,
                ),
                0.0 if fixed or given else _least(capacity, whole),
            )


def _least(capacity: Capacity, whole: Sequence[float]) -> float:
    """Voxels that a patch must have for a capacity to be worth it."""
    dims, everything = len(whole), math.prod(whole)
    least = min(capacity.patch[dims - 2], everything)
    if dims == 2 and capacity is not CAPACITIES[-1]:
        least = max(least, everything / 4)  # half the sides: a film is one scene
    return least


def _rounded(wanted: Sequence[float], multiple: Sequence[int], *, up: bool) -> tuple[int, ...]:
    """A patch whose sides are multiples, at least 8."""
    sides = []
    for n, m in zip(wanted, multiple, strict=True):
        count = math.ceil(n / m - 1e-6) if up else round(n / m)
        sides.append(m * max(count, math.ceil(8 / m)))
    return tuple(sides)


def _large_enough(wanted: Sequence[float], whole: Sequence[float], dims: int) -> bool:
    enough = math.inf if dims == 2 else ENOUGH_SIDE
    sides = zip(wanted, whole, strict=True)
    return max(wanted) >= SMALLEST_PATCH[dims] and all(
        w >= min(LEAST_SHARE * n, enough) for w, n in sides
    )


def _into_memory(
    config: Configuration, facts: MachineFacts, request: Request, precision: Precision
) -> Configuration | None:
    """With as many images at once as memory holds; activations are recomputed only where none fits."""
    given = request.machine.checkpoint_activations
    most = request.training.micro_batch or config.batch
    for checkpointed in (False, True) if given is None else (given,):
        micro = most
        while micro >= 1:
            fitted = replace(config, micro=micro, checkpointed=checkpointed)
            if fitted.memory(facts, precision) <= facts.memory:
                return fitted
            if request.training.micro_batch is not None:
                break
            micro //= 2
    return None
