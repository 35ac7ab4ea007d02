"""What the method auto tries: methods of ``fit`` with a start each, planned for these cases and this time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..config import FIT, Fit, Split
from ..config.effect import refuse_idle
from ..config.given import as_typed
from ..config.segmenting import POOLED
from ..config.values import completed, from_dict, to_dict
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..data.plan import Plan
from ..errors import InputError
from ..objectives import FILMS, from_start, learned_from_noise, method_of, trial_of
from ..train.labelled import plan_labelled
from ..train.open_settings import STEPS
from ..train.planning.configuration import PASSES
from ..train.run import find_run
from ..train.start import diffusion_of, knows_timesteps

LATER = 10
"""A second timestep of fine-tuning is this part of all [ours]."""
POOL = "+pool"
"""Ends the name of a candidate that sees the unlabelled images while it trains."""


class Proposal(NamedTuple):
    """A method of ``fit`` with a start, before anything is planned.

    Attributes:
        name: Of it.
        method: Of ``fit``.
        why: What it is, in words.
        changes: Its settings beside the given ones.
    """

    name: str
    method: str
    why: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One way of training: a proposal, planned, without the pool of unlabelled images or with it.

    Attributes:
        proposal: Name of the proposal.
        settings: Of ``fit``, everything decided but the folder, the split and the steps tried.
        why: What it is, in words.
        plan: Of every fold and of the final training.
        seconds: Of its training in full length without the pool, as its plan predicts; 0 where that is not known.
        steps_given: Whether its steps are given, not planned.
    """

    proposal: str
    settings: Fit
    why: str
    plan: Plan
    seconds: float = 0.0
    steps_given: bool = False

    @property
    def name(self) -> str:
        """Also of its folders."""
        return f"{self.proposal}{POOL if self.uses_pool else ''}"

    @property
    def uses_pool(self) -> bool:
        """Whether it learns from unlabelled images as well."""
        return bool(self.settings.unlabelled)

    @property
    def can_use_pool(self) -> bool:
        """Whether its method could."""
        return self.settings.method in POOLED

    @property
    def is_timed(self) -> bool:
        """Whether its steps fill the time, on films, so that more time may have a finer grid."""
        return not self.steps_given and self.seconds > 0 and self.plan.spacing is None

    def steps(self, share: float = 1.0) -> int:
        """Steps of a training, or of a round of the choice, which has a ``share`` of them."""
        return max(1, round(self.settings.training.length * share))

    def with_pool(self, given: Fit) -> Candidate:
        """The same with the pool of the given settings."""
        settings = replace(self.settings, unlabelled=given.unlabelled, pool=given.pool)
        return replace(self, settings=settings, why=f"{self.why}, with the pool")


def find_candidates(
    given: Fit,
    dataset: Dataset,
    hours: float,
    most: int | None = None,
    seen: dict[Any, Any] | None = None,
) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates for a data set, the one to beat first, and why others are left out.

    Args:
        given: Settings of the command.
        dataset: The labelled cases.
        hours: What one training may take.
        most: How many there is time for; None: all.
        seen: See ``plan_training.Subject``, also the network that they start from; None: nothing was.

    Raises:
        InputError: The given run or encoder cannot be used, or nothing can be trained.
    """
    found, errors = list[Candidate](), dict[str, InputError]()
    seen = {} if seen is None else seen
    for proposal in proposals(given, dataset):
        name = proposal.name
        if len(found) == most:
            problem = "too short for more candidates"
            errors[name] = InputError("--hours", problem, "Give more")
            continue
        try:
            found.append(_planned(proposal, given, hours, seen))
        except InputError as error:
            if name == "dino" or (given.from_run and name == "finetune"):
                raise  # what was asked for by name
            errors[name] = error
    if not found:
        of_data = (e for e in errors.values() if not e.where.startswith("--"))
        raise next(of_data, errors["scratch"])
    return found, {name: f"{e.where}: {e.problem}" for name, e in errors.items()}


def planned_for(
    name: str, given: Fit, dataset: Dataset, hours: float, seen: dict[Any, Any]
) -> Candidate:
    """The candidate of a proposal, without the pool, planned for other hours of a training.

    Args:
        name: Of the proposal.
        given: As to ``find_candidates``.
        dataset: Likewise.
        hours: Likewise.
        seen: Likewise.

    Raises:
        InputError: Nothing fits into memory any more.
    """
    proposal = next(one for one in proposals(given, dataset) if one.name == name)
    return _planned(proposal, given, hours, seen)


def planned_finer(
    ones: Sequence[Candidate], given: Fit, dataset: Dataset, hours: float, seen: dict[Any, Any]
) -> list[Candidate] | None:
    """The candidates planned anew, each for so many hours; None unless each gets a finer grid of films.

    Args:
        ones: Without the pool.
        given: As to ``find_candidates``.
        dataset: Likewise.
        hours: Likewise.
        seen: Likewise.
    """
    found = list[Candidate]()
    for one in ones:
        try:
            new = planned_for(one.proposal, given, dataset, hours, seen)
        except InputError:  # such as memory that others have taken meanwhile
            return None
        if math.prod(new.plan.film) <= math.prod(one.plan.film):
            return None
        found.append(new)
    return found


def proposals(given: Fit, dataset: Dataset) -> Iterator[Proposal]:
    """What may be tried of a data set, the one to beat first."""
    films = find_dims(dataset) == 2
    start, weights = given.from_run, {"weights": given.weights}
    tuned = f"fine-tuning of {start}"
    if start is not None:
        yield Proposal("finetune", "finetune", tuned, {"from_run": start} | weights)
    if given.encoder is not None:
        why = f"a light decoder on the frozen {given.encoder}"
        yield Proposal("dino", "dino", why, {"encoder": given.encoder})
    if films:
        yield Proposal("imagenet", "imagenet", "a U-Net on an encoder trained on ImageNet", {})
    if start is None and films and len(dataset.channels) == 1:
        start, weights = FILMS, {}
        tuned = f"fine-tuning of the shipped {FILMS}"
        yield Proposal("finetune", "finetune", tuned, {"from_run": start})
    yield Proposal("scratch", "scratch", "the planned network from random weights", {})
    if start is not None and knows_timesteps(run := find_run(start)):
        changes: dict[str, Any] = {"from_run": start} | weights
        if learned_from_noise(run):
            later = diffusion_of(run).num_train_timesteps // LATER
            timestep = replace(FIT["finetune"].finetune, timestep=later)
            why, more = f"{tuned} at timestep {later}", changes | {"finetune": timestep}
            yield Proposal(f"finetune-t{later}", "finetune", why, more)
        yield Proposal("probe", "probe", f"heads on the frozen features of {start}", changes)


def usual_steps(labels: int, batch: int) -> int:
    """Steps of a training that nothing is said about, of so many labelled cases."""
    return max(STEPS, PASSES["fit"] * labels // batch)


def settings_of(given: Fit, method: str, changes: Mapping[str, Any]) -> Fit:
    """The defaults of a method with what is given over them.

    Raises:
        InputError: The method does not obey a setting that is given.
    """
    usual = FIT["auto"]
    own = _differing(to_dict(given), to_dict(usual))
    base: Fit = from_dict(Fit, completed(to_dict(FIT[method]), own))
    fixed: dict[str, Any] = {
        "method": method,
        "from_run": None,
        "encoder": None,
        "weights": usual.weights,
        "hours": None,
    }
    fixed |= {"split": given.split, "unlabelled": (), "pool": usual.pool}
    settings = replace(base, **fixed | dict(changes))
    placed = {
        name: getattr(settings, name)
        for name in ("data", "out", "labels", "draw", *fixed, *changes)
    }
    with as_typed():
        refuse_idle(settings, replace(FIT[method], **placed))
    return settings


# ------------------------------------------------------------------------------------------------ internal


def _planned(proposal: Proposal, given: Fit, hours: float, seen: dict[Any, Any]) -> Candidate:
    """The candidate, planned once for every fold and the final training."""
    settings = settings_of(given, proposal.method, proposal.changes)
    method = method_of(settings)
    timed = None if settings.training.steps else hours
    obeyed, start = from_start(replace(settings, hours=timed), seen)
    planned = plan_labelled(obeyed, start, trial_of(method.build, start), seen=seen)
    decided, plan = planned.settings, planned.plan
    method.build(decided, plan, start, None)  # what it lacks is found here
    steps = decided.training.length
    seconds = 60 * plan.training.minutes if plan.training else 0.0
    if given.hours is None and given.training.steps is None:
        usual = usual_steps(len(planned.budget), decided.training.batch)
        seconds, steps = seconds * min(steps, usual) / steps, min(steps, usual)
    fixed = replace(
        decided,
        hours=None,
        labels=None,
        draw=0,
        split=Split(),
        plan=plan.settings(),
        training=replace(decided.training, steps=steps, validate_every=0),
        machine=replace(decided.machine, memory=None, rate=None),
    )
    why = f"{proposal.why}, at {_grid(plan)}"
    is_given = given.training.steps is not None
    return Candidate(proposal.name, fixed, why, replace(plan, training=None), seconds, is_given)


def _grid(plan: Plan) -> str:
    """What a network sees, in words."""
    if plan.spacing is not None:
        return f"{' x '.join(f'{mm:.3g}' for mm in plan.spacing)} mm"
    film = " x ".join(map(str, plan.film))
    return film if plan.whole else f"{film} in patches of {' x '.join(map(str, plan.size))}"


def _differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What differs, group by group."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(others[name], Mapping):
            if inner := _differing(value, others[name]):
                found[name] = inner
        elif value != others[name]:
            found[name] = value
    return found
