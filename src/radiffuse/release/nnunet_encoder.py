"""A pre-trained U-Net as a starting point for nnU-Net 2: a configuration for its plans, and weights.

nnU-Net's own U-Net is another architecture (no time, no attention, other norms), so weights cannot be poured into it.
Its plans, however, name the class of the network, and any class that can be imported will do: the one of
``release/nnunet_network.py`` here. So nnU-Net trains this U-Net, with this package installed beside it.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..config import UNetConfig
from ..data.plan import Plan
from ..errors import InputError, RunError
from ..nets.guided import GuidedUNet
from ..nets.registry import load_network
from ..nets.segmenter import SegmentingUNet
from ..nets.unet import UNet
from ..system.files import write_atomic, write_json
from ..train.members import members_of
from ..train.run import Run
from .documents import render
from .nnunet_network import NNUNetUNet, reversed_axes, strides_of
from .program import Write

CLASS = f"{NNUNetUNet.__module__}.{NNUNetUNet.__qualname__}"
NAME = "radiffuse"
"""Of the configuration."""
REMEDY = "Give a run of radiffuse pretrain, or of fit --method finetune or scratch"


def nnunet_encoder(run: Run) -> Write:
    """What writes ``plans.json``, a configuration to merge into nnU-Net's plans, and ``pretrained.pth``.

    Args:
        run: A finished run of pretrain, or of fit.

    Raises:
        RunError: The run has not finished, or is no such network.
        InputError: It is guided by body coordinates, or has several treatments that nnU-Net does not know.
    """
    if not run.finished:
        raise RunError(run.folder, "has not finished training", "Run its command again to resume")
    if (parts := members_of(run))[0] is not run and len(parts) == 1:
        run = parts[0]
    network = load_network(run.model)
    unet, timestep = (
        (network.unet, network.timestep) if isinstance(network, SegmentingUNet) else (network, 0)
    )
    if isinstance(unet, GuidedUNet):
        problem = "is guided by body coordinates, which depend on the orientation"
        raise InputError(run.folder, problem, "Export a run that was trained without --coordinates")
    if not isinstance(unet, UNet):
        raise RunError(run.folder, "holds another network than this package's U-Net", REMEDY)
    state = {f"unet.{name}": tensor for name, tensor in unet.state_dict().items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith("unet.head.")}
    config = unet.config
    if run.plan.spatial_dims == 3:
        state, config = reversed_axes(state, config)
    merged = plans(run.plan, config, timestep)

    def write(out: Path) -> None:
        write_json(out / "plans.json", merged)
        buffer = io.BytesIO()
        torch.save({"network_weights": state}, buffer)
        write_atomic(out / "pretrained.pth", buffer.getvalue())

    return write


def plans(plan: Plan, unet: UNetConfig, timestep: int = 0) -> dict[str, Any]:
    """What is merged into nnU-Net's plans for a network, its axes in nnU-Net's order, evaluated at a timestep.

    With a fixed window, its CT scheme is given a mean and a deviation that make it the window exactly.
    """
    films, window = plan.spatial_dims == 2, plan.intensity == "window"
    channels = range(len(plan.channels))
    scheme = "CTNormalization" if window else "RescaleTo01Normalization"
    configuration: dict[str, Any] = {
        "inherits_from": "2d" if films else "3d_fullres",
        "data_identifier": f"radiffusePlans_{NAME}",
        "patch_size": list(plan.size if films else plan.size[::-1]),
        "normalization_schemes": [scheme for _ in channels],
        "use_mask_for_norm": [False for _ in channels],
        "architecture": {
            "network_class_name": CLASS,
            "arch_kwargs": {
                "unet": asdict(unet),
                "strides": strides_of(unet),
                "timestep": timestep,
                "rescale": not window,
            },
            "_kw_requires_import": [],
        },
    }
    if plan.spacing:
        configuration["spacing"] = list(plan.spacing[::-1])
    content: dict[str, Any] = {"configurations": {NAME: configuration}}
    if window:
        middle, half = (plan.low + plan.high) / 2, (plan.high - plan.low) / 2
        facts = {"mean": middle, "std": half, "min": plan.low, "max": plan.high, "median": middle}
        facts |= {"percentile_00_5": plan.low, "percentile_99_5": plan.high}
        content["foreground_intensity_properties_per_channel"] = {str(i): facts for i in channels}
    return content


def usage(plan: Plan) -> str:
    """How to train with the folder, for its README."""
    window = plan.intensity == "window"
    return render("nnunet_usage.md", network=CLASS, name=NAME, window=window)
