"""A plan as tables for a person: what is decided and why, and what the candidate grids allow."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...config import TrainingPlan
from ...data.plan import Plan, Structures
from ...data.scan import rounded, times
from ...data.steps import steps_in_words
from ..progress import duration

STRUCTURES = ("class", "size", "pieces", "thinnest")
"""Columns of the table of structures; the size is a volume, or an area of films."""
CEILING = "upper limit of Dice / surface Dice by grid, for any network: not the Dice to expect"
"""Title of the table of grids."""
MOST_CLASSES = 8
"""Classes that the table of grids shows: those that lose most on the coarsest."""


def format_plan(plan: Plan) -> RenderableType:
    """Decisions with their reasons, and the table of grids where there is one."""
    decisions = Table("", "plan", "why", box=None, pad_edge=False, header_style="bold")
    for name, value, why in rows(plan):
        decisions.add_row(Text(name, style="bold"), Text(value), Text(why, style="dim"))
    parts: list[RenderableType] = [decisions]
    if plan.structures is not None:
        title, held = structures(plan.structures)
        table = Table(*STRUCTURES, box=None, pad_edge=False)
        for row in held:
            table.add_row(*map(Text, row))
        parts += [Text(f"\n{title}", style="bold"), table]
    if plan.ceilings:
        names, limits = grids(plan)
        table = Table(box=None, pad_edge=False)
        table.add_column("class", no_wrap=True)
        ours = times((plan.film if plan.spatial_dims == 2 else plan.spacing) or ())
        for name in names:
            table.add_column(name, style="bold" if name == ours else "")
        for row in limits:
            table.add_row(*map(Text, row))
        parts += [Text(f"\n{CEILING}", style="bold"), table]
    return Group(*parts)


def rows(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Name, value and reason of every decision."""
    why = plan.reasons.get
    if plan.spatial_dims == 2:
        yield "grid", f"{times(plan.film)} px, {plan.resize}", why("grid", "")
    else:
        yield "spacing", f"{times(plan.spacing or ())} mm", why("spacing", "")
    if color := colored(plan):
        yield "channels", "1, gray", color
    whole = " (the whole film)" if plan.whole else ""
    yield "patch", f"{times(plan.size)}{whole}", why("size", "")
    ends = "window" if plan.intensity == "window" else "percentiles"
    yield "intensity", f"{ends} {plan.low:g} to {plan.high:g}", why("window", "")
    if "mirror" in plan.reasons:
        yield "mirroring", "left to right" if plan.mirror else "no", why("mirror", "")
    if plan.reasons.get("postprocess"):
        steps = steps_in_words(plan.postprocess, plan.classes, plan.spatial_dims)
        yield "after segmentation", steps, why("postprocess", "")
    if plan.shift is not None:
        stronger = f"{plan.shift:.3g} times the usual" if plan.shift != 1 else "the usual"
        yield "noise", stronger, why("shift", "")
    if plan.training is not None:
        yield from _of_training(plan.training, plan)


def slowed_in_words(training: TrainingPlan) -> str:
    """How much longer a training takes beside other work; '' where none had the cores when steps were timed."""
    if training.slowed == 1:
        return ""
    longer = f"training takes {training.slowed:.1f} times as long"
    return f"while this machine is as busy as when it was timed, {longer}"


def colored(plan: Plan) -> str:
    """How many of the images looked at are in color, for people; '' for none."""
    if plan.colored is None:
        return ""
    count, seen = plan.colored
    return f"{count} of the {seen} images looked at are in color, and are turned to gray"


def _of_training(training: TrainingPlan, plan: Plan) -> Iterator[tuple[str, str, str]]:
    why = plan.reasons.get
    network = training.network
    if network is None:
        yield "network", "as it is", why("network", "")
    else:
        text = network.preset or f"width {network.width}, levels of "
        text += " ".join(map(str, network.multipliers or ()))
        if network.strides:
            text += f", steps {' '.join(network.strides)}"
        if set(network.unshuffle or (1,)) != {1}:
            text += f", folds {times(network.unshuffle or ())}"
        yield "network", text, why("network", "")
    at_once = f", {training.micro_batch} at once" * (training.micro_batch < training.batch_size)
    yield (
        "batch",
        f"{training.batch_size}{at_once}",
        why("micro_batch" if at_once else "batch_size", ""),
    )
    yield "steps", f"{training.steps:,}", why("steps", "")
    if training.coarse:
        share = f"the first {100 * training.coarse:g} % of the steps"
        yield "half resolution", share, why("coarse", "")
    yield "precision", training.precision, why("precision", "")
    for name in ("checkpoint_activations", "compile"):
        if getattr(training, name):
            yield name.replace("_", " "), "yes", why(name, "")
    timed = filter(None, (why("minutes", ""), slowed_in_words(training)))
    yield "time", duration(60 * training.minutes), ": ".join(timed)
    yield "memory", f"{training.memory_gib:.1f} GiB", "predicted"


def structures(found: Structures) -> tuple[str, list[tuple[str, ...]]]:
    """What a table of the structures shows, and its rows of text in the order of ``STRUCTURES``."""
    title = f"structures in {found.unit}, medians over the cases that have them"
    if found.anisotropy > 1:
        title += f"; the coarsest axis is {found.anisotropy:g} times the finest"
    rows = [(name, *map(rounded, row)) for name, row in found.classes.items()]
    return title, rows


def grids(plan: Plan) -> tuple[list[str], list[tuple[str, ...]]]:
    """Names of the grids, from the coarsest on; and of the classes that lose most there, name and scores as text."""
    coarsest = plan.ceilings[0]["classes"]
    worst = sorted(coarsest, key=lambda name: coarsest[name][1])[:MOST_CLASSES]
    rows = [
        (name, *("{:.3f} / {:.3f}".format(*row["classes"][name]) for row in plan.ceilings))
        for name in coarsest
        if name in worst
    ]
    return [times(row["grid"]) for row in plan.ceilings], rows
