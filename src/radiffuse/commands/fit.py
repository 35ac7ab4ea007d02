"""``radiffuse fit``: train a segmenter on labelled images, by any of ``objectives.METHODS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Fit
from ..data.plan import Plan
from ..inference.scoring import score_validation
from ..nets.registry import save_network
from ..objectives import Build, Finish, learned_from_noise, method_of, nothing
from ..objectives.segmentation import CustomSegmentation, Segmentation, new_segmenter
from ..train.act import Act, run_training
from ..train.labelled import HeldOut, labelled_data
from ..train.loop import Trained
from ..train.run import Run
from ..train.start import Start, diffusion_of, load_denoiser
from ..train.task import Task
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
    method = method_of(settings)
    return _fit(settings, method.build, method.finish)


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
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
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
        if loss is None:
            return Segmentation(segmenter, settings.loss, held_out)
        return CustomSegmentation(segmenter, loss, held_out)

    return _fit(settings, build, recorded={"custom": custom} if custom else None)


def _fit(
    settings: Fit,
    build: Build,
    add_results: Finish = nothing,
    recorded: Mapping[str, Any] | None = None,
) -> Run:
    def prepare(run: Run) -> Act:
        labelled = labelled_data(run, settings)
        start = None
        if (source := labelled.source) is not None:
            denoiser = load_denoiser(source, settings.weights)
            start = Start(denoiser, diffusion_of(source), learned_from_noise(source))
        task = build(settings, labelled.plan, start, labelled.held_out)

        def finish(trained: Trained) -> None:
            save_network(trained.average, run.model)
            score_validation(run, labelled, settings)
            add_results(run, trained.average, labelled, settings)

        return Act(task, labelled.batches, finish)

    return run_training("fit", settings, prepare, leave_documents, recorded)
