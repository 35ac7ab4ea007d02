"""Data of pre-training: unlabelled cases, read and planned, then prepared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from ..config import Pretrain
from ..config.network import IMAGENET
from ..config.pretraining import TIMELESS
from ..core.schedules import SIDE, resolution_shift
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..data.layouts import open_dataset
from ..data.layouts.unpaired import no_labels
from ..data.plan import Plan
from ..data.prepare import cache_folder
from ..errors import InputError
from ..nets.imagenet import published_weights
from ..system.files import write_atomic
from ..system.saying import say
from .cases import describe_data, described_more, hold_out, limited, prepare_dataset, with_more
from .known import described_labels, patients_seen
from .memory import verify_memory
from .open_settings import fill, network_is_open
from .planning.measuring import Blank
from .planning.plan_training import Subject, plan_training
from .pretraining import Objective, Unlabelled
from .run import Run
from .start import find_pretrained, settings_of_network, verify_kind, verify_size
from .task import BatchesByStep, Task
from .unchanged import (
    require_same_held_out,
    require_same_names,
    require_same_prepared,
    standing_plan,
)

MORE = 8.0
"""How many times the images of segmentation pre-training needs, see ``configuration.Request`` [ours]."""


@dataclass(frozen=True)
class PlannedUnlabelled:
    """What is learned from and by which plan, before any array is prepared.

    Attributes:
        dataset: All images.
        own: Names of those of the data set itself, of which some are held out; the others are of ``--with``.
        plan: How they become the network's input.
        objective: What is learned; what its settings left open is decided.
    """

    dataset: Dataset
    own: frozenset[str]
    plan: Plan
    objective: Objective


def plan_unlabelled(
    objective: Objective, run: Run | None = None, began: float | None = None
) -> PlannedUnlabelled:
    """Read the images, and plan: what the settings leave open is decided here.

    Args:
        objective: What is learned.
        run: Its ``plan.json``, which may have been edited, stands; None: nothing is written.
        began: See ``plan_training.Subject``.

    Raises:
        InputError: Data or settings that cannot be used.
    """
    settings = objective.settings
    dataset = open_dataset(settings.data, settings.reader)
    dataset = limited(dataset, settings.limit, settings.training.seed)
    own = frozenset(case.name for case in dataset)
    dataset = with_more(dataset, settings.with_run, settings.reader)
    plan = None
    if run is not None:
        require_same_names(run.folder, (case.name for case in dataset), trained=run.trained)
        plan = standing_plan(run, (case.name for case in dataset))
    if objective.source_run is not None and network_is_open(settings.network):
        network = settings_of_network(objective.source_run[0])
        objective = objective.with_settings(replace(settings, network=network))
    _verify_images(objective, dataset)
    if plan is None:
        plan = _plan(objective, dataset, began, keep=run is not None)
    if run is not None:
        write_atomic(run.folder / "plan.json", plan.to_json())
    objective = objective.with_settings(fill(objective.settings, plan))
    _verify_plan(objective, objective.settings, plan)
    _verify_network(objective, plan)
    return PlannedUnlabelled(dataset, own, plan, objective)


def prepare_unlabelled(run: Run, planned: PlannedUnlabelled) -> Unlabelled:
    """Prepare the images, hold some patients out, and record in the run what they are.

    Raises:
        InputError: An image cannot be used, or others than these were learned from before.
    """
    dataset, settings = planned.dataset, planned.objective.settings
    prepared = prepare_dataset(
        dataset, planned.plan, settings.reader, settings.machine, labelled=False
    )
    require_same_prepared(run, dataset, prepared)
    training, held_out = hold_out(prepared, settings.training.seed, planned.own)
    require_same_held_out(run, held_out)
    source = find_pretrained(settings.from_run) if settings.from_run else None
    seen = {prepared.cases[i].group for i in training} | patients_seen(source)
    further = sum(case.name not in planned.own for case in prepared.cases)
    more = sum(prepared.cases[i].name not in planned.own for i in training)
    if more < further:
        where, left_out = f"--with {','.join(settings.with_run)}", further - more
        say(
            f"{where}: {left_out} of its {further} images are left out, of validation patients or drawn from them"
        )
    run.write_data(
        describe_data(dataset, prepared, {"validation": held_out})
        | described_more(settings.with_run, more)
        | described_labels(source)
        | {"unlabelled_patients": sorted(seen)}
    )
    held = [i for i, case in enumerate(prepared.cases) if case.name in set(held_out)]
    return Unlabelled(prepared, training, held, planned.objective.zoom)


# ------------------------------------------------------------------------------------------------ internal


def _verify_images(objective: Objective, dataset: Dataset) -> None:
    """Refuse images for which the network is not made, before anything is planned."""
    settings = objective.settings
    if objective.followed is not None:
        verify_kind(dataset, objective.followed, mixed=settings.reader.skip_bad)
    if not objective.on_imagenet:
        return
    where = f"--network.preset {IMAGENET}"
    if settings.objective not in TIMELESS:
        problem = f"knows no timesteps, which {settings.objective} needs"
        raise InputError(where, problem, f"Choose one of {', '.join(TIMELESS)}")
    if find_dims(dataset) != 2:
        raise InputError(where, "is for films, and these are volumes", "Use another preset")
    if settings.from_run:
        verify_kind(dataset, find_pretrained(settings.from_run))
    else:
        published_weights(where)


def _verify_plan(objective: Objective, settings: Pretrain, plan: Plan) -> None:
    """Refuse settings that take no effect with a plan."""
    if (zoom := settings.zoom) is not None and plan.whole:
        problem = "takes no effect, since the network sees films whole"
        remedy = "Leave it out, or give --grid and a smaller --size"
        raise InputError(f"--zoom {zoom:g}", problem, remedy)
    objective.with_settings(settings).verify(plan)


def _verify_network(objective: Objective, plan: Plan) -> None:
    """Refuse a U-Net that does not fit the plan, the memory or the network of ``--from``."""
    unet = None
    if not objective.on_imagenet:
        unet = objective.unet(plan.spatial_dims, len(plan.channels))
        verify_size(plan.size, unet)
        verify_memory(plan.size, unet, objective.settings.machine, training=True)
    objective.before(unet)


def _plan(objective: Objective, dataset: Dataset, began: float | None, *, keep: bool) -> Plan:
    """A new plan, by the images themselves or by labelled ones that they are ``--for``."""
    settings, followed = objective.settings, objective.followed
    sample = dataset
    if settings.for_run is not None:
        sample = open_dataset(settings.for_run, settings.reader).labelled
        if not len(sample):
            raise no_labels(settings.for_run, f"--for {settings.for_run}")
        if len(sample.channels) != len(dataset.channels):
            mine, theirs = len(sample.channels), len(dataset.channels)
            problem = f"has {mine} channels, {dataset.root} has {theirs}"
            raise InputError(f"--for {settings.for_run}", problem, "Give images of one kind")
    subject = Subject(
        kind="pretrain",
        dataset=sample,
        images=len(dataset),
        labelled=settings.for_run is not None,
        segments=False,
        own=f"the preset {IMAGENET}" if objective.on_imagenet else "",
        plan=followed.plan if followed is not None else None,
        more=MORE,
        began=began,
        verify=partial(_verify_plan, objective),
    )

    def trial(blank: Blank, tried: Pretrain) -> tuple[Task, BatchesByStep]:
        """The objective on blank arrays."""
        one = objective.with_settings(tried)
        pool = Unlabelled(blank, range(len(blank)), (), one.zoom)
        return one.task(pool), one.batches(pool)

    plan = plan_training(settings, subject, trial, cache_folder(settings.reader.cache), keep=keep)
    plan = replace(plan, channels=dataset.channels)
    shifts = objective.shifts and settings.diffusion.shift is None
    return _shifted(plan, objective) if shifts else plan


def _shifted(plan: Plan, objective: Objective) -> Plan:
    """With the shift of the noise schedule: that of ``--from``, else by the size of the patch."""
    if objective.source_run is not None:
        shift, why = objective.source_run[1].shift or 1.0, "that of the run to start from"
    else:
        shift = resolution_shift(plan.size)
        why = f"the usual suits {SIDE} pixels a side, or fewer"
        if shift > 1:
            why += "; in a larger image the same noise hides less"
    return replace(plan, shift=shift, reasons=plan.reasons | {"shift": why})
