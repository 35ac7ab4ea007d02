"""What segmentation starts from, and what scans are compared by: trained networks, and what they learned from."""

from __future__ import annotations

from typing import Any

from ..config import Fit
from ..data.dataset import Dataset
from ..data.fingerprint import find_dims
from ..train.inherit import inherit
from ..train.run import Run
from ..train.start import (
    Start,
    as_unet,
    diffusion_of,
    find_pretrained,
    is_segmenter,
    knows_timesteps,
    load_start,
    not_pretrained,
    verify_kind,
)
from .registry import OBJECTIVES

FILMS = "films"
"""Shipped weights for gray films. Of 59 films, distances by their features go with those of lung masks better (rank
correlation .49) than by films-64 (.22) or an encoder trained on ImageNet (.28)."""


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
    """The network of a run by folder, or shipped weights by name.

    Raises:
        InputError: There is no such run, or nothing starts from its network.
    """
    run = find_pretrained(name)
    network = load_start(run, weights)
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
    if is_segmenter(start.run):
        raise not_pretrained(start.run)
    verify_kind(cases, start.run, mixed=True)
    as_unet(start.body, start.run)
    return start, f"the features of {name}"


def learned_from_noise(run: Run) -> bool:
    """Whether a pre-trained network learned from images noised to all timesteps, and so knows others than 0."""
    return (
        knows_timesteps(run) and OBJECTIVES[run.config["settings"].get("objective", "ddpm")].noised
    )
