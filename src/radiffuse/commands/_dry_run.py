"""What ``--dry-run`` prints: the resolved settings, the plan, and what the network costs. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import nn

from ..automatic.opening import described, plan_choice
from ..config import (
    Augment,
    Classify,
    Convert,
    Diffusion,
    Evaluate,
    Export,
    Fit,
    Generate,
    Judge,
    PlanSettings,
    Predict,
    Pretrain,
    Select,
    Study,
    Synthesize,
    Training,
    UNetConfig,
    ZeroShot,
    resolve_network,
)
from ..config.effect import effective
from ..config.values import flatten, plain
from ..core.diffusion import GaussianDiffusion
from ..core.timesteps import timestep_sampler
from ..data.plan import Plan
from ..errors import InputError
from ..nets.dynunet import new_dynunet
from ..nets.imagenet import ImageNetUNet
from ..nets.joint_denoiser import joint_config
from ..nets.mask_denoiser import mask_denoiser_config
from ..nets.summary import summarize
from ..objectives import OBJECTIVES, from_start, method_of, objective_of, trial_of
from ..objectives.mask_diffusion import SELF_CONDITIONED
from ..objectives.probing import heads
from ..objectives.segmentation import dino_network
from ..release.convert import open_foreign
from ..studies.augment import first_parts
from ..studies.study import foreseen, open_study, verify
from ..synthesis.autoencoder import build_autoencoder
from ..synthesis.denoiser import build_denoiser
from ..synthesis.dino import DinoNetwork
from ..synthesis.judging import open_judged
from ..synthesis.training import plan_films
from ..system.files import refuse_foreign
from ..system.saying import say
from ..train.device import local_device
from ..train.labelled import OWN_NETWORK, plan_labelled
from ..train.learning_rate import cut_short
from ..train.planning.plan_text import format_plan
from ..train.run import MARKS
from ..train.start import Start, find_pretrained, unet_for, verify_size
from ..train.unlabelled import plan_unlabelled
from . import COMMANDS
from .classify import open_classified
from .evaluate import open_masks
from .export import open_exported
from .generate import open_source
from .judge import verify_out
from .predict import open_segmented
from .select import open_pool
from .zeroshot import open_zeroshot


def describe(name: str, settings: Any, defaults: Any, *, full: bool = False) -> str:
    """The text of a dry run: the plan, then the settings that differ from the defaults.

    Args:
        name: Name of the command.
        settings: Its settings.
        defaults: What they are where nothing is given.
        full: Show all settings that take effect, as the run would record them.

    Raises:
        InputError: The run would refuse it. Where a network is pre-trained, fitted or synthesized, data that does not
            exist is only noted, so that a recipe can be looked at before its data is there, on any machine.
    """
    parts: list[str] = []
    if isinstance(settings, Classify | Convert | Fit | Pretrain | Synthesize):
        refuse_foreign(Path(settings.out), *MARKS)
    if isinstance(settings, Fit):
        settings, parts = _fit(settings, full)
    elif isinstance(settings, Pretrain):
        settings, parts = _pretrain(settings, full)
    elif isinstance(settings, Synthesize):
        plan = _synthesis_plan(settings)
        parts = [_shown(plan, settings.data, full), _stages(settings, plan)]
        parts += _timesteps(settings.diffusion, settings.training)
    else:
        told = VERIFY.get(type(settings), lambda settings: None)(settings)
        parts = [told] if isinstance(told, str) else []
    shown, usual = effective(settings), flatten(plain(defaults))
    title = "settings"
    if variants := COMMANDS[name].variants:
        usual.pop(variants.setting)  # on which the others depend
    if not full:
        shown = {k: v for k, v in flatten(shown).items() if v != usual.get(k)}
        title = "settings that differ from the defaults (--dry-run full shows all)"
    shown = {key.removesuffix("_run"): value for key, value in shown.items()}  # as it is typed
    text = yaml.safe_dump(plain(shown), sort_keys=False, default_flow_style=None).rstrip()
    return "\n\n".join([f"radiffuse {name}", *parts, f"{title}\n{text}"])


def _classify(settings: Classify) -> str | None:
    local_device(settings.machine)
    open_classified(settings)
    return cut_short(settings.training) or None


def _predict(settings: Predict) -> None:
    write, dataset, _ = open_segmented(settings)
    if not settings.reader.skip_bad:
        write.verify(dataset.cases[0])


def _judge(settings: Judge) -> None:
    local_device(settings.machine)
    verify_out(settings)
    open_judged(settings)


def _study(settings: Study) -> str:
    if not Path(settings.data).exists():
        verify(settings)
        return foreseen(settings)
    dataset, splits, sentences = open_study(settings, write=False)
    for sentence in sentences:
        say(sentence)
    counts = [len(part) for part in (splits.train, splits.validation, splits.test)]
    held = "{} to draw the labelled ones from, {} for validation, {} for the test".format(*counts)
    return f"{foreseen(settings)}\n{len(dataset)} labelled cases: {held}"


def _augment(settings: Augment) -> None:
    trained, drawing = first_parts(settings)
    open_classified(trained)
    if drawing is not None:
        open_source(drawing)


VERIFY: Mapping[type, Callable[[Any], object]] = {
    Augment: _augment,
    Classify: _classify,
    Convert: open_foreign,
    Evaluate: open_masks,
    Export: open_exported,
    Generate: open_source,
    Judge: _judge,
    Predict: _predict,
    Select: open_pool,
    Study: _study,
    ZeroShot: open_zeroshot,
}
"""What the run opens, and refuses, before it prepares or writes anything: ``open_...`` of its command."""


def _fit(settings: Fit, full: bool) -> tuple[Fit, list[str]]:
    if settings.automatic:
        return settings, [_automatic(settings)]
    method = method_of(settings)
    settings, start = from_start(settings)
    plan = start.plan if start else None
    if Path(settings.data).exists():
        planned = plan_labelled(settings, start, trial_of(method.build, start))
        settings, plan = planned.settings, planned.plan
        if start or settings.method == "dino":
            method.build(settings, plan, start, None)
        elif settings.method not in OWN_NETWORK:
            unet_for(settings, plan)
    parts = [_shown(plan, settings.data, full)]
    if settings.method == "probe":
        assert start is not None
        parts.append(_heads(settings, start))
    elif settings.method == "dino":
        parts.append(_dino(settings, *_grid(settings.plan, plan), len(plan.classes) if plan else 2))
    elif settings.method == "imagenet" or (start and start.unet is None):
        classes = len(plan.classes) if plan else 0
        parts.append(_imagenet(*_grid(settings.plan, plan), classes=classes or 2))
    elif settings.method == "dynunet":
        parts.append(_dynunet(plan, *_grid(settings.plan, plan)))
    else:
        size, channels = _grid(settings.plan, plan)
        classes = len(plan.classes) if plan and plan.classes else channels
        unet = resolve_network(
            settings.network, spatial_dims=len(size), in_channels=channels, out_channels=classes
        )
        if start:
            unet = replace(start.denoiser.config, out_channels=classes)
        strategy = settings.diffusion.strategy
        if settings.method == "diffusion" and strategy != "none":
            unet = mask_denoiser_config(unet, classes, strategy in SELF_CONDITIONED)
        if settings.method == "joint":
            unet = joint_config(unet, classes)
        parts.append(_network(settings, unet, size))
        if settings.method == "diffusion" and strategy != "none":
            parts += _timesteps(settings.diffusion.process, settings.training)
    return settings, [*parts, *_warm_up(settings.training)]


def _automatic(settings: Fit) -> str:
    """Folds and candidates."""
    if not Path(settings.data).exists():
        return f"candidates: found when {settings.data} is there"
    return "\n".join(described(*plan_choice(settings), pool=bool(settings.unlabelled)))


def _pretrain(settings: Pretrain, full: bool) -> tuple[Pretrain, list[str]]:
    given, plan = settings.coordinates, None
    if given is not None and not Path(given).exists():
        objective = OBJECTIVES[settings.objective](settings)
        planned = f"plan: that of {given}, when it is there"
    else:
        objective = objective_of(settings)
        plan = find_pretrained(given).plan if given is not None else None
        if Path(settings.data).exists():
            found = plan_unlabelled(objective)
            objective, plan = found.objective, found.plan
        planned = _shown(plan, settings.data, full)
    settings = objective.settings
    size, channels = _grid(settings.plan, plan)
    if objective.on_imagenet:
        text = _imagenet(size, channels, channels)
        return settings, [planned, text, *_warm_up(settings.training)]
    if objective.noised:
        GaussianDiffusion(settings.diffusion)
    text = _network(settings, objective.unet(len(size), channels), size)
    if given is not None:
        text += "\nguided            by a frozen regressor, not counted here"
    at = _timesteps(settings.diffusion, settings.training) if objective.noised else []
    return settings, [planned, text, *at, *_warm_up(settings.training)]


def _synthesis_plan(settings: Synthesize) -> Plan | None:
    if not Path(settings.data).exists():
        return None
    return plan_films(settings)[1]


def _shown(plan: Plan | None, data: str, full: bool) -> str:
    """The plan with its reasons, in full as it is written."""
    if plan is None:
        return f"plan: made when {data} is there"
    if full:
        return f"plan\n{plan.to_json().rstrip()}"
    console = Console(width=120, file=StringIO())
    with console.capture() as text:
        console.print(format_plan(plan))
    return "\n".join(line.rstrip() for line in text.get().rstrip().splitlines())


def _grid(settings: PlanSettings, plan: Plan | None) -> tuple[tuple[int, ...], int]:
    """Size and channels of the plan, or of the settings where the plan is not known yet."""
    size = plan.size if plan else (settings.size or (64,))
    return size * 2 if len(size) == 1 else size, len(plan.channels) if plan else 1


def _timesteps(diffusion: Diffusion, training: Training) -> list[str]:
    remark = timestep_sampler(diffusion).remark(training.batch_size, training.steps)
    return [remark] if remark else []


def _warm_up(training: Training, group: str = "") -> list[str]:
    remark = cut_short(training, group)
    return [remark] if remark else []


def _heads(settings: Fit, start: Start) -> str:
    lines = [
        f"{head.name}: timesteps {', '.join(map(str, head.timesteps))}, {', '.join(head.taps)}"
        f"{', coordinates' if head.coordinates else ''}"
        for head in heads(settings.probe, start.denoiser, clean=not start.noised)
    ]
    return "\n".join(["heads on frozen features", *lines])


def _stages(settings: Synthesize, plan: Plan | None) -> str:
    """What the three stages of a synthesizer train."""
    size = max(plan.size if plan else (settings.plan.size or (64,)))
    channels = len(plan.channels) if plan else 1
    with torch.device("meta"):  # sizes alone: no weights are made
        branch = DinoNetwork(settings.dino, size, channels).student.backbone
        autoencoder = build_autoencoder(settings.vae, channels, size)
        denoiser = build_denoiser(
            settings.denoiser,
            settings.diffusion,
            latent_channels=settings.vae.latent_channels,
            size=size // autoencoder.factor,
            width=settings.dino.width,
        )
    source = settings.autoencoder or settings.from_run
    stages = (
        ("encoder", settings.encoder, branch, settings.dino.training, "dino."),
        ("autoencoder", source, autoencoder, settings.vae.training, "vae."),
        ("denoiser", settings.from_run, denoiser, settings.training, ""),
    )
    lines, remarks = [], list[str]()
    for name, given, network, training, group in stages:
        what = _millions(network) if given is None else f"from {given}"
        if given is None or name == "denoiser":
            what += f", {training.steps} steps of {training.batch_size} images"
            remarks += _warm_up(training, group)
        lines.append(f"{name:<12} {what}")
    return "\n".join([f"networks at {size} pixels", *lines, *remarks])


def _dino(settings: Fit, size: tuple[int, ...], channels: int, classes: int) -> str:
    name = str(settings.encoder)
    if not Path(name).expanduser().exists():
        return f"a light decoder on {name}, which is fetched when the run begins"
    network = dino_network(settings, channels, classes)
    patch = network.encoder.patch
    grid, at = (" x ".join(map(str, n)) for n in ([-(-n // patch) for n in size], size))
    own = sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6
    blocks = ", ".join(map(str, network.blocks))
    return (
        f"light decoder on blocks {blocks} of {name} at {at}: {grid} patches of {patch} pixels, "
        f"{_millions(network)}, of which {own:.1f} M learn"
    )


def _imagenet(size: tuple[int, ...], channels: int, classes: int) -> str:
    with torch.device("meta"):  # sizes alone: no weights are made
        film = _millions(ImageNetUNet(channels, classes))
    return f"U-Net on EfficientNet-Lite0 at {' x '.join(map(str, size))}: {film}"


def _dynunet(plan: Plan | None, size: tuple[int, ...], channels: int) -> str:
    classes = len(plan.classes) if plan else 2
    try:
        network = new_dynunet(channels, classes, size, plan.spacing if plan else None)
    except ValueError as error:
        raise InputError("--size", str(error), "Choose a larger one") from None
    levels = ", ".join(map(str, network.filters))
    at = " x ".join(map(str, size))
    return f"DynUNet at {at}: {_millions(network)}, levels of {levels} channels"


def _network(settings: Pretrain | Fit, unet: UNetConfig, size: tuple[int, ...]) -> str:
    batch = settings.training.micro_batch or settings.training.batch_size or 1
    verify_size(size, unet)
    summary = summarize(unet, size, batch)
    return f"network at {' x '.join(map(str, size))}, {batch} images a pass\n{summary}"


def _millions(network: nn.Module) -> str:
    return f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters"
