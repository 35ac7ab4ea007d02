"""Settings of the commands around the acts: what the machine can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what this machine can do, and what is in the way: packages, devices, memory, disk, cache."""

    json: bool = False
    """Print JSON instead of text."""
    cache: str | None = None
    """Cache folder to look at; None: ``$RADIFFUSE_CACHE``, else ``~/.cache/radiffuse``."""
