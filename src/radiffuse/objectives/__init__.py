"""What is learned: one loss per file, to be read beside its paper, and the tables of their names.

A new pre-training objective is a file with an ``Objective`` and a line in ``OBJECTIVES``; a new segmentation method is
a file with a function ``build`` and a line in ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ..config import Fit
from ..data.plan import Plan
from ..errors import InputError
from ..train.labelled import HeldOut, Labelled
from ..train.pretraining import Objective
from ..train.run import Run
from ..train.start import Start
from ..train.task import Task
from . import mask_diffusion, pixel, probing, segmentation
from .contrastive import Contrastive
from .coordinates import Coordinates
from .ddep import DDeP
from .denoising import DDPM
from .restorative import Restorative

OBJECTIVES: Mapping[str, type[Objective]] = {
    "ddpm": DDPM,
    "ddep": DDeP,
    "restorative": Restorative,
    "contrastive": Contrastive,
    "coordinates": Coordinates,
}
"""Ways of pre-training, by ``--objective``."""
Build = Callable[[Fit, Plan, Start | None, HeldOut | None], Task]
"""From the settings, the plan, the pre-trained network, if any, and the held-out images to the task."""
Finish = Callable[[Run, nn.Module, Labelled, Fit], None]
"""Adds results to a run whose network is trained and saved."""


def nothing(*_: object) -> None:
    """The default of ``Method.verify`` and ``Method.finish``."""


@dataclass(frozen=True)
class Method:
    """A segmentation method.

    Attributes:
        build: Makes the task.
        pretrained: Whether ``--from`` is required (True), refused (False) or optional (None).
        verify: Refuses settings before anything is read.
        finish: Adds results to the run.
    """

    build: Build
    pretrained: bool | None = None
    verify: Callable[[Fit], None] = nothing
    finish: Finish = nothing


METHODS: Mapping[str, Method] = {
    "finetune": Method(segmentation.build, pretrained=True),
    "scratch": Method(segmentation.build, pretrained=False),
    "dynunet": Method(segmentation.build_dynunet, pretrained=False),
    "pixel": Method(pixel.build, pretrained=True),
    "probe": Method(probing.build, pretrained=True, finish=probing.score_heads),
    "diffusion": Method(mask_diffusion.build, verify=mask_diffusion.verify),
    "supervised": Method(segmentation.build, verify=mask_diffusion.verify),
}
"""Segmentation methods, by ``--method``; supervised is diffusion with the strategy none."""


def method_of(settings: Fit) -> Method:
    """The method of the settings.

    Raises:
        InputError: It conflicts with other settings.
    """
    name: str = settings.method or ("finetune" if settings.from_run else "scratch")
    if name == "diffusion" and settings.diffusion.strategy == "none":
        name = "supervised"
    method = METHODS[name]
    if method.pretrained and not settings.from_run:
        problem, remedy = "needs a pre-trained network", "Give one with --from"
        raise InputError(f"--method {name}", problem, remedy)
    if method.pretrained is False and settings.from_run:
        problem, remedy = "cannot start from a pre-trained run", "Leave --from or --method out"
        raise InputError(f"--method {name}", problem, remedy)
    method.verify(settings)
    return method


def learned_from_noise(run: Run) -> bool:
    """Whether a pre-trained network learned from noised images, and so knows timesteps."""
    return OBJECTIVES[run.config["settings"].get("objective", "ddpm")].noised
