"""Runs that nobody trained, and a volume that lies askew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from radiffuse.config import Network, UNetConfig, resolve_network
from radiffuse.data.plan import Plan
from radiffuse.data.scan import Array
from radiffuse.nets.coordinates import CoordinateRegressor
from radiffuse.nets.guided import GuidedUNet
from radiffuse.nets.registry import save_network
from radiffuse.nets.segmenter import SegmentingUNet
from radiffuse.nets.unet import UNet
from radiffuse.system.files import seal, write_atomic, write_json
from radiffuse.train.members import MEMBERS
from radiffuse.train.start_run import start_run


def tiny(dims: int, classes: int) -> SegmentingUNet:
    unet = resolve_network(
        Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(2,), head_channels=8),
        spatial_dims=dims,
        in_channels=1,
        out_channels=classes,
    )
    return SegmentingUNet.from_scratch(unet, generator=torch.Generator().manual_seed(1))


def finished_run(folder: Path, plan: Plan, seed: int | None = None) -> Path:
    """A segmentation run without any training; with a seed all weights are random, so that its masks have structure."""
    with start_run(folder, "fit", {}) as run:
        write_atomic(folder / "plan.json", plan.to_json())
        write_json(folder / "splits.json", {"train": [], "validation": [], "test": ["b"]})
        network = tiny(plan.spatial_dims, len(plan.classes))
        if seed is not None:
            shake(network, seed)
        save_network(network, run.model)
    return folder


def chosen_run(folder: Path, *plans: Plan, tta: tuple[str, ...] = ()) -> Path:
    """A run that is a choice of untrained runs, one by each plan; ``tta``: the views that it averages."""
    with start_run(folder, "fit", {"method": "auto"}) as run:
        for number, plan in enumerate(plans):
            finished_run(folder / MEMBERS / f"part-{number}", plan, seed=number)
        write_atomic(folder / "plan.json", plans[0].to_json())
        names = [f"part-{number}" for number in range(len(plans))]
        seal(run.model, "config.json", {"kind": MEMBERS, "members": names, "tta": list(tta)})
    return folder


def shake(network: torch.nn.Module, seed: int) -> None:
    """Random values for every weight, also for those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)


def volume_plan(size: tuple[int, int, int] = (8, 8, 8)) -> Plan:
    classes = ("background", "a", "b")
    spacing = (1.0, 1.0, 1.0)
    return Plan(3, ("CT",), classes, size, spacing, intensity="window", low=-1, high=1)


def oblique() -> Array:
    angle = np.deg2rad(25)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = affine[:3, [2, 0, 1]] @ np.diag((-0.8, 1.5, 2.0))
    affine[:3, 3] = (11, -7, 300)
    return affine


def volumes_run(folder: Path, *, guided: bool = True, objective: str = "ddpm") -> Path:
    """A denoiser of volumes that nobody trained, and that body coordinates guide."""

    small = Network(width=8, multipliers=(1, 2), blocks=1, attention_factors=(), head_channels=8)

    def config(channels: int, out: int) -> UNetConfig:
        return resolve_network(small, spatial_dims=3, in_channels=channels, out_channels=out)

    regressor = CoordinateRegressor(config(1, 3), (100.0, 100.0, 100.0), "output", (16.0,) * 3)
    unet = GuidedUNet(config(4, 1), regressor) if guided else UNet(config(1, 1))
    shake(unet, seed=2)
    with start_run(folder, "pretrain", {"objective": objective}) as run:
        plan = Plan(
            3, ("CT",), (), (16, 16, 16), (16.0, 16.0, 16.0), intensity="window", low=-160, high=240
        )
        write_atomic(folder / "plan.json", plan.to_json())
        save_network(unet, run.model)
    return folder
