"""Train segmentation by mask diffusion, or, with the strategy ``none``, the plain supervised reference."""

from __future__ import annotations

import torch

from ..config import DiffSeg, resolve_network
from ..config.values import to_dict
from ..data.plan import Plan
from ..errors import InputError
from ..inference.scoring import score_validation
from ..nets.mask_denoiser import MaskDenoiser
from ..nets.registry import load_network, save_network
from ..nets.segmenter import Segmenter
from ..nets.unet import UNet
from ..objectives.mask_diffusion import SELF_CONDITIONED, MaskDiffusion
from ..objectives.segmentation import Segmentation
from ..reports.run import write_run_report
from ..train.labelled import Labelled, labelled_data
from ..train.loop import train
from ..train.run import Run, start_run
from ..train.start import verify_size
from ..train.task import Task


def diffseg(settings: DiffSeg) -> Run:
    """Train a mask denoiser on labelled images.

    Args:
        settings: See ``radiffuse.config.DiffSeg``.

    Returns:
        The run: its model is the network with averaged weights.

    Raises:
        InputError: Data or settings that cannot be used.
        TrainingDiverged: The loss is not finite.
    """
    _verify(settings)
    with start_run(
        settings.out, "diffseg", to_dict(settings), settings.machine, to_dict(type(settings)())
    ) as run:
        labelled = labelled_data(run, settings)
        task = make_task(settings, labelled)
        trained = train(task, labelled.batches, run, settings.training, settings.machine)
        if not run.main:
            return run
        save_network(trained.average, run.model)
        score_validation(run, labelled, settings)
        write_run_report(run.folder)
    return run


def make_task(settings: DiffSeg, labelled: Labelled) -> Task:
    """What the strategy trains."""
    network = build_network(settings, labelled.plan, labelled.source)
    if isinstance(network, Segmenter):
        return Segmentation(network, settings.loss, labelled.held_out)
    return MaskDiffusion(
        network,
        settings.strategy,
        settings.diffusion,
        settings.loss,
        settings.sampling,
        labelled.held_out,
    )


def build_network(settings: DiffSeg, plan: Plan, source: Run | None) -> MaskDenoiser | Segmenter:
    """The network at its start: the same U-Net for every strategy, from scratch or from a pre-trained denoiser.

    Raises:
        InputError: The run is no pre-trained denoiser, or the plan's size does not fit.
    """
    generator = torch.Generator().manual_seed(settings.training.seed)
    classes = len(plan.classes)
    supervised = settings.strategy == "none"
    conditioned = settings.strategy in SELF_CONDITIONED
    if source is None:
        unet = resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=classes,
        )
        verify_size(plan, unet)
        if supervised:
            return Segmenter.from_scratch(unet, generator=generator)
        return MaskDenoiser.from_scratch(unet, self_condition=conditioned, generator=generator)
    denoiser = load_network(source.model, "raw" if settings.weights == "raw" else "model")
    if not isinstance(denoiser, UNet):
        raise InputError(
            source.folder, "is not a pre-trained denoiser", "Give a run of radiffuse pretrain"
        )
    verify_size(plan, denoiser.config)
    if supervised:
        return Segmenter.from_denoiser(denoiser, classes=classes, generator=generator)
    return MaskDenoiser.from_denoiser(
        denoiser, classes=classes, self_condition=conditioned, generator=generator
    )


# ------------------------------------------------------------------------------------------------ internal


def _verify(settings: DiffSeg) -> None:
    """Refuse settings of the noising process that mask diffusion has no use for."""
    wanted = {
        "prediction_type": ("x_start", "the network gives logits of the clean mask"),
        "variance": ("fixed_small", "no variance is learned"),
        "min_snr_gamma": (None, "the loss is that of segmentation"),
        "loss": ("mse", "the loss is that of segmentation; see --loss.dice and its neighbors"),
    }
    for name, (legal, reason) in wanted.items():
        value = getattr(settings.diffusion, name)
        if value != legal:
            raise InputError(f"--diffusion.{name} {value}", f"does not apply: {reason}", "Leave it")
    total = settings.diffusion.num_train_timesteps
    if total < 2 or settings.sampling.steps > total:
        raise InputError(
            f"--sampling.steps {settings.sampling.steps}",
            f"the process has {total} timesteps",
            "Use at least two timesteps, and no more steps than timesteps",
        )
    losses = settings.loss
    if not (losses.cross_entropy or losses.dice or losses.focal):
        raise InputError(
            "--loss", "has no term", "Give one a weight above 0, such as --loss.dice 1"
        )
