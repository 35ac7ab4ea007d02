"""What ``--dry-run`` prints: the resolved settings, the plan, and what the network costs. Nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import config
from ..config.values import to_dict
from ..data.plan import Plan, make_plan
from ..errors import InputError

Trains = config.Pretrain | config.Fit
"""Commands that train a U-Net."""


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
    if isinstance(settings, Trains):
        plan = _plan(settings)
        if isinstance(plan, str):
            parts.append(plan)
        else:
            parts.append("plan\n" + plan.to_json().rstrip())
        if isinstance(settings, config.Fit) and settings.method == "probe":
            parts.append(_heads(settings))
        else:
            parts.append(_network(settings, None if isinstance(plan, str) else plan))
    if isinstance(settings, config.Synthesize):
        plan = _plan(settings)
        parts.append(plan if isinstance(plan, str) else "plan\n" + plan.to_json().rstrip())
        parts.append(_stages(settings, None if isinstance(plan, str) else plan))
    return "\n\n".join(parts)


def _plan(settings: Trains | config.Synthesize) -> Plan | str:
    from ..train.cases import read_dataset
    from ..train.start import find_pretrained

    labelled = isinstance(settings, config.Fit)
    if isinstance(settings, config.Fit) and settings.from_run:
        return find_pretrained(settings.from_run).plan
    if isinstance(settings, config.Pretrain) and settings.coordinates is not None:
        if not Path(settings.coordinates).exists():
            return f"plan: that of {settings.coordinates}, when it is there"
        return find_pretrained(settings.coordinates).plan
    if not Path(settings.data).exists():
        return f"plan: made when {settings.data} is there"
    dataset = read_dataset(settings.data, settings.reader)
    return make_plan(dataset, settings.plan, labelled=labelled)


def _heads(settings: config.Fit) -> str:
    from ..commands.probe import heads
    from ..train.start import find_pretrained, load_denoiser, noising_of

    assert settings.from_run is not None
    run = find_pretrained(settings.from_run)
    try:
        found = list(heads(settings, load_denoiser(run), clean=noising_of(run) is None))
    except ValueError as error:
        raise InputError(
            "radiffuse fit", str(error), "See radiffuse fit --method probe --help"
        ) from None
    lines = [
        f"{head.name}: timesteps {', '.join(map(str, head.timesteps))}, {', '.join(head.taps)}"
        for head in found
    ]
    return "\n".join(["heads on frozen features", *lines])


def _stages(settings: config.Synthesize, plan: Plan | None) -> str:
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
        millions = sum(p.numel() for p in network.parameters()) / 1e6
        what = f"{millions:.1f} M parameters" if given is None else f"from {given}"
        if given is None or name == "denoiser":
            what += f", {training.steps} steps of {training.batch_size} images"
        lines.append(f"{name:<12} {what}")
    return f"networks at {size} pixels\n" + "\n".join(lines)


def _network(
    settings: Trains,
    plan: Plan | None,
) -> str:
    from ..nets.mask_denoiser import mask_denoiser_config
    from ..nets.summary import summarize
    from ..objectives.mask_diffusion import SELF_CONDITIONED

    dims = plan.spatial_dims if plan else len(settings.plan.size or (0, 0))
    size = plan.size if plan else (settings.plan.size or (64,))
    if len(size) == 1:
        dims = 2
        size = size * dims
    channels = len(plan.channels) if plan else 1
    if isinstance(settings, config.Fit) and settings.method == "dynunet":
        return _dynunet(settings, plan, size, channels)
    guided = isinstance(settings, config.Pretrain) and settings.coordinates is not None
    inputs = channels + (dims if guided else 0)
    learned = isinstance(settings, config.Pretrain) and settings.diffusion.variance == "learned"
    outputs = len(plan.classes) if plan and plan.classes else channels * (2 if learned else 1)
    unet = config.resolve_network(
        settings.network, spatial_dims=dims, in_channels=inputs, out_channels=outputs
    )
    if isinstance(settings, config.Fit) and settings.method == "diffusion":
        strategy = settings.diffusion.strategy
        if strategy != "none":
            unet = mask_denoiser_config(unet, outputs, strategy in SELF_CONDITIONED)
    training = settings.training
    batch = training.micro_batch or training.batch_size
    try:
        summary = summarize(unet, size, batch)
    except ValueError as error:
        raise InputError("--size", str(error), "Choose another size") from None
    text = f"network at {' x '.join(map(str, size))}, {batch} images a pass\n{summary}"
    return text + "\nguided            by a frozen regressor, not counted here" if guided else text


def _dynunet(settings: config.Fit, plan: Plan | None, size: tuple[int, ...], channels: int) -> str:
    from ..nets.dynunet import new_dynunet

    classes = len(plan.classes) if plan else 2
    network = new_dynunet(channels, classes, size, plan.spacing if plan else None)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    levels = ", ".join(map(str, network.filters))
    return f"DynUNet at {' x '.join(map(str, size))}: {millions:.1f} M parameters, levels of {levels} channels"
