"""Learn to segment from labelled images, by any of ``objectives.METHODS``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..config import Fit
from ..data.plan import Plan
from ..inference.scoring import score_validation
from ..nets.registry import save_network
from ..objectives import learned_from_noise, method_of
from ..objectives.segmentation import CustomSegmentation, Segmentation, new_segmenter
from ..train.act import Act, run_training
from ..train.labelled import Labelled, labelled_data
from ..train.loop import Trained
from ..train.run import Run
from ..train.start import Start, diffusion_of, load_denoiser
from ..train.task import Task
from ._documents import leave_documents


def fit(settings: Fit) -> Run:
    """Learn to segment.

    Args:
        settings: See ``radiffuse.config.Fit``.

    Returns:
        The run: its model is the segmenter with averaged weights. With the method probe ``sweep.csv`` has the
        validation Dice of every head, where there are several.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    method = method_of(settings)

    def prepare(run: Run) -> Act:
        labelled = labelled_data(run, settings)
        task = method.build(settings, labelled.plan, _start(settings, labelled), labelled.held_out)

        def finish(trained: Trained) -> None:
            save_network(trained.average, run.model)
            score_validation(run, labelled, settings)
            method.finish(run, trained.average, labelled, settings)

        return Act(task, labelled.batches, finish)

    return run_training("fit", settings, prepare, leave_documents)


def fit_custom(
    settings: Fit,
    *,
    network: Callable[[Plan], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Run:
    """As ``fit`` with the methods finetune and scratch, with a network or a loss of one's own.

    Args:
        settings: Those of the U-Net have no effect on a network of one's own.
        network: Makes the network for a plan: images ``(B, C, *S)`` in [-1, 1] to logits ``(B, K, *S)``. It has a
            ``to_config()`` with a ``kind`` that ``nets.registry.register`` was told. None: the U-Net of the settings.
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

    def prepare(run: Run) -> Act:
        labelled = labelled_data(run, settings)
        if network is None:
            start: nn.Module = new_segmenter(settings, labelled.plan, _start(settings, labelled))
        else:
            torch.manual_seed(settings.training.seed)
            start = network(labelled.plan)
        task: Task = (
            Segmentation(start, settings.loss, labelled.held_out)
            if loss is None
            else CustomSegmentation(start, loss, labelled.held_out)
        )

        def finish(trained: Trained) -> None:
            save_network(trained.average, run.model)
            score_validation(run, labelled, settings)

        return Act(task, labelled.batches, finish)

    recorded = {"custom": custom} if custom else None
    return run_training("fit", settings, prepare, leave_documents, recorded)


def _start(settings: Fit, labelled: Labelled) -> Start | None:
    """The network of ``--from``, if there is one."""
    if (source := labelled.source) is None:
        return None
    denoiser = load_denoiser(source, settings.weights)
    return Start(denoiser, diffusion_of(source), learned_from_noise(source))
