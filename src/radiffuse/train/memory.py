"""A lower bound of the memory that an image of a plan takes, held against the machine before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..config import Machine, UNetConfig
from ..errors import InputError
from ..system.hardware import memory
from .device import local_device


def verify_memory(
    size: Sequence[int], unet: UNetConfig, machine: Machine, *, training: bool
) -> None:
    """Refuse a size of which a single image cannot fit into the memory of the device.

    Counted are the activations of the finest level on the way down alone: what stem and residual blocks hand on, and in
    training what they keep unless it is recomputed.

    Raises:
        InputError: Names the size, what it takes and what there is.
    """
    finest = math.prod(n // fold for n, fold in zip(size, unet.fold, strict=True))
    tensors = (unet.blocks + 1) * (3 if training and not machine.checkpoint_activations else 1)
    least = finest * unet.width * tensors * (4 if machine.precision == "32-true" else 2)
    device = local_device(machine).device
    main = memory()
    there = main.limit or main.total
    if device.type == "cuda":
        there = int(torch.cuda.get_device_properties(device).total_memory)
    if least > there:
        where = f"size {'x'.join(map(str, size))}"
        problem = f"takes {least / 2**30:.3g} GiB or more for one image, {device.type} has {there / 2**30:.3g}"
        remedy = "Lower --size (in plan.json size), or --network.width, or use a machine with more"
        raise InputError(where, problem, remedy)
