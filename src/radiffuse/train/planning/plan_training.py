"""From the settings of a command to its plan, once, before anything is prepared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from ...config import Fit, PlanSettings, Pretrain, UNetConfig
from ...data.ceiling import TARGET, Ceiling, candidates, find_ceilings
from ...data.dataset import Dataset
from ...data.fingerprint import Fingerprint, take_fingerprint
from ...data.issues import Issues, say
from ...data.plan import Plan, class_of_step, make_plan
from ...system.saying import say as tell
from ...system.saying import soon
from ..open_settings import Settings, network_is_open
from ..task import BatchesByStep, Task
from .configuration import Configuration, Configured, Measured, Request
from .machine import MachineFacts, Precision, facts_of
from .measuring import Blank, is_whole, measure_steps, remembered
from .search import Measure, Verify, Whole, configure

Found = TypeVar("Found")
Trial = Callable[[Blank, Settings], tuple[Task, BatchesByStep]]
"""Makes what is trained by the plan of blank arrays and by settings, to time a few steps of it."""


UNTIMED = {
    "data", "out", "from_run", "weights", "labels", "draw", "with_run", "split", "finetune", "hours", "plan", "reader",
    "for_run", "limit",
}  # fmt: skip
"""Settings that no step takes longer by, beyond what the plan and the network to start from say."""


@dataclass(frozen=True)
class Subject:
    """What a training is planned for.

    Attributes:
        kind: ``"fit"`` or ``"pretrain"``.
        dataset: The cases that say what grid is needed.
        images: Cases to train on.
        labelled: Whether its label maps are looked at.
        segments: Whether its classes are learned.
        start: The network that is trained as it is; None: that of the settings, or an open one.
        plan: Of the run to start from, whose intensities stay; None without.
        own: Whose the network is where it is no U-Net of the settings, in words; '' where it is.
        halves, more: See ``configuration.Request``.
        counted: Names of the cases whose pieces are counted; None: of all.
        began: When the command did, by the monotonic clock, since when its hours pass; None: they begin with training.
        verify: Refuses settings that take no effect with a plan, which is then not chosen; None: all take effect.
        seen: What was found out about these cases for another plan, and is found out now.
    """

    kind: Literal["fit", "pretrain"]
    dataset: Dataset
    images: int
    labelled: bool
    segments: bool
    start: UNetConfig | None = None
    plan: Plan | None = None
    own: str = ""
    halves: bool = False
    more: float = 1.0
    counted: frozenset[str] | None = None
    began: float | None = None
    verify: Callable[[Any, Plan], None] | None = None
    seen: dict[Any, Any] = field(default_factory=dict)

    def passed(self) -> float:
        """Seconds since the command began; 0 where that does not matter."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def once(self, what: object, find: Callable[[], Found]) -> Found:
        """What was seen before, or is found now."""
        if what not in self.seen:
            self.seen[what] = find()
        found: Found = self.seen[what]
        return found


def plan_training(
    settings: Settings, subject: Subject, trial: Trial[Settings], cache: Path, *, keep: bool
) -> Plan:
    """The plan of a training, with what is decided about it where the settings leave something open.

    Args:
        settings: Of the command.
        subject: What it is for.
        trial: Makes what is trained, for timing it.
        cache: Folder of what was measured before.
        keep: Whether what is measured now is kept there.

    Raises:
        InputError: Data or settings that cannot be used, or nothing fits into memory.
    """
    workers = settings.machine.workers
    found = subject.once("fingerprint", lambda: _found(settings, subject))
    base = _base(settings, subject, found)
    training, given = settings.training, settings.plan
    free = not subject.own and subject.start is None and network_is_open(settings.network)
    is_given = (given.size, training.steps, training.batch_size)
    machine = settings.machine
    asked = settings.hours, machine.memory, machine.rate
    if not free and all(is_given) and all(value is None for value in asked):
        return base
    wanted = _target(given)
    grids = candidates(found)
    grids = [_grid_of(base)] if given.size or given.grid or given.spacing else grids
    ceilings = subject.once(
        (tuple(grids), wanted),
        lambda: find_ceilings(subject.dataset, found, grids, target=wanted, workers=workers),
    )
    request = Request(
        kind=subject.kind,
        images=subject.images,
        classes=len(base.classes) if subject.segments else 0,
        plan=given,
        training=training,
        machine=settings.machine,
        network=None if free or subject.own else settings.network,
        own=bool(subject.own),
        start=subject.start,
        hours=settings.hours,
        passed=subject.passed,
        halves=subject.halves,
        more=subject.more,
        target=wanted,
    )
    soon("planning: what fits the data, the machine and the time")
    facts = facts_of(settings.machine)
    remember = partial(remembered, cache, keep=keep)
    measure = _measuring(settings, subject, base, facts, trial, remember)
    configured = configure(
        *(found, ceilings, facts, request),
        None if facts.described else measure,
        _verifying(settings, subject, base),
        _asking(settings, subject, base, trial),
    )
    return _planned(base, configured, ceilings, found, subject)


# ------------------------------------------------------------------------------------------------ internal


def _found(settings: Fit | Pretrain, subject: Subject) -> Fingerprint:
    """The fingerprint of the cases; what is only taken for known is said."""
    found = take_fingerprint(
        subject.dataset,
        labelled=subject.labelled,
        skip_bad=settings.reader.skip_bad,
        workers=settings.machine.workers,
        counted=subject.counted,
    )
    if found.taken:
        issues = Issues()
        problem = "has volumes that do not say how large their voxels are"
        remedy = "Each voxel is taken for 1 mm; write the sizes into the files that radiffuse check names"
        issues.warning(subject.dataset.root, problem, remedy)
        say(issues)
    return found


def _base(settings: Fit | Pretrain, subject: Subject, found: Fingerprint) -> Plan:
    """The plan but for what depends on the machine."""
    given, source = settings.plan, subject.plan
    taken = source and source.postprocess and given.postprocess in (None, source.postprocess)
    if taken:
        given = replace(given, postprocess=None)
    plan = make_plan(subject.dataset, given, labelled=subject.segments, found=found)
    if source is not None:
        as_there = "as in the run to start from"
        names = ("intensity", "low", "high", "crop", "resize")
        values, why = {name: getattr(source, name) for name in names}, {"window": as_there}
        if taken:
            most = max(len(plan.classes) - 1, 0)  # of what was for a class that is not there
            steps = tuple(step for step in source.postprocess if class_of_step(step) <= most)
            values["postprocess"], why["postprocess"] = steps, as_there
        plan = replace(plan, **values, reasons=plan.reasons | why)
    return plan


def _target(given: PlanSettings) -> tuple[float, float]:
    if given.ceiling is None:
        return TARGET
    dice, surface = (*given.ceiling, given.ceiling[-1])[:2]
    return dice, surface


def _grid_of(plan: Plan) -> tuple[float, ...]:
    return plan.spacing if plan.spacing is not None else tuple(float(n) for n in plan.film)


def _tried(
    settings: Settings, base: Plan, config: Configuration, precision: Precision
) -> tuple[Plan, Settings]:
    """Under what a configuration is timed: its plan, and settings without compilation, seed or number of steps."""
    training = replace(
        settings.training, steps=1, batch_size=config.batch, micro_batch=config.micro, seed=0
    )
    machine = replace(
        settings.machine,
        precision=precision,
        checkpoint_activations=config.checkpointed,
        compile=False,
    )
    network = settings.network
    if config.network is not None:
        network = replace(config.network, dropout=network.dropout)
    tried = replace(settings, training=training, machine=machine, network=network)
    return replace(base, **config.placed), tried


def _planned(
    base: Plan,
    configured: Configured,
    ceilings: Sequence[Ceiling],
    found: Fingerprint,
    subject: Subject,
) -> Plan:
    chosen = configured.plan
    assert chosen.size is not None
    training, reasons = configured.training, base.reasons | configured.reasons
    if subject.own:
        reasons["network"] = subject.own
    elif subject.start is not None:
        reasons["network"] = "that of the run to start from"
    names = [row.name for row in found.classes]
    return replace(
        base,
        size=chosen.size,
        grid=chosen.grid,
        spacing=chosen.spacing,
        training=training,
        reasons=reasons,
        ceilings=tuple(ceiling.row(names) for ceiling in ceilings),
    )


def _verifying(settings: Settings, subject: Subject, base: Plan) -> Verify | None:
    """What refuses configurations with which settings take no effect."""
    if (refuse := subject.verify) is None:
        return None

    def verify(config: Configuration, precision: Precision) -> None:
        plan, tried = _tried(settings, base, config, precision)
        refuse(tried, plan)

    return verify


def _shape(plan: Plan, config: Configuration) -> tuple[int, ...]:
    """Voxels of the arrays that stand for prepared ones."""
    if plan.spatial_dims == 2:
        return plan.film
    return tuple(max(round(n), p) for n, p in zip(config.whole, config.size, strict=True))


def _asking(settings: Settings, subject: Subject, base: Plan, trial: Trial[Settings]) -> Whole:
    """What makes a configuration, to ask whether it learns from its batch as a whole."""

    def whole(config: Configuration, precision: Precision) -> bool:
        plan, tried = _tried(settings, base, config, precision)
        blank = Blank.like(plan, _shape(plan, config), labelled=subject.segments)
        return is_whole(lambda: trial(blank, tried), tried.machine)

    return whole


def _measuring(
    settings: Settings,
    subject: Subject,
    base: Plan,
    facts: MachineFacts,
    trial: Trial[Settings],
    remember: Callable[..., Measured | None],
) -> Measure:
    """What times steps of a configuration, or remembers them."""

    def measure(config: Configuration, precision: Precision) -> Measured | None:
        plan, tried = _tried(settings, base, config, precision)
        shape = _shape(plan, config)
        shared = facts.processes if config.batch % facts.processes == 0 else 1
        known = {
            "torch": torch.__version__,
            "machine": facts.name,
            "threads": torch.get_num_threads(),
            "plan": plan.treatment | {"size": plan.size},
            "shape": shape,
            "settings": {k: v for k, v in vars(tried).items() if k not in UNTIMED},
            "start": subject.start,
            "processes": shared,
        }

        def now() -> Measured | None:
            soon(f"planning: timing a few steps of {config.words}")
            blank = Blank.like(plan, shape, labelled=subject.segments)
            result = measure_steps(
                lambda: trial(blank, tried), tried.training, tried.machine, shared
            )
            if result is None:
                problem = "does not fit into memory; planning goes on with less"
                tell(f"a step of {config.words} {problem}")
            return result

        return subject.once(repr(known), lambda: remember(known, now))

    return measure
