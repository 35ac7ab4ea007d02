"""The settings of the viewer."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data import Data
from .learning import Machine
from .types import POSITIONAL


@dataclass(frozen=True, kw_only=True)
class View:
    """Look at scans, masks and runs in the browser; segment and generate there. Local, for this user alone."""

    paths: tuple[str, ...] | None = field(default=None, metadata=POSITIONAL)
    """Runs, studies, evaluations, tables of results, scans and data sets, in any order; none: drop files on the page."""
    masks: str | None = None
    """Masks of the scans, named as the cases: a folder of radiffuse predict, with its maps of uncertainty."""
    port: int = 0
    """Port on this computer; 0: one that is free. The page is bound to 127.0.0.1 and cannot be reached from outside."""
    browser: bool = True
    """Open the page in the browser; the address is printed in any case."""
    upload_limit: int = 2000
    """Largest file that can be dropped on the page, in MB; of a zip file also the content. All together: four times it."""
    reader: Data = Data()
    """How a path becomes cases."""
    machine: Machine = Machine()
    """Device and precision of what is computed from the page."""
