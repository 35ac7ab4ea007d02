"""The plan of a training: a pure function of the fingerprint, the machine, the time and what is given.

What is given stays; the rest is decided in this order. The grid is the coarsest on which every class can still be drawn
well (``data.ceiling``), or a coarser one where time or memory do not allow it. On it the patch is as large, and then
the network as large, as memory holds and as can see enough images in the time; where a network as large can see whole
films on a grid up to twice as fine, it does. Steps fill the hours, or make a stated number of passes over the images.
On a card a step then has more images where that costs little time. Each decision comes with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...data.ceiling import Ceiling, Grid
from ...data.fingerprint import Fingerprint
from ...errors import InputError
from ..progress import duration
from .capacities import CAPACITIES
from .configuration import (
    BASE,
    Configuration,
    Configured,
    Measured,
    Request,
    samples_of,
)
from .grids import finer_grids, grids_of
from .larger_batch import larger_batch
from .machine import GIB, MachineFacts, Pace, Precision
from .options import options
from .reasons import decision_of

LEAST_SEEN = 0.25
"""Share of the images that a network needs with which it is still trained, where time allows no more [ours]."""
MEASURED_FROM = 30.0
"""Seconds of a predicted training, without hours given, from which it is worth measuring."""
SLOWER = {"cpu": 1.0, "accelerator": 10.0}
"""By how much a machine may be slower than is thought before it is measured: ``GPU_RATE`` is that of a fast card."""
LESS = 0.75
"""What is tried after a step that did not fit takes this share of the memory, if there is any such: otherwise a card
that others have filled would be tried hundreds of times [ours]."""
MOST_MEASURED = {"cpu": 3, "accelerator": 6}
"""Configurations that are measured, so that this takes less than a minute where no other work takes the cores."""

Measure = Callable[[Configuration, Precision], Measured | None]
"""Measures steps of a configuration in an arithmetic; None: they do not fit into memory."""
Verify = Callable[[Configuration, Precision], None]
"""Raises InputError where a setting takes no effect with a configuration."""
Whole = Callable[[Configuration, Precision], bool]
"""Whether a configuration learns from its batch as a whole; all of a training do, or none."""


def configure(
    found: Fingerprint,
    ceilings: Sequence[Ceiling],
    facts: MachineFacts,
    request: Request,
    measure: Measure | None = None,
    verify: Verify | None = None,
    whole: Whole | None = None,
) -> Configured:
    """Plan a training.

    Args:
        found: The data.
        ceilings: What grids allow, from the coarsest on; () without labels.
        facts: The machine to plan for.
        request: What is to be trained.
        measure: Measures steps on this machine; None: its speed is taken from ``facts``.
        verify: Configurations that it refuses are passed over; None: it refuses none.
        whole: Tells whether smaller passes would learn something else, and are not planned; None: they would not.

    Raises:
        InputError: Steps and hours are both given, the hours are over, nothing fits into memory, or ``verify`` refuses
            all that does.
    """
    precision = facts.arithmetic(request.machine.precision)
    search = _Search(found, ceilings, facts, request, precision, verify, whole)
    pace, timed = Pace.of((), facts), list[tuple[float, float]]()
    kind = "cpu" if facts.device == "cpu" else "accelerator"
    while True:
        _verify_hours(request)
        config = search.choose(pace)
        if measure is None or config in search.seen:
            break
        seconds = pace.seconds(config.operations)
        if request.hours is None and not search.seen and search.failed is None:
            images, _ = samples_of(request, config, seconds)
            steps = request.training.steps or images / config.batch
            if steps * seconds * SLOWER[kind] < MEASURED_FROM:
                break
        result = measure(config, search.precision)
        if result is None:
            search.failed = config
            continue
        search.seen[config] = result
        search.ends = len(search.seen) == MOST_MEASURED[kind]
        timed.append((config.operations, result.seconds))
        pace = Pace.of(timed, facts)
    if measure is not None and config in search.seen:
        config = larger_batch(config, request, facts, search.precision, search.seen, measure)
    return decision_of(
        found,
        ceilings,
        facts,
        request,
        config,
        search.seconds(config, pace),
        measured=search.seen.get(config),
        precision=search.precision,
    )


def _verify_hours(request: Request) -> None:
    if request.hours is None:
        return
    where = f"--hours {request.hours:g}"
    if request.training.steps is not None:
        problem = f"would be ignored: --training.steps {request.training.steps} is given"
        raise InputError(where, problem, "Leave one of them out")
    if request.budget <= 0:
        problem = f"was over before training began: {duration(request.passed())} went by"
        raise InputError(where, problem, "Give more")


# ------------------------------------------------------------------------------------------------ grid, patch, network


@dataclass
class _Search:
    """What is planned for, and what was found out about it.

    Attributes:
        precision: Arithmetic.
        verify, whole: See ``configure``.
        seen: What was measured.
        failed: The last configuration that did not fit when it was tried: others must take less memory.
        ends: Whether only what was measured is chosen from now on.
    """

    found: Fingerprint
    ceilings: Sequence[Ceiling]
    facts: MachineFacts
    request: Request
    precision: Precision
    verify: Verify | None
    whole: Whole | None
    seen: dict[Configuration, Measured] = field(default_factory=dict)
    failed: Configuration | None = None
    ends: bool = False

    @cached_property
    def is_whole(self) -> bool:
        """Whether smaller passes would learn something else; it is found out where one pass does not fit."""
        if self.whole is None:
            return False
        *_, grid = grids_of(self.found, self.ceilings, self.request)
        *_, (least, _) = options(self.found, grid, self.request, self.facts.processes)
        return self.whole(least, self.precision)

    def seconds(self, config: Configuration, pace: Pace) -> float:
        """Of a step: as measured, else by the pace."""
        measured = self.seen.get(config)
        return measured.seconds if measured else pace.seconds(config.operations)

    def choose(self, pace: Pace) -> Configuration:
        """See ``_choose``.

        Raises:
            InputError: Nothing fits into memory, or ``verify`` refuses all that does.
        """
        refused: list[InputError] = []
        rooms = [math.inf]
        if self.failed is not None:
            base, full = BASE[self.facts.device], self.failed.memory(self.facts, self.precision)
            rooms = [base + LESS * (full - base), full]
        for room in rooms:
            if (config := self._choose(pace, room, refused)) is not None:
                return config
        if self.failed is not None:
            problem = (
                f"does not hold a training step of {self.failed.words}, the least that was tried"
            )
            remedy = (
                "Free it of other programs, lower --size, --network.width or --batch-size, set "
                f"--machine.precision bf16-mixed, {self._passes}or use a machine with more"
            )
            raise InputError(f"memory of {self.facts.name}", problem, remedy)
        if refused:
            raise refused[0]
        problem = f"no network fits into {self.facts.memory / GIB:.1f} GiB of free memory"
        lower = (
            "--size, --network.width or --batch-size"
            if self._passes
            else "--size or --network.width"
        )
        remedy = f"Lower {lower}, {self._passes}or use a machine with more memory"
        raise InputError("--plan", problem, remedy)

    @property
    def _passes(self) -> str:
        """The remedy that is left to a person."""
        lower = "give a smaller --micro-batch, which changes what is learned a little, "
        return lower * self.is_whole

    def _choose(self, pace: Pace, room: float, refused: list[InputError]) -> Configuration | None:
        """The first grid, patch and network in order of preference that memory and time allow; None: nothing fits.

        Where time allows none: for volumes, the first smallest network that sees a quarter of the images it needs; else
        the fastest on the coarsest grid, of the patches that are worth it, for a small part of a fine grid would see
        less.

        Args:
            pace: How long steps take that were not measured.
            room: Bytes that it takes less than.
            refused: The errors of ``verify`` are added to it.
        """
        request = self.request
        last: Configuration | None = None
        hurried: Configuration | None = None
        smallest = (True, 0, math.inf)
        for place, grid in enumerate(grids_of(self.found, self.ceilings, request)):
            for one in self._tried(grid, pace, room, refused):
                if one.fits(request):
                    return self._finer(one.config, pace, room, refused) or one.config
                small = self.found.spatial_dims == 3 and one.config.capacity is CAPACITIES[-1]
                if small and one.enough and one.seconds * LEAST_SEEN <= request.budget:
                    hurried = hurried or one.config
                rank = (not one.enough, -place, one.seconds)
                if rank < smallest and one.worth:
                    last, smallest = one.config, rank
        return hurried or last

    def _finer(
        self, base: Configuration, pace: Pace, room: float, refused: list[InputError]
    ) -> Configuration | None:
        """One of a network as large, or larger, on a finer grid than suffices; None: memory and time allow none."""
        last = -1 if self.request.own else CAPACITIES.index(base.capacity)
        networks = (*CAPACITIES[:last], CAPACITIES[last])
        for grid, halves in finer_grids(self.found, self.ceilings, self.request):
            for one in self._tried(grid, pace, room, refused, finer=True, halves=halves):
                if one.config.capacity in networks and one.fits(self.request):
                    return one.config
        return None

    def _tried(
        self,
        grid: Grid,
        pace: Pace,
        room: float,
        refused: list[InputError],
        *,
        finer: bool = False,
        halves: bool = False,
    ) -> Iterator[_Tried]:
        """What memory allows on a grid, in order of preference; see ``options``."""
        request = self.request
        tried = options(self.found, grid, request, self.facts.processes, finer=finer, halves=halves)
        for config, least in tried:
            fitted = self._into_memory(config, room)
            if fitted is None or not self._allowed(fitted, refused):
                continue
            samples, worth = round(fitted.samples * request.more), True
            if request.training.steps is not None:
                given = request.training.steps * fitted.batch
                worth = given >= samples or (fitted.capacity is CAPACITIES[-1] and not finer)
                samples = given
            seconds = self.seconds(fitted, pace) * fitted.paid * samples / fitted.batch
            yield _Tried(fitted, seconds, math.prod(fitted.size) >= least, worth)

    def _allowed(self, config: Configuration, refused: list[InputError]) -> bool:
        if self.verify is None:
            return True
        try:
            self.verify(config, self.precision)
        except InputError as error:
            refused.append(error)
            return False
        return True

    def _into_memory(self, config: Configuration, room: float) -> Configuration | None:
        """With as many images at once as memory holds; activations are recomputed only where none fits.

        As training does by itself, it has fewer at once than are given only where these did not fit when tried, and
        never where smaller passes would learn something else.
        """
        given = self.request.machine.checkpoint_activations
        most = self.request.training.micro_batch
        for checkpointed in (False, True) if given is None else (given,):
            micro = most or config.batch
            while micro >= 1:
                fitted = replace(config, micro=micro, checkpointed=checkpointed)
                needed = fitted.memory(self.facts, self.precision)
                if fitted in self.seen:
                    return fitted
                if needed <= self.facts.memory and needed < room and not self.ends:
                    return fitted
                if most is not None and (self.failed is None or needed > self.facts.memory):
                    break
                if micro > 1 and self.is_whole:
                    break
                micro //= 2
        return None


@dataclass(frozen=True)
class _Tried:
    """A configuration that memory allows.

    Attributes:
        seconds: Of a training of the images that it needs.
        enough: Whether the patch is large enough for the network.
        worth: Whether given steps are.
    """

    config: Configuration
    seconds: float
    enough: bool
    worth: bool

    def fits(self, request: Request) -> bool:
        """Whether time allows it, and it is worth it."""
        return self.seconds <= request.budget and self.enough and self.worth
