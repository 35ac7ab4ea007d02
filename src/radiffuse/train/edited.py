"""Whether a network takes what the plan of its run says, which may have been edited after training."""

from __future__ import annotations

from torch import nn

from ..errors import RunError
from ..nets.unet import UNet
from .run import Run

REMEDY = "Restore the file, or train again"


def verify_edited(run: Run, network: nn.Module) -> None:
    """Refuse a plan, which may have been edited, for other images than the network takes.

    Raises:
        RunError: It has other axes, or a size that the network does not divide.
    """
    plan, path = run.plan, run.folder / "plan.json"
    dims = max((weight.ndim - 2 for weight in network.parameters()), default=0)  # of convolutions
    if dims in (2, 3) and dims != plan.spatial_dims:
        raise RunError(path, f"is for {plan.spatial_dims}D images, the network for {dims}D", REMEDY)
    unet = next((part for part in network.modules() if isinstance(part, UNet)), None)
    fold = unet.size_multiple if unet is not None else (1,) * len(plan.size)
    if any(n % by for n, by in zip(plan.size, fold, strict=True)):
        size, by = ("x".join(map(str, values)) for values in (plan.size, fold))
        raise RunError(path, f"has size {size}, the network takes multiples of {by}", REMEDY)


def verify_channels(run: Run, sees: int) -> None:
    """Refuse a plan with other channels than those that a network ``sees``.

    Raises:
        RunError: Names both numbers.
    """
    if (names := len(run.plan.channels)) != sees:
        problem = f"names {names} channels, the network sees {sees}"
        raise RunError(run.folder / "plan.json", problem, REMEDY)


def other_classes(run: Run, found: int) -> RunError:
    """That a plan, which may have been edited, names another number of classes than the network tells apart."""
    problem = f"names {len(run.plan.classes)} classes, the network tells {found} apart"
    return RunError(run.folder / "plan.json", problem, REMEDY)
