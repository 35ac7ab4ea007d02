"""The members of an ensemble: each a trained run, as a function from images to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..config import Diffusion, Machine, Sampling
from ..config.values import from_dict
from ..data.plan import PREPARED, Plan
from ..data.steps import steps_in_words
from ..errors import InputError, RunError
from ..nets.joint_denoiser import JointDenoiser
from ..nets.mask_denoiser import MaskDenoiser
from ..nets.memory_format import channels_last
from ..nets.probe import ProbedNetwork
from ..nets.registry import load_network
from ..nets.unet import UNet
from ..system.saying import say
from ..train.edited import other_classes, verify_edited
from ..train.members import members_of, views_of
from ..train.memory import verify_memory
from ..train.run import WEIGHTS, Run
from .mask_sampler import MaskSampler


class Segment(Protocol):
    """Images to logits."""

    def __call__(
        self, images: Tensor, generator: torch.Generator, every_step: bool = False
    ) -> Tensor:
        """``(B, C, *S)`` in [-1, 1] to ``(steps, B, K, *S)``: the result, or that of every step of a sampler."""


@dataclass(frozen=True)
class Overrides:
    """What the user sets instead of the run: how masks are sampled, and by which ``head`` of a probing run.

    ``legacy_timesteps`` are those of ``config.Sampling``.
    """

    sampler: str | None = None
    steps: int | None = None
    legacy_timesteps: bool = False
    head: str | None = None

    def apply(self, sampling: Sampling) -> Sampling:
        """The run's settings with the overrides."""
        asked = {"sampler": self.sampler, "steps": self.steps}
        given = {name: value for name, value in asked.items() if value is not None}
        legacy = sampling.legacy_timesteps or self.legacy_timesteps
        return replace(sampling, **given, legacy_timesteps=legacy)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Member:
    """A trained run that can vote.

    Attributes:
        name: The run's folder.
        segment: Images to logits.
        plan: How it prepares scans.
        draws: Whether its result is random, so that several samples differ.
        heads: Whether it has heads to choose from.
        timesteps: Training timesteps of its sampling steps; () for a single pass.
        weight: Of its vote; the members of one run share that of the run.
        tta: Views that its run averages, see ``views.views``.
    """

    name: str
    segment: Segment
    plan: Plan
    draws: bool = False
    heads: bool = False
    timesteps: tuple[int, ...] = ()
    weight: float = 1.0
    tta: tuple[str, ...] = ()


def is_seen_as(plan: Plan, other: Plan) -> bool:
    """Whether a network sees scans as another does, or whole films at another size of the same shape."""
    differing = {name for name in PREPARED if getattr(plan, name) != getattr(other, name)}
    if not differing:
        return True
    whole = plan.spatial_dims == 2 and plan.whole and other.whole
    same_shape = plan.size[0] * other.size[-1] == plan.size[-1] * other.size[0]
    return whole and same_shape and differing <= {"size", "grid"}


def at_size(network: Callable[[Tensor], Tensor], images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Probabilities ``(B, K, *S)`` of images ``(B, C, *S)``; a network may see films at a size of its own."""
    found = network(_resized(images, size)).float().softmax(1)
    return _resized(found, images.shape[2:])


def open_members(
    run: Run, machine: Machine, device: torch.device, overrides: Overrides
) -> list[Member]:
    """What votes as one run: itself, or the runs that it is a choice of; see ``open_member``.

    Classes have the names, and masks the steps after segmentation, of the run's own plan, which may change at any time.

    Raises:
        RunError: As ``open_member``; or the plan of a choice was edited in what only those of its runs decide.
    """
    parts = [open_member(part, machine, device, overrides) for part in members_of(run)]
    own, first = run.plan, parts[0].plan
    if len(own.classes) != len(first.classes):
        raise other_classes(run, len(first.classes))
    for name in ("spatial_dims", "channels", "mirror", *PREPARED):
        if (now := getattr(own, name)) != (before := getattr(first, name)):
            problem = f"has {name} {brief(now)}, and its runs have plans of their own, the first with {brief(before)}"
            remedy = f"Put that back, or edit {parts[0].name}/plan.json"
            raise RunError(run.folder / "plan.json", problem, remedy)
    weight, tta = 1 / len(parts), views_of(run)
    plans = [replace(p.plan, classes=own.classes, postprocess=own.postprocess) for p in parts]
    pairs = zip(parts, plans, strict=True)
    return [replace(part, plan=plan, weight=weight, tta=tta) for part, plan in pairs]


def open_member(run: Run, machine: Machine, device: torch.device, overrides: Overrides) -> Member:
    """A finished segmentation run, of any kind, ready to vote.

    Raises:
        RunError: Not finished, damaged, or without classes.
    """
    if not run.finished:
        command = run.config.get("command")
        raise RunError(
            run.folder, "has not finished training", f"Run radiffuse {command} again to resume"
        )
    plan = run.plan
    if not plan.classes:
        name = run.folder.name if run.folder.parent == WEIGHTS else run.folder
        fit = f"radiffuse fit LABELLED --method finetune --from {name} --out runs/seg"
        remedy = f"Fit it with {fit}, then give runs/seg"
        raise RunError(name, "is no segmentation run, but a start for one", remedy)
    network = load_network(run.model)
    verify_edited(run, network)
    if unet := next((part for part in network.modules() if isinstance(part, UNet)), None):
        verify_memory(plan.size, unet.config, machine, training=False)
    if machine.channels_last:
        network = network.to(memory_format=channels_last(plan.spatial_dims))  # type: ignore[call-overload]
    network = network.to(device).eval()
    if isinstance(network, ProbedNetwork):
        segment = _of_classes(probed(run, network, overrides.head), run)
        return Member(str(run.folder), segment, plan, heads=True)
    if not isinstance(network, MaskDenoiser | JointDenoiser):
        return Member(str(run.folder), _of_classes(one_pass(network), run), plan)
    if network.classes != len(plan.classes):
        raise other_classes(run, network.classes)
    settings = diffusion_settings(run)
    diffusion = from_dict(Diffusion, settings["process"])
    sampling = overrides.apply(from_dict(Sampling, settings["sampling"]))
    sampler = MaskSampler(network, diffusion, sampling)
    return Member(str(run.folder), sampler, plan, draws=True, timesteps=sampler.timesteps)


def _of_classes(segment: Segment, run: Run) -> Segment:
    """The same; it raises RunError where it finds another number of classes than the plan of the run names."""
    wanted = len(run.plan.classes)

    def checked(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        logits = segment(images, generator, every_step)
        if (found := logits.shape[2]) != wanted:
            raise other_classes(run, found)
        return logits

    return checked


def diffusion_settings(run: Run) -> Mapping[str, Any]:
    """The settings of a run that draws masks, by mask diffusion or joint: ``process``, ``sampling`` and others.

    Raises:
        RunError: It has none.
    """
    given = run.config["settings"]
    settings: Mapping[str, Any] | None = given.get("joint") or given.get("diffusion")
    if settings is None:
        problem = "names another method than that of its network, which draws masks"
        raise RunError(run.folder / "config.yaml", problem, "Restore the file")
    return settings


def one_pass(network: Callable[[Tensor], Tensor]) -> Segment:
    """A network that needs no sampling, from images to logits ``(B, K, *S)``."""

    def segment(images: Tensor, generator: torch.Generator, every_step: bool = False) -> Tensor:
        return network(images).float()[None]

    return segment


def probed(run: Run, network: ProbedNetwork, head: str | None) -> Segment:
    """One head of a probing run; None: the main one.

    Raises:
        InputError: The run has no such head.
    """
    name = head or network.names[0]
    if name not in network.names:
        problem = f"{run.folder} has no head of that name"
        raise InputError(f"--head {head}", problem, f"Heads are: {', '.join(network.names)}")

    return one_pass(lambda images: network(images, (name,))[0])


def common_steps(members: Sequence[Member]) -> tuple[str, ...]:
    """Steps after segmentation that every member has in its plan; says so where they differ."""
    first, *others = (
        tuple(step for step in member.plan.postprocess if step != "none") for member in members
    )
    common = tuple(step for step in first if all(step in steps for steps in others))
    if any(steps != first for steps in others):
        done = steps_in_words(common, members[0].plan.classes, members[0].plan.spatial_dims)
        say(
            f"the runs differ after segmentation; only steps that all of them share are taken: {done}"
        )
    return common


def verify_agreement(members: list[Member]) -> None:
    """Refuse an ensemble whose members see other channels or have other classes; each has a grid of its own.

    Raises:
        InputError: Names the two runs and the difference.
    """
    first = members[0]
    for other in members[1:]:
        for name in ("classes", "channels", "spatial_dims"):
            one, two = getattr(first.plan, name), getattr(other.plan, name)
            if one != two:
                problem = f"has {name} {brief(two)} in its plan, {first.name} has {brief(one)}"
                remedy = "Train the runs of an ensemble on the same data"
                raise InputError(other.name, problem, remedy)


def brief(value: object) -> str:
    """A value of a plan, in words."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    if images.shape[2:] == torch.Size(size):
        return images
    return functional.interpolate(images, tuple(size), mode="bilinear", align_corners=False)
