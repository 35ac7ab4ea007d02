"""What was chosen as a plan, each decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...config import TrainingPlan
from ...data.ceiling import Ceiling, sufficient
from ...data.fingerprint import Fingerprint
from ...data.scan import times
from ..open_settings import usual_batch
from .configuration import AT_WORK, Configuration, Configured, Measured, Request, samples_of
from .machine import GIB, MachineFacts, Precision

COMPILE_MINUTES = 15
"""torch.compile pays on a GPU where a training takes longer. It is not measured, for it compiles longer than planning
may take: about a minute on a GPU, two to four on a processor."""


def decision_of(
    found: Fingerprint,
    ceilings: Sequence[Ceiling],
    facts: MachineFacts,
    request: Request,
    config: Configuration,
    seconds: float,
    *,
    measured: Measured | None,
    precision: Precision,
) -> Configured:
    """The plan of a configuration, one step of which takes ``seconds``, as ``measured`` or by the machine's rate."""
    training, given = request.training, request.machine
    samples, why_steps = samples_of(request, config, seconds)
    steps = training.steps or max(1, round(samples / config.batch))
    minutes = steps * seconds * config.paid / 60 / AT_WORK
    compiled = given.compile
    if compiled is None:
        compiled = facts.device == "cuda" and minutes > COMPILE_MINUTES
    decided = TrainingPlan(
        network=config.network,
        batch_size=config.batch,
        micro_batch=config.micro,
        steps=steps,
        precision=precision,
        checkpoint_activations=config.checkpointed,
        compile=compiled,
        minutes=round(minutes, 2),
        memory_gib=round(config.memory(facts, precision) / GIB, 2),
        slowed=round(measured.slowed, 2) if measured is not None and measured.busy else 1.0,
        coarse=config.coarse,
    )
    plan = replace(request.plan, **config.placed)
    reasons = {
        "grid" if found.spatial_dims == 2 else "spacing": "; ".join(
            filter(None, (_why_grid(found, ceilings, request, config), found.taken))
        ),
        "size": "given" if request.plan.size else _why_patch(config, found),
        "network": "given" if config.network is None else _why_network(config),
        "batch_size": _why_batch(request, facts, config),
        "steps": "given" if training.steps else why_steps,
        **({"coarse": _why_coarse(request)} if config.coarse else {}),
        **_of_machine(facts, request, config),
        "minutes": f"{seconds:.3g} s per step, {_how_known(facts, measured)}",
    }
    return Configured(plan, decided, reasons)


def _why_batch(request: Request, facts: MachineFacts, config: Configuration) -> str:
    if request.training.batch_size:
        return "given"
    if config.batch > usual_batch(request.kind, len(config.size), facts.processes):
        return "more than usual: each doubling was half as many images again per second, or more"
    return "as many per step as a rule"


def _why_coarse(request: Request) -> str:
    if request.training.coarse is not None:
        return "given"
    return "each takes a quarter of the time, and what is learned there serves at full resolution"


def _how_known(facts: MachineFacts, measured: Measured | None) -> str:
    if measured is None:
        source = "as given" if facts.described else "as a rule of such machines"
        rate = f"{facts.rate / 1e12:.3g} TFLOP/s (10^12 operations a second)"
        return f"not measured: at {rate}, {source}"
    return "measured here" + " and planned as if nothing else ran" * measured.busy


def _of_machine(facts: MachineFacts, request: Request, config: Configuration) -> dict[str, str]:
    given = request.machine
    saved = "one image would not fit otherwise" if config.checkpointed else "memory suffices"
    return {
        "micro_batch": "given"
        if request.training.micro_batch == config.micro
        else f"what fits into {facts.memory / GIB:.1f} GiB",
        "precision": "given" if given.precision != "auto" else facts.why_precision,
        "checkpoint_activations": "given" if given.checkpoint_activations is not None else saved,
        "compile": "given"
        if given.compile is not None
        else f"pays on a GPU from {COMPILE_MINUTES} minutes on"
        if facts.device == "cuda"
        else "not measured: a processor compiles for minutes, longer than planning may take",
    }


def _why_grid(
    found: Fingerprint, ceilings: Sequence[Ceiling], request: Request, config: Configuration
) -> str:
    given = (
        request.plan.spacing
        or request.plan.grid
        or (request.plan.size if found.spatial_dims == 2 else None)
    )
    enough = sufficient(ceilings, request.target) if config.finer else None
    reached = enough or next((c for c in ceilings if c.grid == config.grid), None)
    text = ""
    if reached is not None:
        dice, surface = (float(np.nanmin(v)) for v in (reached.dice, reached.surface))
        worst = found.classes[int(np.nanargmin(reached.dice))].name
        text = f"the grid alone limits Dice to {dice:.3f} ({worst}), surface Dice to {surface:.3f}"
    if given:
        return f"given; {text}" if text else "given"
    if reached is None:
        where = "the median" if found.spatial_dims == 3 else "the usual one without labels"
        return f"{where}; labels would say how fine it must be"
    if enough is not None:
        coarse = times(enough.grid)
        return (
            f"time allows a finer one than suffices for a perfect network, {coarse}, where {text}"
        )
    if reached.reaches(request.target):
        return f"the coarsest that suffices: {text}"
    return f"as fine as time and memory allow: {text}"


def _why_patch(config: Configuration, found: Fingerprint) -> str:
    if len(config.size) == 2 and config.patches == 1 and config.placed["grid"] is not None:
        return "as much of the given grid as the network can halve"
    if config.patches == 1:
        return "the whole film" if found.spatial_dims == 2 else "the whole body"
    return f"as large as time and memory allow; {config.patches} of them cover an image"


def _why_network(config: Configuration) -> str:
    pairs = zip(config.size, config.unet.size_multiple, strict=True)
    left = "x".join(str(n // m) for n, m in pairs)
    levels = len(config.unet.multipliers)
    return (
        f"the largest that sees enough images in the time; {levels} levels leave {left} positions"
    )
