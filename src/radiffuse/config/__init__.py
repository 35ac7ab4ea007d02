"""Every setting of every command: its unit, its legal values and where its default comes from.

The dataclasses below *are* the command line, the YAML files and the keyword arguments of the Python functions
(``settings.py`` reads them). Nothing heavy is imported here: no torch, no numpy.

Sources are named in brackets: [paper] the published article, [code] its authors' code, [related] the nearest
readable source, [ours] our choice.
"""

from .acts import (
    Anatomy,
    Check,
    Evaluate,
    Finetune,
    Info,
    Predict,
    Pretrain,
    Report,
    Sample,
    Study,
)
from .data import FINETUNE_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Diffusion, Machine, Training
from .network import PRESETS, Network, UNetConfig, resolve_network
from .types import POSITIONAL, Floats, Ints

__all__ = [
    "FINETUNE_AUGMENTATION",
    "POSITIONAL",
    "PRESETS",
    "Anatomy",
    "Augmentation",
    "Check",
    "Data",
    "Diffusion",
    "Evaluate",
    "Finetune",
    "Floats",
    "Info",
    "Ints",
    "Machine",
    "Network",
    "PlanSettings",
    "Predict",
    "Pretrain",
    "Report",
    "Sample",
    "Split",
    "Study",
    "Training",
    "UNetConfig",
    "resolve_network",
]
