"""Settings of the viewer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from .data import Data
from .learning import Machine
from .types import POSITIONAL, PositiveInt, Within


@dataclass(frozen=True, kw_only=True)
class View:
    """View scans, masks and runs in the browser; segment and generate there."""

    paths: tuple[str, ...] | None = field(default=None, metadata=POSITIONAL)
    """Runs, studies, evaluations, tables of results, scans and data sets, in any order; none: drop files there."""
    masks: str | None = None
    """Masks of the scans, named after the cases: a folder of radiffuse predict, with its maps."""
    port: Annotated[int, Within(0, 65535)] = 0
    """Port on 127.0.0.1, which other computers cannot reach; 0: any free one."""
    browser: bool = True
    """Open the page in the browser; its address is printed in any case."""
    upload_limit: PositiveInt = 2000
    """Largest file that can be dropped, in MB, also after unzipping; all files together may have four times as much."""
    reader: Data = Data()
    """How a path becomes cases."""
    machine: Machine = Machine()
    """Device and precision for what is computed on the page."""
