"""The members of an ensemble: each a trained run, as a function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..config import Diffusion, Machine, Sampling
from ..config.values import from_dict
from ..data.plan import Plan
from ..errors import InputError, RunError
from ..nets.mask_denoiser import MaskDenoiser
from ..nets.probe import ProbedNetwork
from ..nets.registry import load_network
from ..train.run import Run
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
        timesteps: Training timesteps of its sampling steps; () for a single pass.
    """

    name: str
    segment: Segment
    plan: Plan
    draws: bool = False
    timesteps: tuple[int, ...] = ()


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
        remedy = "Give a run of radiffuse fit"
        raise RunError(run.folder, "is no segmentation run", remedy)
    network = load_network(run.model)
    if machine.channels_last:
        order = torch.channels_last if plan.spatial_dims == 2 else torch.channels_last_3d
        network = network.to(memory_format=order)  # type: ignore[call-overload]
    network = network.to(device).eval()
    if isinstance(network, ProbedNetwork):
        return Member(str(run.folder), probed(run, network, overrides.head), plan)
    if not isinstance(network, MaskDenoiser):
        return Member(str(run.folder), one_pass(network), plan)
    settings = run.config["settings"]["diffusion"]
    diffusion = from_dict(Diffusion, settings["process"])
    sampling = overrides.apply(from_dict(Sampling, settings["sampling"]))
    sampler = MaskSampler(network, diffusion, sampling)
    return Member(str(run.folder), sampler, plan, draws=True, timesteps=sampler.timesteps)


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


def verify_agreement(members: list[Member]) -> None:
    """Refuse an ensemble whose members prepare scans differently or have other classes.

    Raises:
        InputError: Names the two runs and the difference.
    """
    first = members[0]
    for other in members[1:]:
        for name in ("classes", "channels", "spatial_dims", "size", "spacing", "resize",
                     "intensity", "low", "high", "crop", "postprocess"):  # fmt: skip
            one, two = getattr(first.plan, name), getattr(other.plan, name)
            if one != two:
                problem = f"has {name} {_brief(two)} in its plan, {first.name} has {_brief(one)}"
                remedy = "Train the runs of an ensemble on the same data with the same plan"
                raise InputError(other.name, problem, remedy)


def _brief(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
