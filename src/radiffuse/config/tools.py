"""Settings of ``doctor``, and of nnU-Net as an external program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Report what this machine can do and what is in the way: packages, devices, memory, disk, cache."""

    json: bool = False
    """Print JSON instead of text."""
    cache: str | None = None
    """Cache folder to inspect; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""
    completion: Literal["bash", "zsh", "fish"] | None = None
    """Print only a script that completes commands, flags and values in this shell."""


@dataclass(frozen=True, kw_only=True)
class NNUNet:
    """nnU-Net 2 as an external program."""

    python: str | None = None
    """Python interpreter of an environment with nnunetv2, such as NN/bin/python; needed by the method nnunet."""
    trainer: str = "nnUNetTrainer"
    """Trainer; the default runs 1000 epochs of 250 steps, nnUNetTrainer_5epochs gives a quick look."""
    configuration: Literal["auto", "2d", "3d_fullres"] = "auto"
    """Configuration; auto: 2d for films, 3d_fullres for volumes."""
