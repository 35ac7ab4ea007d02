"""Settings of the commands around the acts: what the machine can do, and how others do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .types import POSITIONAL


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine can do, and what is in the way: packages, devices, memory, disk, cache."""

    json: bool = False
    """Print JSON instead of text."""
    cache: str | None = None
    """Cache folder to look at; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a script that completes commands, flags and their values in the shell."""

    shell: str = field(default="", metadata=POSITIONAL)
    """bash, zsh or fish."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Add networks of others to a study: MONAI's DynUNet and nnU-Net, on its cases, budgets, draws and scoring."""

    study: str = field(default="", metadata=POSITIONAL)
    """Study folder. What it lacks is trained first; the same command goes on where it stopped."""
    methods: tuple[str, ...] = ("dynunet", "nnunet")
    """dynunet: MONAI's DynUNet, trained here with the steps, batches and augmentation of the study; nnunet: nnU-Net 2
    with everything that it decides by itself, training and augmentation too."""
    nnunet_python: str | None = None
    """Interpreter of an environment that has nnunetv2, such as NN/bin/python; needed for nnunet."""
    trainer: str = "nnUNetTrainer"
    """nnU-Net's trainer; the default runs 1000 epochs of 250 steps, nnUNetTrainer_5epochs is a quick look."""
    configuration: Literal["auto", "2d", "3d_fullres"] = "auto"
    """nnU-Net's configuration; auto: 2d for films, 3d_fullres for volumes."""
