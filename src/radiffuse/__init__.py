"""radiffuse: many scans, few labels. Diffusion models for medical image segmentation and synthesis.

Every command of the command line is a function here, with keyword-only arguments:
``radiffuse.pretrain(data="films", out="runs/pre")``. A trained run is used by ``radiffuse.Segmenter``. Importing this
module loads nothing heavy.
"""

from __future__ import annotations

from typing import Any

from .commands import COMMANDS

__version__ = "0.1.0.dev0"
__all__ = ["Run", "Segmenter", "__version__", "fit_custom", *COMMANDS]


def __dir__() -> list[str]:
    ours = (name for name in globals() if name.startswith("__"))
    return sorted({*ours, *__all__, "config", "errors"})


def __getattr__(name: str) -> Any:
    if name in COMMANDS:
        from .cli.functions import function_of

        return function_of(name)
    if name == "fit_custom":
        from .cli.functions import fit_custom

        return fit_custom
    if name == "Segmenter":
        from .release.segmenter import Segmenter

        return Segmenter
    if name == "Run":
        from .commands._result import Run

        return Run
    raise AttributeError(f"module 'radiffuse' has no attribute '{name}'")
