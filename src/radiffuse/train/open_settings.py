"""Settings that are left open, which the plan decides, and the two places that they are filled from.

A setting is open where its value is None or ``"auto"``. ``fill`` takes what a plan decides, ``fill_as_before`` what was
decided for a run that is resumed. What is given always stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..config import Augmentation, Fit, Network, Pretrain
from ..config.values import completed, flatten
from ..data.plan import Plan
from ..data.shading import shaded
from ..data.sides import left_to_right

Settings = TypeVar("Settings", Fit, Pretrain)
OPEN = {
    *(f"{of}augmentation.{name}" for of in ("", "dino.", "vae.") for name in ("flip", "shading")),
    "contrast.views.shading",
    "pool.strong.shading",
    "diffusion.shift",
    "training.steps",
    "training.batch_size",
    "training.micro_batch",
    "training.coarse",
    "machine.precision",
    "machine.compile",
    "machine.checkpoint_activations",
    "plan.size",
    "plan.grid",
    "plan.spacing",
}
"""Settings that may be left open, beside those of the network."""
BATCH = {("fit", 2): 8, ("pretrain", 2): 16, ("fit", 3): 2, ("pretrain", 3): 4}
"""Images or patches per step as a rule [related: nnU-Net has 2 patches of a volume]; see ``larger_batch``."""
STEPS = 300
"""Steps by a plan that says nothing of the training."""


def usual_batch(kind: str, dims: int, processes: int) -> int:
    """``BATCH``, or the next larger one that the processes can share evenly."""
    return math.ceil(BATCH[kind, dims] / processes) * processes


def is_open(name: str, value: Any) -> bool:
    """Whether a setting, such as ``training.steps``, leaves something to the plan."""
    return (name in OPEN or name.startswith("network.")) and value in (None, "auto")


def network_is_open(network: Network) -> bool:
    """Whether nothing is said about the shape of the network."""
    return replace(network, dropout=None) == Network()


def fill(settings: Settings, plan: Plan) -> Settings:
    """The settings with what the plan decides where they leave it open."""
    filled: dict[str, Any] = {}
    for group, values in _decisions(settings, plan).items():
        given = getattr(settings, group)
        left = {k: v for k, v in values.items() if is_open(f"{group}.{k}", getattr(given, k))}
        filled[group] = replace(given, **left)
    if isinstance(settings, Pretrain):
        filled["augmentation"] = decided(settings.augmentation, plan)
        if settings.objective == "contrastive":
            views = shaded(settings.contrast.views, plan.intensity)
            filled["contrast"] = replace(settings.contrast, views=views)
    else:
        filled["augmentation"] = shaded(settings.augmentation, plan.intensity)
    if isinstance(settings, Fit) and settings.unlabelled:
        filled["pool"] = replace(settings.pool, strong=shaded(settings.pool.strong, plan.intensity))
    if "plan" in filled:
        filled["plan"] = replace(filled["plan"], ceiling=None)  # which chose the grid
    return replace(settings, **filled)


def decided(changes: Augmentation, plan: Plan) -> Augmentation:
    """Changes of images that are learned from without label maps, with what they leave open."""
    if changes.flip is None:
        changes = replace(changes, flip=(left_to_right(plan.spatial_dims),))
    return shaded(changes, plan.intensity)


def fill_as_before(
    settings: Mapping[str, Any], content: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[str]]:
    """The settings of a command that resumes a run, with what was decided for it where they leave it open.

    Args:
        settings: As plain values.
        content: Of the run's ``config.yaml``.

    Returns:
        The settings, and the names of those that were filled.
    """
    given, before = flatten(settings), flatten(content["settings"])
    names = [name for name in content.get("decided", ()) if is_open(name, given.get(name))]
    filled: dict[str, Any] = {}
    for name in names:
        *groups, last = name.split(".")
        inside = filled
        for group in groups:
            inside = inside.setdefault(group, {})
        inside[last] = before.get(name)
    return completed(settings, filled), names


def _decisions(settings: Fit | Pretrain, plan: Plan) -> dict[str, dict[str, Any]]:
    """What the plan decides, by group of settings and name, whether it is given or not."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(settings, Pretrain):
        found["diffusion"] = {"shift": plan.shift}
    if (ours := plan.training) is None:
        batch = BATCH["fit", plan.spatial_dims]
        return found | {"training": {"steps": STEPS, "batch_size": batch}}
    found["plan"] = {"size": plan.size, "grid": plan.grid, "spacing": plan.spacing}
    found["training"] = {
        "steps": ours.steps,
        "batch_size": ours.batch_size,
        "coarse": ours.coarse or None,
        "micro_batch": ours.micro_batch if ours.micro_batch < ours.batch_size else None,
    }
    found["machine"] = {
        "precision": ours.precision,
        "compile": ours.compile,
        "checkpoint_activations": ours.checkpoint_activations,
    }
    if ours.network is not None and network_is_open(settings.network):
        network = vars(ours.network)
        found["network"] = {k: v for k, v in network.items() if k != "dropout"}
    return found
