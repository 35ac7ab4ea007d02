"""Segment a scan of the list with a run of the list, as a job; masks, steps and maps become layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import open_array
from ..data.class_names import ALL_CLASSES
from ..data.scan import Array, Scan, resampled_shape
from ..errors import InputError
from ..inference.expecting import Expectation, calibration_of, in_words
from ..inference.mask_sampler import MaskSampler
from ..inference.members import Member, Overrides, open_members
from ..inference.predictor import Predictor, Segmented
from ..inference.records import identity, short
from ..inference.windows import starts
from ..train.device import local_device
from ..train.run import Run
from .jobs import Job
from .requests import Segmentation
from .runs import Entry
from .scans import MAP, MASK, Item, Layer
from .state import State

OVERLAP = 0.5
"""By which windows overlap, as in ``radiffuse predict``."""


def segment(state: State, item: Item, entry: Entry, asked: Segmentation, job: Job) -> list[str]:
    """Segment, and put the result on the scan.

    Returns:
        Ids of the new layers, the mask first.

    Raises:
        InputError: Scan and run do not fit.
        Cancelled: The user stopped the job.
    """
    job.begin("reading the run")
    machine = state.settings.machine
    local = local_device(machine)
    overrides = Overrides(asked.sampler, asked.steps)
    opened = open_members(Run.open(entry.path), machine, local.device, overrides)
    members = [_watched(member, job) for member in opened]
    member = members[0]
    job.begin("reading the scan")
    scan = _scan(state, item, member)
    open_with = partial(
        Predictor, members, local.device, local.autocast, overlap=OVERLAP, seed=asked.seed
    )
    draws = any(member.draws for member in members)
    samples = asked.samples if draws else 1
    predictor = open_with(samples=samples, uncertainty=asked.uncertainty)
    one = predictor if samples == 1 else open_with(samples=1)  # draws the first of those averaged
    looks = zip(members, predictor.views, strict=True)
    passes = sum(windows(scan, m) * max(1, len(m.timesteps)) * len(seen) for m, seen in looks)
    steps: list[Segmented] = []
    result: Segmented | None = None
    try:
        if asked.keep_steps and one.timesteps:
            job.begin("drawing the mask, step by step", passes)
            steps = one.every_step(scan, item.name)
            result = steps[-1] if one is predictor and not asked.uncertainty else None
        if result is None:
            job.begin("segmenting", passes * samples)
            result = predictor(scan, item.name)
    except InputError as error:
        raise InputError(item.name, error.problem, error.remedy) from None
    job.check()
    usual = samples == 1 and (asked.sampler, asked.steps, asked.seed) == (None, None, 0)
    found = calibration_of(Run.open(entry.path)) if usual else None
    own = result.expected if found else ()
    expected = found(own, member.plan.classes) if found and own else {}
    return _attach(state, item, entry, member, result, steps, expected)


def windows(scan: Scan, member: Member) -> int:
    """Passes of the network over a scan, up to what a plan crops away."""
    plan = member.plan
    if plan.whole or scan.spatial_dims != plan.spatial_dims:
        return 1
    shape = resampled_shape(scan, plan.spacing) if plan.spacing else plan.film
    return math.prod(
        len(starts(max(n, p), p, OVERLAP)) for n, p in zip(shape, plan.size, strict=True)
    )


def _watched(member: Member, job: Job) -> Member:
    """The member, counting its passes and ending at one when the user stops the job."""
    if isinstance(member.segment, MaskSampler):
        member.segment.network.register_forward_pre_hook(lambda *_: job.advance())
        return member
    inner = member.segment

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        job.advance()
        return inner(images, generator, every_step)

    return replace(member, segment=segment)


def _scan(state: State, item: Item, member: Member) -> Scan:
    """As ``predict`` reads it: a single four-dimensional file may hold all channels that the run wants."""
    held = max(item.case.file_channels, len(member.plan.channels))
    if held != item.case.file_channels:
        item.case = replace(item.case, file_channels=held)
    return state.scans.scan(item)


def _attach(
    state: State,
    item: Item,
    entry: Entry,
    member: Member,
    result: Segmented,
    steps: list[Segmented],
    expected: Expectation,
) -> list[str]:
    classes = member.plan.classes
    masks = np.stack([step.mask for step in steps] or [result.mask])
    if steps and not np.array_equal(masks[-1], result.mask):  # several masks were averaged
        masks = np.concatenate([masks, result.mask[None]])
    timesteps = member.timesteps if steps else ()
    base = f"run-{entry.id}"
    made = [
        Layer(
            base, entry.name, MASK, _later(state, masks), classes, timesteps,
            model=short([identity(Run.open(entry.path))]), note=in_words(expected),
            expected=expected.get(ALL_CLASSES, {}),
        )
    ]  # fmt: skip
    maps = {"confidence": result.confidence, **result.maps}
    made += [
        Layer(f"{base}-map-{i}", f"{name} ({entry.name})", MAP, _later(state, values[None]))
        for i, (name, values) in enumerate(maps.items())
    ]
    for old in [id for id in item.layers if id == base or id.startswith(f"{base}-")]:
        del item.layers[old]
    for layer in made:
        state.scans.attach(item, layer)
    return [layer.id for layer in made]


def _later(state: State, array: Array) -> Callable[[], Array]:
    return partial(open_array, state.keep(array))
