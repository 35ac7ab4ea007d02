"""What ``--dry-run`` prints: the resolved settings, the plan, and what the network costs. Nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..config import Fit, Pretrain, Synthesize, UNetConfig, resolve_network
from ..config.values import to_dict
from ..data.plan import Plan, make_plan
from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn


def describe(name: str, settings: Any) -> str:
    """The text of a dry run.

    Args:
        name: Name of the command.
        settings: Its settings.

    Raises:
        InputError: Data that exists but cannot be used. Data that does not exist is only noted, so that a recipe can
            be looked at before its data is there.
    """
    parts = [f"radiffuse {name}", yaml.safe_dump(to_dict(settings), sort_keys=False).rstrip()]
    if isinstance(settings, Pretrain | Fit | Synthesize):
        found = _plan(settings)
        plan = None if isinstance(found, str) else found
        parts.append(f"plan\n{plan.to_json().rstrip()}" if plan else str(found))
        if isinstance(settings, Synthesize):
            parts.append(_stages(settings, plan))
        elif isinstance(settings, Fit) and settings.method == "probe":
            parts.append(_heads(settings))
        else:
            parts.append(_network(settings, plan))
    return "\n\n".join(parts)


def _plan(settings: Pretrain | Fit | Synthesize) -> Plan | str:
    from ..train.cases import read_dataset
    from ..train.start import find_pretrained

    if isinstance(settings, Fit) and settings.from_run:
        return find_pretrained(settings.from_run).plan
    if isinstance(settings, Pretrain) and settings.coordinates is not None:
        if not Path(settings.coordinates).exists():
            return f"plan: that of {settings.coordinates}, when it is there"
        return find_pretrained(settings.coordinates).plan
    if not Path(settings.data).exists():
        return f"plan: made when {settings.data} is there"
    dataset = read_dataset(settings.data, settings.reader)
    return make_plan(dataset, settings.plan, labelled=isinstance(settings, Fit))


def _heads(settings: Fit) -> str:
    from ..objectives import learned_from_noise
    from ..objectives.probing import heads
    from ..train.start import find_pretrained, load_denoiser

    if not settings.from_run:
        raise InputError("--method probe", "needs a pre-trained network", "Give one with --from")
    run = find_pretrained(settings.from_run)
    try:
        several = list(heads(settings.probe, load_denoiser(run), clean=not learned_from_noise(run)))
    except ValueError as error:
        raise InputError(
            "radiffuse fit", str(error), "See radiffuse fit --method probe --help"
        ) from None
    lines = [
        f"{head.name}: timesteps {', '.join(map(str, head.timesteps))}, {', '.join(head.taps)}"
        for head in several
    ]
    return "\n".join(["heads on frozen features", *lines])


def _stages(settings: Synthesize, plan: Plan | None) -> str:
    """What the three stages of a synthesizer train."""
    import torch

    from ..synthesis.autoencoder import build_autoencoder
    from ..synthesis.denoiser import build_denoiser
    from ..synthesis.dino import DinoNetwork

    size = max(plan.size if plan else (settings.plan.size or (64,)))
    channels = len(plan.channels) if plan else 1
    with torch.device("meta"):  # sizes alone: no weights are made
        branch = DinoNetwork(settings.dino, size, channels).student.backbone
        autoencoder = build_autoencoder(settings.vae, channels, size)
        denoiser = build_denoiser(
            settings.denoiser,
            latent_channels=settings.vae.latent_channels,
            size=size // autoencoder.factor,
            width=settings.dino.width,
        )
    stages = (
        ("encoder", settings.encoder, branch, settings.dino.training),
        (
            "autoencoder",
            settings.autoencoder or settings.from_run,
            autoencoder,
            settings.vae.training,
        ),
        ("denoiser", settings.from_run, denoiser, settings.training),
    )
    lines = []
    for name, given, network, training in stages:
        what = _millions(network) if given is None else f"from {given}"
        if given is None or name == "denoiser":
            what += f", {training.steps} steps of {training.batch_size} images"
        lines.append(f"{name:<12} {what}")
    return f"networks at {size} pixels\n" + "\n".join(lines)


def _network(settings: Pretrain | Fit, plan: Plan | None) -> str:
    """The network at the size of the plan, or of the settings where the plan is not known yet."""
    from ..nets.summary import summarize

    size = plan.size if plan else (settings.plan.size or (64,))
    size = size * 2 if len(size) == 1 else size
    channels = len(plan.channels) if plan else 1
    at = " x ".join(map(str, size))
    if isinstance(settings, Fit) and settings.method == "dynunet":
        from ..nets.dynunet import new_dynunet

        classes = len(plan.classes) if plan else 2
        network = new_dynunet(channels, classes, size, plan.spacing if plan else None)
        levels = ", ".join(map(str, network.filters))
        return f"DynUNet at {at}: {_millions(network)}, levels of {levels} channels"
    unet = _unet(settings, plan, len(size), channels)
    batch = settings.training.micro_batch or settings.training.batch_size
    try:
        summary = summarize(unet, size, batch)
    except ValueError as error:
        raise InputError("--size", str(error), "Choose another size") from None
    text = f"network at {at}, {batch} images a pass\n{summary}"
    if isinstance(settings, Pretrain) and settings.coordinates is not None:
        text += "\nguided            by a frozen regressor, not counted here"
    return text


def _unet(settings: Pretrain | Fit, plan: Plan | None, dims: int, channels: int) -> UNetConfig:
    from ..nets.mask_denoiser import mask_denoiser_config
    from ..objectives import OBJECTIVES
    from ..objectives.mask_diffusion import SELF_CONDITIONED
    from ..train.start import find_pretrained, load_denoiser

    if isinstance(settings, Pretrain):
        return OBJECTIVES[settings.objective](settings).unet(dims, channels)
    classes = len(plan.classes) if plan and plan.classes else channels
    if settings.from_run:
        denoiser = load_denoiser(find_pretrained(settings.from_run), settings.weights)
        unet = replace(denoiser.config, out_channels=classes)
    else:
        unet = resolve_network(
            settings.network, spatial_dims=dims, in_channels=channels, out_channels=classes
        )
    strategy = settings.diffusion.strategy
    if settings.method == "diffusion" and strategy != "none":
        return mask_denoiser_config(unet, classes, strategy in SELF_CONDITIONED)
    return unet


def _millions(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters"
