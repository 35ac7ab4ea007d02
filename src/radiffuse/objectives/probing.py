"""Probing of frozen features (Li et al. 2025, arXiv 2501.19265; heads after vox2vec, arXiv 2307.14725).

The input of the frozen pre-trained network is the image noised to a few timesteps. Linear and non-linear heads turn its
feature pyramid into a segmentation; all of them learn in one pass. Features are computed for every batch and never
stored. A sweep trains further heads on single timesteps or levels, in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Fit, Losses, Probing
from ..config.given import refuse_given
from ..config.segmenting import NO_COORDINATES
from ..config.types import Timestep
from ..core.losses import segmentation_loss
from ..data.batches import Batch
from ..data.plan import Plan
from ..errors import InputError
from ..evaluation.tables import class_sizes, read_scores, size_groups
from ..inference.coordinates import warn_of_guide
from ..inference.members import Overrides
from ..inference.predictor import Predictor
from ..inference.scoring import score_cases
from ..nets.coordinates import CoordinateRegressor
from ..nets.probe import HeadConfig, ProbedNetwork, pyramid
from ..nets.unet import UNet
from ..system.cells import csv_text
from ..system.files import write_atomic
from ..train.labelled import HeldOut, Labelled
from ..train.memory import verify_memory
from ..train.random import StepRandom
from ..train.run import Run
from ..train.segmenting import SegmentationTask, mean_dice
from ..train.start import Start, find_pretrained, load_regressor, verify_size
from ..train.task import Loss

TIMESTEPS = "timesteps sweep noise_draws"
"""Settings of probing that ask for noised images."""


class HeadLearning(SegmentationTask):
    """The task: independent heads on frozen features, each with the loss ``losses``."""

    def __init__(
        self, network: ProbedNetwork, losses: Losses, held_out: HeldOut | None = None
    ) -> None:
        super().__init__(network, held_out)
        self.names = network.names
        self.losses = losses

    def loss(self, network: nn.Module, batch: Batch, random: StepRandom) -> Loss:
        """The sum of the heads' losses; each is logged."""
        assert batch.labels is not None
        total, terms = torch.zeros((), device=batch.images.device), {}
        for name, logits in zip(self.names, network(batch.images), strict=True):
            losses, _ = segmentation_loss(logits.float(), batch.labels, self.losses)
            total = total + losses.mean()
            terms[f"loss_{name}"] = float(losses.detach().mean())
        return Loss(total, terms)

    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Mean Dice of the main head over held-out images."""
        main = self.names[:1]

        def segment(images: Tensor) -> Tensor:
            logits: Tensor = network(images.to(device), main)[0]
            return logits

        return mean_dice(segment, self.held_out, self.at_once)


def build(settings: Fit, plan: Plan, start: Start | None, held_out: HeldOut | None) -> HeadLearning:
    """Fresh heads on the frozen network.

    Raises:
        InputError: The size, a timestep or a level does not fit.
    """
    assert start is not None
    verify_size(plan.size, start.denoiser.config)
    verify_memory(plan.size, start.denoiser.config, settings.machine, training=False)
    wanted = settings.probe
    try:
        network = ProbedNetwork(
            start.denoiser,
            start.diffusion if start.noised else None,
            len(plan.classes),
            list(heads(wanted, start.denoiser, clean=not start.noised)),
            width=wanted.width,
            seed=settings.training.seed,
            draws=wanted.noise_draws,
            regressor=_regressor(wanted),
        )
    except ValueError as error:
        raise InputError("--method probe", str(error), "See radiffuse fit --help") from None
    return HeadLearning(network, settings.loss, held_out)


def heads(settings: Probing, denoiser: UNet, *, clean: bool) -> Iterator[HeadConfig]:
    """The heads of the settings, the main one first.

    Args:
        settings: Kinds, timesteps, levels and sweeps.
        denoiser: The network that they probe.
        clean: Whether it knows no timesteps: then there is only timestep 0, and no sweep over timesteps.

    Raises:
        InputError: Timesteps are given, and the network knows none.
        ValueError: The network has no such level.
    """
    if clean:
        same = settings.timesteps in ((0,), ("clean",))
        refuse_given(
            settings,
            Probing(),
            TIMESTEPS,
            "the pre-trained network knows no timesteps",
            "probe.",
            obeyed=Probing(timesteps=settings.timesteps if same else (0,)),
        )
    whole = pyramid(denoiser)
    wanted = {tap if tap in whole else f"level.{tap}" for tap in settings.levels}
    taps = tuple(tap for tap in whole if tap in wanted) if wanted else whole
    if unknown := sorted(wanted - set(whole)):
        raise ValueError(f"--levels {', '.join(unknown)}: choose from {', '.join(whole)}")
    timesteps: tuple[Timestep, ...] = (0,) if clean else settings.timesteps
    known = denoiser.coordinate_channels > 0 or settings.regressor is not None
    head = partial(HeadConfig, coordinates=settings.coordinates and known)
    for kind in settings.heads:
        yield head(kind, kind, timesteps, taps)
    for kind in settings.heads:
        for t in () if clean else settings.sweep:
            yield head(f"{kind}@t={t}", kind, (t,), taps)
        for tap in taps if settings.sweep_levels else ():
            yield head(f"{kind}@{tap}", kind, timesteps, (tap,))
        if settings.sweep_coordinates:
            yield HeadConfig(f"{kind}@{NO_COORDINATES}", kind, timesteps, taps)


def _regressor(settings: Probing) -> CoordinateRegressor | None:
    if settings.regressor is None:
        return None
    run = find_pretrained(settings.regressor)
    warn_of_guide(run.folder)
    return load_regressor(run)


def score_heads(run: Run, network: nn.Module, labelled: Labelled, settings: Fit) -> None:
    """Write ``sweep.csv``, if there are several heads: validation Dice of each, with the size group of each class."""
    import pandas as pd

    configs = cast(ProbedNetwork, network).configs
    names = labelled.splits.validation
    if not names or not settings.training.validate_every or len(configs) < 2:
        return
    prepared = labelled.batches.prepared
    maps = (prepared.label(i) for i in range(len(prepared)))
    groups = size_groups(class_sizes(maps, labelled.plan.classes))
    frames = []
    for head in configs:
        predictor = Predictor.open([run], settings.machine, Overrides(head=head.name))
        out = run.folder / "heads" / head.name
        skip_bad = settings.reader.skip_bad
        path = score_cases(predictor, labelled.dataset, names, out, skip_bad=skip_bad)
        scores = read_scores(path)
        frame = scores[["case", "group", "class", "dice"]]
        timesteps, levels = " ".join(map(str, head.timesteps)), " ".join(head.taps)
        columns = {"head": head.name, "kind": head.kind, "timesteps": timesteps, "levels": levels}
        for place, (column, value) in enumerate(columns.items()):
            frame.insert(place, column, value)
        frame["size"] = frame["class"].map(groups)
        frames.append(frame)
    table = pd.concat(frames).replace({np.nan: None})
    write_atomic(run.folder / "sweep.csv", csv_text(table, "%.6g"))
