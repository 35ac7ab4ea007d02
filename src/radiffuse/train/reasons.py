"""What was chosen as a plan, each decision with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..config import TrainingPlan
from ..data.ceiling import Ceiling
from ..data.fingerprint import Fingerprint
from .choices import AT_WORK, Choice, Decision, Measured, Request, samples_of
from .machine import GIB, MachineFacts, Precision

COMPILE_MINUTES = 15
"""torch.compile pays on a GPU where a training takes longer. It is not measured, for it compiles longer than planning
may take: about a minute on a GPU, two to four on a processor."""


def decision_of(
    found: Fingerprint,
    ceilings: Sequence[Ceiling],
    facts: MachineFacts,
    request: Request,
    choice: Choice,
    seconds: float,
    *,
    measured: Measured | None,
    precision: Precision,
) -> Decision:
    """The plan of a choice, one step of which takes ``seconds``, as ``measured`` or by the machine's rate."""
    training, given = request.training, request.machine
    samples, why_steps = samples_of(request, choice, seconds)
    steps = training.steps or max(1, round(samples / choice.batch))
    minutes = steps * seconds / 60 / AT_WORK
    compiled = given.compile
    if compiled is None:
        compiled = facts.device == "cuda" and minutes > COMPILE_MINUTES
    decided = TrainingPlan(
        network=choice.network,
        batch_size=choice.batch,
        micro_batch=choice.micro,
        steps=steps,
        precision=precision,
        checkpoint_activations=choice.checkpointed,
        compile=compiled,
        minutes=round(minutes, 2),
        memory_gib=round(choice.memory(facts, precision) / GIB, 2),
    )
    plan = replace(request.plan, **choice.placed)
    reasons = {
        "grid" if found.spatial_dims == 2 else "spacing": "; ".join(
            filter(None, (_why_grid(found, ceilings, request, choice), found.taken))
        ),
        "size": "given" if request.plan.size else _why_patch(choice, found),
        "network": "given" if choice.network is None else _why_network(choice),
        "batch_size": "given" if training.batch_size else "as many per step as a rule",
        "steps": "given" if training.steps else why_steps,
        **_of_machine(facts, request, choice),
        "minutes": f"{seconds:.3g} s per step, {_how_known(facts, measured)}",
    }
    return Decision(plan, decided, reasons)


def _how_known(facts: MachineFacts, measured: Measured | None) -> str:
    if measured is None:
        return f"at {facts.rate / 1e12:.3g} TFLOP/s"
    if not measured.busy:
        return "measured here"
    return (
        "measured here and planned as if nothing else ran: while this machine is as busy as now, "
        f"training takes {measured.slowed:.1f} times as long"
    )


def _of_machine(facts: MachineFacts, request: Request, choice: Choice) -> dict[str, str]:
    given = request.machine
    saved = "one image would not fit otherwise" if choice.checkpointed else "memory suffices"
    return {
        "micro_batch": "given"
        if request.training.micro_batch
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
    found: Fingerprint, ceilings: Sequence[Ceiling], request: Request, choice: Choice
) -> str:
    given = (
        request.plan.spacing
        or request.plan.grid
        or (request.plan.size if found.spatial_dims == 2 else None)
    )
    reached = next((c for c in ceilings if c.grid == choice.grid), None)
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
    if reached.reaches(request.target):
        return f"the coarsest that suffices: {text}"
    return f"as fine as time and memory allow: {text}"


def _why_patch(choice: Choice, found: Fingerprint) -> str:
    if choice.patches == 1:
        return "the whole film" if found.spatial_dims == 2 else "the whole body"
    return f"as large as time and memory allow; {choice.patches} show a whole image"


def _why_network(choice: Choice) -> str:
    pairs = zip(choice.size, choice.unet.size_multiple, strict=True)
    left = "x".join(str(n // m) for n, m in pairs)
    levels = len(choice.unet.multipliers)
    return (
        f"the largest that sees enough images in the time; {levels} levels leave {left} positions"
    )
