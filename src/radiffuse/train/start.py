"""What a run starts from: a finished run and its network; and whether a network fits a plan."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Diffusion, Pretrain, UNetConfig
from ..config.values import from_dict
from ..data.plan import Plan
from ..errors import InputError
from ..nets.registry import load_network
from ..nets.unet import UNet, check
from .run import Run, find_run


@dataclass(frozen=True)
class Start:
    """A pre-trained network that learning to segment starts from.

    Attributes:
        denoiser: The network.
        diffusion: The noising process of its run.
        noised: Whether it learned from noised images.
    """

    denoiser: UNet
    diffusion: Diffusion
    noised: bool


def find_pretrained(name: str) -> Run:
    """A finished run by folder, or shipped weights by name.

    Raises:
        InputError: Neither is there, or the run has not finished.
    """
    run = find_run(name)
    if not run.finished:
        raise InputError(
            run.folder,
            "has not finished training",
            f"Run radiffuse {run.config.get('command')} again with the same settings",
        )
    return run


def load_denoiser(run: Run, weights: str = "average") -> UNet:
    """The network of a pre-trained run.

    Args:
        run: A run of radiffuse pretrain.
        weights: ``average``, or ``raw`` for those of the last step.

    Raises:
        InputError: The run is something else.
    """
    denoiser = load_network(run.model, "raw" if weights == "raw" else "model")
    if not isinstance(denoiser, UNet):
        raise InputError(
            run.folder,
            "is not a pre-trained denoiser",
            "Give a run of radiffuse pretrain, of another objective than coordinates",
        )
    return denoiser


def diffusion_of(run: Run) -> Diffusion:
    """The noising process in the settings of a pre-training."""
    diffusion: Diffusion = from_dict(Diffusion, run.config["settings"]["diffusion"])
    return diffusion


def load_start(settings: Pretrain, unet: UNetConfig) -> UNet | None:
    """The network that pre-training starts from with ``--from``; None without.

    Raises:
        InputError: The run holds another network than the settings ask for.
    """
    if not settings.from_run:
        return None
    start = load_network(find_pretrained(settings.from_run).model)
    if not isinstance(start, UNet) or start.config != unet:
        raise InputError(
            settings.from_run,
            "holds another network than the settings ask for",
            "Give a pre-trained run of the same --network settings",
        )
    return start


def verify_size(plan: Plan, unet: UNetConfig) -> None:
    """Refuse a network that cannot be built, and a size that it cannot halve often enough.

    Raises:
        InputError: Names the setting, or the multiple that is needed.
    """
    try:
        check(unet)
    except ValueError as error:
        raise InputError(
            "--network", str(error), "Change it; see radiffuse COMMAND --help"
        ) from None
    multiple = 2 ** (len(unet.multipliers) - 1)
    if any(n % multiple for n in plan.size):
        raise InputError(
            f"size {'x'.join(map(str, plan.size))}",
            f"the network needs a multiple of {multiple} along each axis",
            "Set --size accordingly, or use a network with fewer levels",
        )
