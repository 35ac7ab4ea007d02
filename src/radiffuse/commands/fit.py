"""``radiffuse fit``: train a segmenter on labelled images, by any of ``objectives.METHODS``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..automatic.choice import fit_automatically
from ..config import Fit, MethodName
from ..data.plan import Plan
from ..errors import InputError
from ..inference.scoring import score_validation
from ..inference.teachers import find_teachers
from ..nets.registry import save_network
from ..objectives import (
    Build,
    Describe,
    Finish,
    from_start,
    method_of,
    nothing,
    pooled,
    trial_of,
)
from ..objectives.segmentation import (
    CustomSegmentation,
    Segmentation,
    find_weights,
    new_segmenter,
    verify_half,
    verify_loss,
)
from ..system.files import write_atomic
from ..train.act import Act, run_training
from ..train.labelled import HeldOut, prepare_labelled
from ..train.loop import Trained
from ..train.pool import with_pool
from ..train.run import Run
from ..train.start import Start
from ..train.task import BatchesByStep, Task
from ._documents import leave_documents


def fit(settings: Fit) -> Run:
    """Train a segmenter.

    Returns:
        The run: its model is the segmenter with averaged weights. With the method probe ``sweep.csv`` has the
        validation Dice of every head, where there are several.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    if settings.automatic:
        return fit_automatically(settings, _by_method, leave_documents)
    return _by_method(settings)


def _by_method(settings: Fit, plan: Plan | None = None, documents: bool = True) -> Run:
    """Train by a method; a ``plan`` is taken as it is."""
    method = method_of(settings)
    report = leave_documents if documents else nothing
    return _fit(
        settings,
        method.build,
        method.finish,
        describe=method.describe,
        report=report,
        plan=plan,
    )


def fit_custom(
    settings: Fit,
    *,
    network: Callable[[Plan], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Run:
    """Train a segmenter with the methods finetune and scratch, and your own network or loss.

    Args:
        settings: Those of the U-Net have no effect on your own network.
        network: Makes the network for a plan: images ``(B, C, *S)`` in [-1, 1] to logits ``(B, K, *S)``. It has a
            ``to_config()`` with a ``kind`` known to ``nets.registry.register``. None: the U-Net of the settings.
        loss: See ``CustomSegmentation``. None: the loss of the settings.

    Raises:
        InputError: Data or settings that cannot be used, or the method auto.
        TrainingDiverged: The loss is not finite.
    """
    for name, part in (("network", network), ("loss", loss)):
        if part is not None and not callable(part):
            raise InputError(f"fit_custom, {name}", f"is {part!r}, no function", "Give a function")
    if settings.method == "auto":
        raise InputError("--method auto", "tries networks of its own", "Name finetune or scratch")
    if settings.method is None:
        method: MethodName = "finetune" if settings.from_run else "scratch"
        settings = replace(settings, method=method)
    if loss is None:
        verify_loss(settings)
    custom = {
        name: f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__name__)}"
        for name, part in (("network", network), ("loss", loss))
        if part is not None
    }

    def build(settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None) -> Task:
        if network is None:
            segmenter: nn.Module = new_segmenter(settings, plan, start)
        else:
            torch.manual_seed(settings.training.seed)
            segmenter = network(plan)
        verify_half(settings, plan, segmenter)
        if loss is None:
            return Segmentation(segmenter, settings.loss, held_out)
        return CustomSegmentation(segmenter, loss, held_out)

    return _fit(settings, build, recorded={"custom": custom} if custom else None)


def _fit(
    settings: Fit,
    build: Build,
    add_results: Finish = nothing,
    *,
    describe: Describe = nothing,
    recorded: Mapping[str, Any] | None = None,
    report: Callable[[Path], Any] = leave_documents,
    plan: Plan | None = None,
) -> Run:
    began = time.monotonic()
    settings, start = from_start(settings)

    def prepare(run: Run) -> Act:
        if plan is not None:
            write_atomic(run.folder / "plan.json", plan.to_json())
        find_weights(settings)
        labelled = prepare_labelled(
            run,
            settings,
            start,
            trial_of(build, start),
            began=began,
            quiet=report is nothing,
        )
        decided = labelled.settings
        task = build(decided, labelled.plan, start, labelled.held_out)
        batches: BatchesByStep = labelled.batches
        if decided.unlabelled:
            batches = with_pool(run, labelled, decided, quiet=report is nothing)
            teachers = find_teachers(run, decided, labelled)
            task = pooled(task, decided, labelled.batches, teachers)
        describe(run, labelled, decided)

        def finish(trained: Trained) -> None:
            save_network(trained.average, run.model)
            score_validation(run, labelled, decided)
            add_results(run, trained.average, labelled, decided)

        return Act(task, batches, finish, decided)

    return run_training("fit", settings, prepare, report, recorded)
