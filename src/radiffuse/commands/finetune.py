"""Fine-tuning for segmentation (Rousseau et al. 2023), training from scratch, and pixel classifiers.

The denoiser becomes a segmenter by replacing its last convolution; it sees the clean image at a fixed timestep and
everything stays trainable. Without a pre-trained run the same network starts from random weights. ``pixel`` keeps the
denoiser frozen and trains small classifiers on its features (Baranchuk et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..cli.settings import from_values
from ..config import Diffusion, Finetune, resolve_network
from ..config.values import from_dict, to_dict
from ..data.plan import Plan
from ..errors import InputError
from ..inference.scoring import score_validation
from ..nets.dynunet import new_dynunet
from ..nets.pixel import PixelClassifier
from ..nets.registry import save_network
from ..nets.segmenter import Segmenter
from ..objectives.segmentation import CustomSegmentation, PixelProbing, Segmentation
from ..reports.run import write_run_report
from ..train.labelled import labelled_data
from ..train.loop import train
from ..train.run import Run, start_run
from ..train.start import load_denoiser, verify_size


def finetune(settings: Finetune) -> Run:
    """Train a segmentation network on labelled images.

    Args:
        settings: See ``radiffuse.config.Finetune``.

    Returns:
        The run: its model is the segmenter with averaged weights.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    return _finetune(settings, None, None)


def finetune_custom(
    *,
    network: Callable[[Plan], nn.Module] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    **values: Any,
) -> Run:
    """As ``radiffuse.finetune``, with a network or a loss of one's own.

    Args:
        network: Makes the network for a plan: images ``(B, C, *S)`` in [-1, 1] to logits ``(B, K, *S)``. It has a
            ``to_config()`` with a ``kind`` that ``nets.registry.register`` was told. None: the U-Net of the settings.
        loss: See ``CustomSegmentation``. None: the loss of the settings.
        values: Settings of ``radiffuse.finetune``; those of the U-Net have no effect on a network of one's own.

    Returns:
        The run.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    return _finetune(from_values("finetune", values), network, loss)


def _finetune(
    settings: Finetune,
    make_network: Callable[[Plan], nn.Module] | None,
    function: Callable[[Tensor, Tensor], Tensor] | None,
) -> Run:
    custom = {
        name: f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__name__)}"
        for name, part in (("network", make_network), ("loss", function))
        if part is not None
    }
    recorded = to_dict(settings) | ({"custom": custom} if custom else {})
    with start_run(
        settings.out, "finetune", recorded, settings.machine, to_dict(type(settings)())
    ) as run:
        labelled = labelled_data(run, settings)
        if make_network is None:
            network = build_network(settings, labelled.plan, labelled.source)
        else:
            torch.manual_seed(settings.training.seed)
            network = make_network(labelled.plan)
        task = (
            CustomSegmentation(network, function, labelled.held_out)
            if function is not None
            else PixelProbing(network, labelled.held_out)
            if isinstance(network, PixelClassifier)
            else Segmentation(network, settings.loss, labelled.held_out)
        )
        trained = train(task, labelled.batches, run, settings.training, settings.machine)
        if not run.main:
            return run
        save_network(trained.average, run.model)
        score_validation(run, labelled, settings)
        write_run_report(run.folder)
    return run


def build_network(settings: Finetune, plan: Plan, source: Run | None) -> nn.Module:
    """The network at its start: from a pre-trained denoiser, or from scratch.

    Raises:
        InputError: The method needs a pre-trained run, or the run does not fit.
    """
    generator = torch.Generator().manual_seed(settings.training.seed)
    classes = len(plan.classes)
    if settings.method == "dynunet":
        return _dynunet(settings, plan, source)
    if source is None:
        if settings.method == "pixel":
            raise InputError(
                "--method pixel", "needs a pre-trained network", "Give one with --from"
            )
        unet = resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=classes,
        )
        verify_size(plan, unet)
        return Segmenter.from_scratch(unet, timestep=settings.timestep, generator=generator)
    denoiser = load_denoiser(source, settings.weights)
    diffusion = from_dict(Diffusion, source.config["settings"]["diffusion"])
    if not 0 <= settings.timestep < diffusion.num_train_timesteps:
        raise InputError(
            f"--timestep {settings.timestep}",
            f"the pre-trained network knows timesteps 0 to {diffusion.num_train_timesteps - 1}",
            "Choose one of them",
        )
    verify_size(plan, denoiser.config)
    if settings.method == "pixel":
        return PixelClassifier(denoiser, diffusion, classes, seed=settings.training.seed)
    return Segmenter.from_denoiser(
        denoiser, classes=classes, timestep=settings.timestep, generator=generator
    )


def _dynunet(settings: Finetune, plan: Plan, source: Run | None) -> nn.Module:
    if source is not None:
        remedy = "Leave --from or --method out"
        raise InputError("--method dynunet", "cannot start from a pre-trained run", remedy)
    channels, classes = len(plan.channels), len(plan.classes)
    try:
        return new_dynunet(channels, classes, plan.size, plan.spacing, settings.training.seed)
    except ValueError as error:
        size = "x".join(map(str, plan.size))
        raise InputError(f"size {size}", str(error), "Choose a larger --size") from None
