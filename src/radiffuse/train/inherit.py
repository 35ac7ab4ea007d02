"""What a run inherits from the trained run that it starts from, and what may not be asked for beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..config import (
    PRESETS,
    Diffusion,
    Fit,
    Joint,
    Network,
    PlanSettings,
    Probing,
    network_settings,
    resolve_network,
)
from ..config.given import written
from ..config.network import IMAGENET
from ..data.plan import Plan
from ..errors import InputError
from ..nets.imagenet import ImageNetUNet
from ..nets.segmenter import SegmentingUNet
from ..nets.unet import UNet
from .start import Start, find_pretrained, is_segmenter, load_regressor, settings_of_network

OF_PROCESS = ("schedule", "num_train_timesteps", "prediction_type", "zero_terminal_snr", "shift")
"""Settings of the noising process that a network was trained for."""
OF_GRID = ("size", "grid", "spacing", "ceiling")
"""Settings of the plan that a segmenter may change: the network was trained at several scales."""


def inherit(settings: Fit, start: Start) -> Fit:
    """The settings with the intensities and the network of ``--from``, and its grid where no other will do.

    The coordinates that a probe sees are those of a guided network or of ``probe.regressor``, and off without. Image
    and mask together have the timesteps and the prediction of the run.

    Raises:
        InputError: They ask for others, or for what the network cannot do; names the setting.
    """
    name = str(settings.from_run)
    inherited: dict[str, Any] = {"plan": _plan(settings, start, name)}
    inherited["network"] = _network(settings, start, name)
    _verify_timesteps(settings, start, name)
    if isinstance(start.network, SegmentingUNet):
        inherited["finetune"] = replace(settings.finetune, timestep=start.network.timestep)
    if settings.method == "probe":
        inherited["probe"] = _probe(settings.probe, start)
    if settings.method == "joint":
        inherited["joint"] = _joint(settings.joint, start, name)
    return replace(settings, **inherited)


def verify_plan(given: PlanSettings, plan: Plan, name: str) -> None:
    """Refuse settings that differ from the plan of the run ``name``; post-processing is free."""
    known = plan.settings()
    for key, value in vars(given).items():
        if key == "postprocess" or value is None:
            continue
        has = getattr(known, key)
        sides = key in ("size", "grid") and len(value) == 1
        wanted = value * plan.spatial_dims if sides else value
        if key == "grid" and wanted == plan.film:
            continue
        if wanted != has:
            trained = {
                "size": f"at {' x '.join(map(str, plan.size))} {'pixels' if plan.spatial_dims == 2 else 'voxels'}",
                "window": f"with {plan.intensity} {plan.low:g} to {plan.high:g}",
                "percentiles": f"with {plan.intensity} {plan.low:g} to {plan.high:g}",
            }.get(key, f"with the {key} {written(has)}")
            _refuse(key, value, name, trained)


def verify_network(given: Network, network: UNet | ImageNetUNet, name: str) -> None:
    """Refuse settings that differ from the network of the run ``name``."""
    if not isinstance(network, UNet) or given.preset == IMAGENET:
        known = settings_of_network(network)
        for key, value in vars(given).items():
            if value not in (None, getattr(known, key)):
                _refuse(key, value, name, f"with the network {known.preset or 'of its own'}")
        return
    unet = network.config
    wanted = resolve_network(
        given,
        spatial_dims=unet.spatial_dims,
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
    )
    values = {k: v for k, v in vars(given).items() if k != "preset" and v is not None}
    for key in dict.fromkeys([*values, *(PRESETS[given.preset] if given.preset else ())]):
        if (has := getattr(unet, key)) == getattr(wanted, key):
            continue
        if key == "strides":
            has = unet.steps  # () stands for 2 everywhere
        if key in values:
            _refuse(key, values[key], name, f"with the {key} {written(has)}")
        own = network_settings(unet).preset or f"of {key} {written(has)}"
        _refuse("preset", given.preset, name, f"with the network {own}")


# ------------------------------------------------------------------------------------------------ group by group


def _plan(settings: Fit, start: Start, name: str) -> PlanSettings:
    """The plan of the run; steps after segmentation are free, and the grid but for frozen features and coordinates."""
    given, plan = settings.plan, start.plan
    keeps_grid = settings.method in ("probe", "pixel") or start.coordinate_channels > 0
    free = {} if keeps_grid else {key: getattr(given, key) for key in OF_GRID}
    verify_plan(replace(given, **dict.fromkeys(free)), plan, name)
    for key in {"size", "grid"} & free.keys():
        if (sides := free[key]) is not None and len(sides) == 1:
            free[key] = sides * plan.spatial_dims
    if given.postprocess is not None:
        free["postprocess"] = given.postprocess
    return replace(plan.settings(), **free)


def _network(settings: Fit, start: Start, name: str) -> Network:
    """The network of the run; what it cannot do is refused."""
    if settings.method != "finetune" and is_segmenter(start.run):
        problem = f"{name} is a segmenter, which finetune alone trains further"
        raise InputError(f"--method {settings.method}", problem, "Use finetune, or another run")
    verify_network(settings.network, start.body, name)
    if start.unet is not None:
        return settings_of_network(start.body)
    what = f"{name} has the network {IMAGENET}, which knows no timesteps"
    if settings.method != "finetune":
        raise InputError(f"--method {settings.method}", what, "Use finetune, or another run")
    if settings.finetune.timestep:
        raise InputError(f"--timestep {settings.finetune.timestep}", what, "Leave it out")
    if settings.machine.checkpoint_activations:
        problem = f"{name} has the network {IMAGENET}, whose activations are kept"
        raise InputError("--checkpoint-activations", problem, "Leave it out")
    return settings_of_network(start.body)


def _verify_timesteps(settings: Fit, start: Start, name: str) -> None:
    """Refuse timesteps that the network never learned; those of a probe are refused with its heads."""
    if isinstance(start.network, SegmentingUNet):
        if (t := settings.finetune.timestep) not in (0, start.network.timestep):
            problem = f"{name} segments at timestep {start.network.timestep}"
            raise InputError(f"--timestep {t}", problem, "Leave it out")
        return
    if start.noised or not isinstance(start.network, UNet):
        return
    objective = start.run.config["settings"].get("objective")
    problem = f"{name} was pre-trained by {objective}, which knows no timesteps"
    remedy = "start from a run of pretrain --objective ddpm"
    if settings.method == "finetune" and (t := settings.finetune.timestep):
        raise InputError(f"--timestep {t}", problem, f"Leave it out, or {remedy}")
    if settings.method == "pixel":
        raise InputError("--method pixel", problem, f"Use probe or finetune, or {remedy}")


def _probe(probe: Probing, start: Start) -> Probing:
    """Without coordinates, where neither the network nor a regressor gives any."""
    if probe.regressor is not None:
        where, run = f"--probe.regressor {probe.regressor}", find_pretrained(probe.regressor)
        load_regressor(run)
        if start.coordinate_channels:
            problem = "is not needed: the network is guided, and heads see its own coordinates"
            raise InputError(where, problem, "Leave it out")
        ours, theirs = (
            replace(plan.settings(), postprocess=None) for plan in (start.plan, run.plan)
        )
        if ours != theirs:
            keys = [k for k, v in vars(ours).items() if v != getattr(theirs, k)]
            problem = f"was trained with another {' and '.join(keys)} than the network"
            remedy = "Train both with the same --plan settings"
            raise InputError(where, problem, remedy)
    elif not start.coordinate_channels:
        if probe.sweep_coordinates:
            problem = "takes no effect: heads on an unguided network see no coordinates"
            remedy = "Leave it out, or give a --probe.regressor"
            raise InputError("--probe.sweep-coordinates", problem, remedy)
        return replace(probe, coordinates=False)
    return probe


def _joint(joint: Joint, start: Start, name: str) -> Joint:
    """With the timesteps and the prediction of the run; how the loss weighs them is free.

    Raises:
        InputError: They ask for others, or the network sees coordinates, which noise does not have.
    """
    if start.coordinate_channels:
        problem = f"{name} is guided by body coordinates, which noise does not have"
        remedy = "Start from a run that was pre-trained without --coordinates"
        raise InputError("--method joint", problem, remedy)
    given, usual = joint.process, Diffusion()
    of_run = {key: getattr(start.diffusion, key) for key in OF_PROCESS}
    for key, has in of_run.items():
        if (value := getattr(given, key)) not in (getattr(usual, key), has):
            where = f"--joint.process.{key.replace('_', '-')} {value}"
            problem = f"{name} was trained with {has}"
            raise InputError(where, problem, "Leave it out, or train from scratch")
    return replace(joint, process=replace(given, **of_run))


def _refuse(key: str, value: object, name: str, trained: str) -> None:
    where = f"--{key.replace('_', '-')} {written(value)}"
    raise InputError(where, f"{name} was trained {trained}", "Leave it out, or train from scratch")
