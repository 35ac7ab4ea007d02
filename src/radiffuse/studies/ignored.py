"""Given settings of a study that some of its methods do not use: said by name, or refused where none uses them.

What a single command would refuse stands in a study for several: ``--diffusion.diffusion.image-share`` is for rows that
are trained from scratch, and does nothing to those that start from a pre-trained run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple

from ..config import Fit, Network, Pretrain, Study
from ..config.effect import idle
from ..config.given import flag, given, refuse
from ..config.studying import USED_BY
from ..config.values import flatten, from_dict, to_dict
from ..objectives import OBJECTIVES
from ..objectives.probing import TIMESTEPS
from ..train.start import find_pretrained
from .methods import (
    DENOISER,
    DRAWER,
    METHODS,
    STARTS,
    StudyMethod,
    by_start,
    group_of,
    shared_start,
    variants,
)

FREE = ("reader", "machine", "split", "hours")
"""What is common to all methods, also to nnU-Net."""
BY_NAME = tuple(name for name in USED_BY if "." in name)
"""Those whose name says which methods they are for."""
A_RUN = "RUN"
"""Stands for a run that is not there yet."""


class Row(NamedTuple):
    """What one method does with a group of settings: those without effect, by name or group, and why."""

    group: str
    name: str
    idle: Mapping[str, str]


def unused(settings: Study) -> list[str]:
    """Sentences that name each given setting that some methods do not use.

    Raises:
        InputError: No method uses one; it names the setting.
    """
    rows = [*_of_methods(settings, _shared(settings)), *_of_starts(settings)]
    return [
        sentence
        for group in dict.fromkeys(row.group for row in rows)
        for sentence in _of_group(settings, group, [row for row in rows if row.group == group])
    ]


# ------------------------------------------------------------------------------------------------ internal


def _of_group(settings: Study, group: str, rows: list[Row]) -> Iterator[str]:
    values, usual = getattr(settings, group), getattr(Study(), group)
    flags: dict[tuple[str, str], list[str]] = {}
    for name in dict(flatten(to_dict(values))):
        full = f"{group}.{name}"
        typed = dict(given(values, usual, name))
        if _within(name, FREE) or _within(full, BY_NAME) or not typed:
            continue
        whys = {row.name: _why(name, row.idle) for row in rows}
        every = [why for why in dict.fromkeys(whys.values()) if why]
        plain = [why for why in every if not why.startswith("is for ")]
        if all(whys.values()):
            refuse(full, "; ".join(plain) or every[0], typed=typed[name])
            continue
        for why in plain:
            names = ", ".join(method for method, its in whys.items() if its == why)
            flags.setdefault((names, why), []).append(f"--{flag(full)}")
    for (names, why), same in flags.items():
        verb = "takes" if len(same) == 1 else "take"
        yield f"{', '.join(same)} {verb} no effect on {names}, since {why}"


def _why(name: str, reasons: Mapping[str, str]) -> str | None:
    return next((why for key, why in reasons.items() if _within(name, (key,))), None)


def _within(name: str, groups: Any) -> bool:
    """Whether a setting is one of those named, or in one of these groups."""
    return any(f"{name}.".startswith(f"{group}.") for group in groups)


def _of_methods(settings: Study, shared: Mapping[str, Any]) -> Iterator[Row]:
    """The rows of the settings of ``fit``; ``shared`` of the pre-trained run, see ``_shared``."""
    seen = set()
    names = dict.fromkeys((*settings.methods, *sorted(settings.trained)))
    rows = [METHODS[name] for name in names]
    names |= dict.fromkeys(["finetune"] if any(row.taught for row in rows) else [])
    names |= dict.fromkeys([DRAWER] if any(row.pool == "pairs" for row in rows) else [])
    for variant in variants(replace(settings, methods=(*names,))):
        row, group = variant.row, group_of(variant)
        if (group, variant.method) in seen or row.segments == "ensemble":
            continue
        seen.add((group, variant.method))
        base: Fit = getattr(settings, group)
        if row.segments == "nnunet":
            others = [name for name in vars(base) if name not in FREE]
            yield Row(group, variant.method, dict.fromkeys(others, "nnU-Net has its own choices"))
            continue
        pool = row.pool not in (None, "pairs")
        fit = replace(
            base,
            method="probe" if variant.head else row.fit,
            from_run=A_RUN if row.start else None,
            unlabelled=(A_RUN,) if pool else (),
            labels=1,
        )
        if row.strategy:
            fit = replace(fit, diffusion=replace(fit.diffusion, strategy=row.strategy))
        yield Row(group, variant.method, idle(fit) | dict(_set(settings, row, group, shared)))


def _set(
    settings: Study, row: StudyMethod, used: str, shared: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """What the study sets otherwise than the group of settings says, and why."""
    base: Fit = getattr(settings, used)
    objective = (row.start and STARTS[row.start].objective) or settings.pretrain.objective
    known = row.start is not None and (row.start != DENOISER or not settings.from_run)
    timeless = known and not OBJECTIVES[objective].noised
    why = "the pre-trained network knows no timesteps"
    if used == "probing":
        if timeless:
            yield from ((f"probe.{name}", why) for name in TIMESTEPS.split())
        return
    if timeless:
        yield "finetune.timestep", why
    if shared:
        for name in dict(flatten({key: to_dict(base)[key] for key in shared})):
            group, _, leaf = name.partition(".")
            value, theirs = attrgetter(name)(base), attrgetter(leaf)(shared[group])
            one = isinstance(value, tuple) and len(value) == 1 and {*value} == {*(theirs or ())}
            if name != "plan.postprocess" and value != theirs and not one:
                yield name, "all methods have plan and network of the pre-trained run"
    if row.vary is by_start:
        if base.weights not in settings.weights:
            yield "weights", "--weights says which"
        if base.finetune.timestep not in settings.timesteps:
            yield "finetune.timestep", "--timesteps says which"


def _shared(settings: Study) -> dict[str, Any]:
    """The plan and the network of the pre-trained run, as settings; {} where every method has its own."""
    if shared_start(settings) is None:
        return {}
    if not settings.from_run:
        return {"plan": settings.pretrain.plan, "network": settings.pretrain.network}
    run = find_pretrained(settings.from_run)
    network = from_dict(Network, run.config["settings"]["network"])
    return {"plan": run.plan.settings(), "network": network}


def _of_starts(settings: Study) -> Iterator[Row]:
    """The rows of the settings of ``pretrain``."""
    wanted = [METHODS[name].start for name in sorted(settings.trained)]
    wanted += [shared_start(settings)]
    seen = dict[str, None]()
    while wanted:
        if (name := wanted.pop()) is not None and name not in seen:
            if not STARTS[name].given(settings):
                seen[name] = None
            wanted += [STARTS[name].from_run, STARTS[name].coordinates]
    for name in seen:
        start = STARTS[name]
        base: Pretrain = getattr(settings, start.group)
        shape = replace(
            base,
            objective=start.objective or base.objective,
            from_run=A_RUN if start.from_run else base.from_run,
            coordinates=A_RUN if start.coordinates else None,
        )
        named = {"objective": f"is for what {name} starts from"} if start.objective else {}
        yield Row(start.group, name, idle(shape) | named)
