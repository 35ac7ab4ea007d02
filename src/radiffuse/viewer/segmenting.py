"""Segment a scan of the list with a run of the list, as a job; masks, steps and maps become layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..data.scan import Array, Scan, resampled_shape
from ..errors import InputError
from ..inference.mask_sampler import MaskSampler
from ..inference.members import Member, Overrides, open_member
from ..inference.predictor import Predictor, Segmented
from ..inference.windows import starts
from ..train.device import make_fabric
from ..train.run import Run
from .jobs import Job
from .requests import Segmentation
from .runs import Entry
from .scans import MAP, MASK, Item, Layer
from .state import State, kept

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
    fabric = make_fabric(machine)
    overrides = Overrides(asked.sampler, asked.steps)
    member = _watched(open_member(Run.open(entry.path), machine, fabric.device, overrides), job)
    job.begin("reading the scan")
    scan = _scan(state, item, member)
    open_with = partial(
        Predictor, [member], fabric.device, fabric.autocast, overlap=OVERLAP, seed=asked.seed
    )
    samples = asked.samples if member.draws else 1
    predictor = open_with(samples=samples, uncertainty=asked.uncertainty)
    one = predictor if samples == 1 else open_with(samples=1)  # draws the first of those averaged
    passes = windows(scan, member) * max(1, len(member.timesteps))
    steps: list[Segmented] = []
    result: Segmented | None = None
    try:
        if asked.keep_steps and member.draws:
            job.begin("drawing the mask, step by step", passes)
            steps = one.every_step(scan, item.name)
            result = steps[-1] if one is predictor and not asked.uncertainty else None
        if result is None:
            job.begin("segmenting", passes * samples)
            result = predictor(scan, item.name)
    except InputError as error:
        raise InputError(item.name, error.problem, error.remedy) from None
    job.check()
    return _attach(state, item, entry, member, result, steps)


def windows(scan: Scan, member: Member) -> int:
    """Passes of the network over a scan, up to what a plan crops away."""
    plan = member.plan
    if plan.spatial_dims == 2 or plan.spacing is None or scan.spatial_dims == 2:
        return 1
    shape = resampled_shape(scan, plan.spacing)
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
            source=f"radiffuse {entry.command}",
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
    return partial(kept, state.keep(array))
