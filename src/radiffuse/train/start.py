"""The pre-trained network that a run starts from."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import Diffusion, Fit, Pretrain, UNetConfig, resolve_network
from ..config.values import from_dict
from ..data.plan import Plan
from ..errors import InputError
from ..nets.registry import load_network
from ..nets.unet import UNet, check
from .run import Run, find_run


@dataclass(frozen=True)
class Start:
    """A pre-trained network, the noising process of its run, and whether it learned from noised images."""

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
        remedy = f"Run radiffuse {run.config.get('command')} again with the same settings"
        raise InputError(run.folder, "has not finished training", remedy)
    return run


def load_denoiser(run: Run, weights: str = "average") -> UNet:
    """The network of a run of radiffuse pretrain, with ``average`` weights or the ``raw`` ones of the last step.

    Raises:
        InputError: The run has another kind of network.
    """
    denoiser = load_network(run.model, "raw" if weights == "raw" else "model")
    if not isinstance(denoiser, UNet):
        remedy = "Give a run of radiffuse pretrain, of another objective than coordinates"
        raise InputError(run.folder, "is not a pre-trained denoiser", remedy)
    return denoiser


def diffusion_of(run: Run) -> Diffusion:
    """The noising process in the settings of a pre-training."""
    diffusion: Diffusion = from_dict(Diffusion, run.config["settings"]["diffusion"])
    return diffusion


def load_start(settings: Pretrain, unet: UNetConfig) -> UNet | None:
    """The network that pre-training starts from with ``--from``; None without.

    Raises:
        InputError: Its network differs from that of the settings.
    """
    if not settings.from_run:
        return None
    start = load_network(find_pretrained(settings.from_run).model)
    if not isinstance(start, UNet) or start.config != unet:
        problem = "holds another network than the settings ask for"
        remedy = "Give a pre-trained run of the same --network settings"
        raise InputError(settings.from_run, problem, remedy)
    return start


def unet_for(settings: Fit, plan: Plan, start: Start | None = None) -> UNetConfig:
    """The U-Net to train: that of the pre-trained network, else that of the settings with an output per class.

    Raises:
        InputError: It cannot be built, or the plan's size does not fit it.
    """
    unet = (
        start.denoiser.config
        if start
        else resolve_network(
            settings.network,
            spatial_dims=plan.spatial_dims,
            in_channels=len(plan.channels),
            out_channels=len(plan.classes),
        )
    )
    verify_size(plan, unet)
    return unet


def verify_size(plan: Plan, unet: UNetConfig) -> None:
    """Refuse a network that cannot be built, or that cannot halve the plan's size at each level.

    Raises:
        InputError: Names the setting, or the multiple that is needed.
    """
    try:
        check(unet)
    except ValueError as error:
        remedy = "Change it; see radiffuse COMMAND --help"
        raise InputError("--network", str(error), remedy) from None
    multiple = 2 ** (len(unet.multipliers) - 1)
    if any(n % multiple for n in plan.size):
        where = f"size {'x'.join(map(str, plan.size))}"
        problem = f"the network needs a multiple of {multiple} along each axis"
        remedy = "Set --size accordingly, or use a network with fewer levels"
        raise InputError(where, problem, remedy)
