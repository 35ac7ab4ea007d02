"""Settings of looking at the machine, and of nnU-Net as an outside program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine can do, and what is in the way: packages, devices, memory, disk, cache."""

    json: bool = False
    """Print JSON instead of text."""
    cache: str | None = None
    """Cache folder to look at; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""
    completion: Literal["bash", "zsh", "fish"] | None = None
    """Print a script that completes commands, flags and their values in this shell, and nothing else."""


@dataclass(frozen=True, kw_only=True)
class NNUNet:
    """nnU-Net 2 as an outside program."""

    python: str | None = None
    """Interpreter of an environment that has nnunetv2, such as NN/bin/python; the method nnunet needs it."""
    trainer: str = "nnUNetTrainer"
    """Its trainer; the default runs 1000 epochs of 250 steps, nnUNetTrainer_5epochs is a quick look."""
    configuration: Literal["auto", "2d", "3d_fullres"] = "auto"
    """Its configuration; auto: 2d for films, 3d_fullres for volumes."""
