"""Who labels the pool besides the run's own average: a finished run, and mask diffusion that repairs masks.

A finished run as the teacher is self-training (Xie et al. 2020, arXiv 1911.04252), with labels made anew in each step.
A mask diffusion that was trained with recycling (Fu et al. 2023, arXiv 2308.16355) has learned to denoise masks that a
network predicted; here it denoises the teacher's [ours].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import Diffusion, Fit
from ..config.values import from_dict
from ..core.diffusion import GaussianDiffusion
from ..data.plan import PREPARED, Plan
from ..errors import InputError
from ..nets.mask_denoiser import MaskDenoiser
from ..nets.registry import load_network
from ..system.files import sha256
from ..train.device import local_device, make_fabric
from ..train.known import refuse_knowing
from ..train.labelled import Labelled
from ..train.members import members_of
from ..train.random import StepRandom
from ..train.run import Run
from ..train.unchanged import require_same_cases, require_same_names
from .members import Member, Overrides, at_size, brief, diffusion_settings, is_seen_as, open_members

ALIKE = ("classes", "channels", "spatial_dims", *PREPARED)
"""What a run must have in its plan as this one has it, to label images as this one sees them."""
SAMPLES = 4
"""Masks that a corrector draws of each image [ours]."""
NOISED = 0.5
"""Timestep that masks are noised to before they are corrected, as a fraction of all [ours]."""


@dataclass(frozen=True)
class Teachers:
    """Who labels the pool.

    Attributes:
        label: Images ``(B, C, *S)`` to probabilities ``(B, K, *S)``; None: the averaged weights do.
        correct: What repairs the masks; None: nothing.
    """

    label: Callable[[Tensor], Tensor] | None = None
    correct: Corrector | None = None


class Corrector:
    """A mask diffusion that repairs masks: it draws several from each, noised, and says where they agree."""

    def __init__(self, network: MaskDenoiser, diffusion: Diffusion) -> None:
        self.network = network.eval().requires_grad_(False)
        self.process = GaussianDiffusion(diffusion)
        self.timestep = int(NOISED * (diffusion.num_train_timesteps - 1))

    @torch.no_grad()
    def __call__(self, images: Tensor, found: Tensor, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Mean probabilities ``(B, K, *S)`` over the masks that are drawn, and their agreement ``(B, *S)``.

        The agreement is 1 - 4 v, v being the largest variance of a class's probability, which is at most 1/4.

        Args:
            images: ``(B, C, *S)`` in [-1, 1].
            found: Probabilities ``(B, K, *S)``.
            random: Source of the noise.
        """
        self.process.to(images.device)
        x_start = 2 * found - 1
        t = torch.full((len(images),), self.timestep, device=images.device)
        mean, square = torch.zeros_like(found), torch.zeros_like(found)
        for _ in range(SAMPLES):
            x_t = self.process.add_noise(x_start, random.normal(found.shape[1:]), t)
            drawn = self.network(images, x_t, t, x_start).float().softmax(1)
            mean += drawn / SAMPLES
            square += drawn**2 / SAMPLES
        return mean, 1 - 4 * (square - mean**2).amax(1).clamp(0, 0.25)


def find_teachers(run: Run, settings: Fit, labelled: Labelled) -> Teachers:
    """The teachers of the settings; once anything was trained, those with other weights are refused.

    Raises:
        InputError: A run sees images in another way, learned from cases that are held out here, or is of a kind that
            does not fit; or it was trained anew since this one began.
    """
    wanted = settings.pool
    given = {"teacher": wanted.teacher, "corrector": wanted.corrector}
    parts = {f"--pool.{k} {v}": members_of(Run.open(v)) for k, v in given.items() if v}
    models = []
    for where, members in parts.items():
        _verify(where, members, labelled)
        for member in members:
            models.append(f"{member.folder} ({sha256(member.model / 'model.safetensors')[:12]})")
    if models:
        require_same_names(run.folder, models, trained=run.trained, group="teachers")
        require_same_cases(run.folder, {"teachers": dict.fromkeys(models, "")}, trained=run.trained)
    return _opened(settings, make_fabric(settings.machine).device)


def teachers_to_time(settings: Fit, plan: Plan) -> Teachers:
    """The teachers of the settings, for steps whose time is measured.

    Nobody labels where they do not see images as the plan does, or cannot be opened: ``find_teachers`` says so.
    """
    wanted = settings.pool
    if not (wanted.teacher or wanted.corrector):
        return Teachers()
    try:
        runs = [Run.open(name) for name in (wanted.teacher, wanted.corrector) if name]
        if any(_unlike(members_of(run), plan) for run in runs):
            return Teachers()
        return _opened(settings, local_device(settings.machine).device)
    except InputError:
        return Teachers()


# ------------------------------------------------------------------------------------------------ internal


def _opened(settings: Fit, device: torch.device) -> Teachers:
    wanted, label, correct = settings.pool, None, None
    if wanted.teacher:
        source = Run.open(wanted.teacher)
        voting = open_members(source, settings.machine, device, Overrides())
        if any(member.draws for member in voting):
            problem = "draws its masks, which takes many passes"
            remedy = "Give it as --pool.corrector, or a run of another method"
            raise InputError(f"--pool.teacher {wanted.teacher}", problem, remedy)
        label = _together(voting)
    if wanted.corrector:
        correct = _corrector(wanted.corrector, device)
    return Teachers(label, correct)


def _verify(where: str, members: Sequence[Run], labelled: Labelled) -> None:
    """Refuse runs that see images in another way, or that know the answers."""
    for name, theirs in _unlike(members, labelled.plan).items():
        ours = getattr(labelled.plan, name)
        problem = f"has {name} {brief(theirs)} in its plan, this run has {brief(ours)}"
        raise InputError(where, problem, f"Train it on the same plan, or give --plan.{name}")
    for run in members:
        refuse_knowing(where, run, labelled.dataset, labelled.splits)


def _unlike(members: Sequence[Run], plan: Plan) -> dict[str, Any]:
    """What their plans have otherwise; further ones may see whole films at sizes of their own."""
    first = members[0].plan
    for its in (member.plan for member in members):
        if is_seen_as(its, first):
            its = replace(its, size=first.size, grid=first.grid)
        if unlike := {n: getattr(its, n) for n in ALIKE if getattr(its, n) != getattr(plan, n)}:
            return unlike
    return {}


def _together(members: Sequence[Member]) -> Callable[[Tensor], Tensor]:
    """Mean probability of runs that need no noise, of images as they are: in the first steps they may be coarser.

    Only members with another grid than the first see them at a size of their own.
    """
    ours = members[0].plan.size

    @torch.no_grad()
    def label(images: Tensor) -> Tensor:
        generator, total = torch.Generator(), sum(member.weight for member in members)

        def found(member: Member) -> Tensor:
            def logits(seen: Tensor) -> Tensor:
                return member.segment(seen, generator)[-1]

            size = member.plan.size
            return member.weight * at_size(
                logits, images, images.shape[2:] if size == ours else size
            )

        return torch.stack([found(member) for member in members]).sum(0) / total

    return label


def _corrector(folder: str, device: torch.device) -> Corrector:
    run = Run.open(folder)
    network = load_network(run.model) if run.finished else None
    if not isinstance(network, MaskDenoiser):
        remedy = "Give a finished run of fit --method diffusion"
        raise InputError(f"--pool.corrector {folder}", "is no mask diffusion", remedy)
    process = from_dict(Diffusion, diffusion_settings(run)["process"])
    return Corrector(network.to(device), process)
