"""The tables of what can be learned: ways of pre-training by ``--objective``, of segmenting by ``--method``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ..config import Fit, Pretrain
from ..config.segmenting import POOLED
from ..data.plan import Plan
from ..errors import InputError
from ..train.labelled import HeldOut, Labelled
from ..train.pretraining import Objective
from ..train.run import Run
from ..train.start import Start
from ..train.task import Task
from . import joint, mask_diffusion, pixel, probing, segmentation
from .clean_features import CleanFeatures
from .contrastive import Contrastive
from .coordinates import Coordinates
from .ddep import DDeP
from .denoising import DDPM
from .masked import Masked
from .restorative import Restorative

OBJECTIVES: Mapping[str, type[Objective]] = {
    "ddpm": DDPM,
    "ddep": DDeP,
    "restorative": Restorative,
    "contrastive": Contrastive,
    "masked": Masked,
    "clean-features": CleanFeatures,
    "coordinates": Coordinates,
}
"""Ways of pre-training, by ``--objective``."""
Build = Callable[[Fit, Plan, Start | None, HeldOut | None], Task]
"""From the settings, the plan, the pre-trained network, if any, and the held-out images to the task."""
Finish = Callable[[Run, nn.Module, Labelled, Fit], None]
"""Adds results to a run whose network is trained and saved."""
Describe = Callable[[Run, Labelled, Fit], None]
"""Adds to ``data.json`` of a run, from the data that it learns from, each time that these are read."""


def nothing(*_: object) -> None:
    """The default of ``Method.verify``, ``Method.describe`` and ``Method.finish``."""


@dataclass(frozen=True)
class Method:
    """A segmentation method.

    Attributes:
        build: Makes the task.
        pretrained: Whether ``--from`` is required (True), refused (False) or optional (None).
        verify: Refuses settings before anything is read.
        describe: Adds to what is recorded of the data.
        finish: Adds results to the run.
    """

    build: Build
    pretrained: bool | None = None
    verify: Callable[[Fit], None] = nothing
    describe: Describe = nothing
    finish: Finish = nothing


METHODS: Mapping[str, Method] = {
    "finetune": Method(segmentation.build, pretrained=True),
    "scratch": Method(segmentation.build, pretrained=False),
    "dynunet": Method(segmentation.build_dynunet, pretrained=False),
    "imagenet": Method(segmentation.build_imagenet, pretrained=False),
    "dino": Method(segmentation.build_dino, pretrained=False, verify=segmentation.verify_encoder),
    "pixel": Method(pixel.build, pretrained=True),
    "probe": Method(probing.build, pretrained=True, finish=probing.score_heads),
    "diffusion": Method(mask_diffusion.build, verify=mask_diffusion.verify),
    "joint": Method(joint.build, verify=joint.verify, describe=joint.name_patients),
    "supervised": Method(segmentation.build, verify=mask_diffusion.verify),
}
"""Segmentation methods, by ``--method``; supervised is diffusion with the strategy none."""


def objective_of(settings: Pretrain) -> Objective:
    """The objective of the settings, which has them as they are obeyed.

    Raises:
        InputError: One cannot be obeyed.
    """
    objective = OBJECTIVES[settings.objective](settings)
    return objective.with_settings(objective.obeyed())


def method_of(settings: Fit) -> Method:
    """The method of the settings.

    Raises:
        InputError: It conflicts with other settings.
    """
    assert settings.method is not None
    assert not settings.automatic, "auto chooses one"
    name: str = settings.method
    if name == "diffusion" and settings.diffusion.strategy == "none":
        name = "supervised"
    method = METHODS[name]
    if method.pretrained and not settings.from_run:
        problem, remedy = "needs a pre-trained network", "Give one with --from"
        raise InputError(f"--method {name}", problem, remedy)
    if method.pretrained is False and settings.from_run:
        problem, remedy = "cannot start from a pre-trained run", "Leave --from or --method out"
        raise InputError(f"--method {name}", problem, remedy)
    if settings.unlabelled and name not in (*POOLED, "joint"):
        problem = f"is for {', '.join(POOLED)} and joint, not for {name}"
        raise InputError("--unlabelled", problem, "Leave it or --method out")
    segmentation.verify_loss(settings)
    method.verify(settings)
    return method
