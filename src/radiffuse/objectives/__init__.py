"""What is learned: one loss per file, to be read beside its paper, and the tables of their names.

A new pre-training objective is a file with an ``Objective`` and a line in ``OBJECTIVES``; a new segmentation method is
a file with a function ``build`` and a line in ``METHODS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..config import Fit, Pretrain
from ..config.segmenting import POOLED
from ..data.batches import Batches
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..data.plan import Plan
from ..errors import InputError
from ..inference.teachers import Teachers, teachers_to_time
from ..train.inherit import inherit
from ..train.labelled import HeldOut, Labelled
from ..train.planning.measuring import Blank
from ..train.planning.plan_training import Trial
from ..train.pool import foreground_shares, on_blank
from ..train.pretraining import Objective
from ..train.run import Run
from ..train.start import (
    Start,
    as_unet,
    diffusion_of,
    find_pretrained,
    knows_timesteps,
    load_pretrained,
    verify_kind,
)
from ..train.task import BatchesByStep, Task
from . import joint, mask_diffusion, pixel, probing, segmentation
from .clean_features import CleanFeatures
from .consistency import Consistency
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
FILMS = "films"
"""Shipped weights for gray films. Of 59 films, distances by their features go with those of lung masks better (rank
correlation .49) than by films-64 (.22) or an encoder trained on ImageNet (.28)."""
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


def from_start(settings: Fit, seen: dict[Any, Any] | None = None) -> tuple[Fit, Start | None]:
    """The settings as they are obeyed, and the network that they start from; None without ``--from``.

    Args:
        settings: Of the command.
        seen: Networks that were loaded before are taken from it, and others put into it.

    Raises:
        InputError: There is no such run, or a setting asks for another grid or network than it has.
    """
    if not settings.from_run:
        return settings, None
    seen = {} if seen is None else seen
    if (key := ("start", settings.from_run, settings.weights)) not in seen:
        seen[key] = open_start(settings.from_run, settings.weights)
    start: Start = seen[key]
    return inherit(settings, start), start


def open_start(name: str, weights: str = "average") -> Start:
    """The network of a pre-trained run by folder, or shipped weights by name.

    Raises:
        InputError: There is no such run, or it was not pre-trained.
    """
    run = find_pretrained(name)
    network = load_pretrained(run, weights)
    return Start(run, network, diffusion_of(run), learned_from_noise(run), run.plan)


def start_for(cases: Dataset, name: str | None) -> tuple[Start | None, str]:
    """The network whose features scans are compared by, and its name; None where no network is at hand.

    Args:
        cases: The scans.
        name: A pre-trained run or shipped weights; None: the shipped ones for gray films.

    Raises:
        InputError: There is no such run, or its network is no denoiser of such images.
    """
    if name is None:
        if len(cases.channels) > 1 or find_dims(cases) == 3:
            return None, "small versions of the images"
        name = FILMS
    start = open_start(name)
    verify_kind(cases, start.run, mixed=True)
    as_unet(start.network, start.run)
    return start, f"the features of {name}"


def trial_of(build: Build, start: Start | None) -> Trial[Fit]:
    """Makes the task of a method, and batches for it, of blank arrays."""

    def trial(blank: Blank, settings: Fit) -> tuple[Task, BatchesByStep]:
        training = settings.training
        batches = Batches(
            blank,
            batch_size=training.batch,
            seed=training.seed,
            augmentation=settings.augmentation,
        )
        teachers = teachers_to_time(settings, blank.plan)
        task = pooled(build(settings, blank.plan, start, None), settings, batches, teachers)
        return task, on_blank(batches, blank, settings)

    return trial


def pooled(
    task: Task,
    settings: Fit,
    labelled: Batches,
    teachers: Teachers = Teachers(),  # noqa: B008 (frozen)
) -> Task:
    """The task, with a loss of the pool beside that of the labelled images, if there is a pool and it has none."""
    if not settings.unlabelled or settings.method not in POOLED:
        return task
    shares = foreground_shares(labelled)
    return Consistency(task, settings.pool, settings.loss, shares, labelled.mirrored, teachers)


def learned_from_noise(run: Run) -> bool:
    """Whether a pre-trained network learned from images noised to all timesteps, and so knows others than 0."""
    return (
        knows_timesteps(run) and OBJECTIVES[run.config["settings"].get("objective", "ddpm")].noised
    )
