"""How a run uses the machine, through lightning-fabric."""

from __future__ import annotations

from typing import Any

import torch

from ..config import Machine
from ..errors import InputError


def make_fabric(machine: Machine) -> Any:
    """A launched ``lightning_fabric.Fabric`` for these settings.

    Raises:
        InputError: The machine lacks what was asked for.
    """
    from lightning_fabric import Fabric

    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    try:
        fabric = Fabric(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.num_nodes,
            strategy=machine.strategy,
            precision=_precision(machine),
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"--machine.accelerator {machine.accelerator}", reason, "Choose what this machine has"
        ) from None
    return fabric


def resolve_precision(machine: Machine) -> str:
    """The arithmetic that ``auto`` stands for on this machine."""
    return str(_precision(machine))


def _precision(machine: Machine) -> Any:
    if machine.precision != "auto":
        return machine.precision
    if machine.accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if _fast_bfloat16_cpu() else "32-true"


def _fast_bfloat16_cpu() -> bool:
    # AVX512-BF16 alone was measured no faster than float32 here; matrix tiles (AMX) are.
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
