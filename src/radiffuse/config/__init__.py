"""Every setting of every command: its unit, its legal values and where its default comes from.

The dataclasses below *are* the command line, the YAML files and the keyword arguments of the Python functions
(``settings.py`` reads them). Nothing heavy is imported here: no torch, no numpy.

Sources are named in brackets: [paper] the published article, [code] its authors' code, [related] the nearest
readable source, [ours] our choice.
"""

from .acts import (
    Anatomy,
    Check,
    Coordinates,
    DiffSeg,
    Evaluate,
    Finetune,
    Info,
    Predict,
    Pretrain,
    Probe,
    Report,
    Sample,
    Study,
)
from .data import FINETUNE_AUGMENTATION, VIEWS_AUGMENTATION, Augmentation, Data, PlanSettings, Split
from .learning import Contrast, Diffusion, Losses, Machine, Sampling, Training
from .network import PRESETS, Network, UNetConfig, resolve_network
from .types import IGNORE, POSITIONAL, Floats, Ints, Strategy

__all__ = [
    "FINETUNE_AUGMENTATION",
    "IGNORE",
    "POSITIONAL",
    "PRESETS",
    "VIEWS_AUGMENTATION",
    "Anatomy",
    "Augmentation",
    "Check",
    "Contrast",
    "Coordinates",
    "Data",
    "DiffSeg",
    "Diffusion",
    "Evaluate",
    "Finetune",
    "Floats",
    "Info",
    "Ints",
    "Losses",
    "Machine",
    "Network",
    "PlanSettings",
    "Predict",
    "Pretrain",
    "Probe",
    "Report",
    "Sample",
    "Sampling",
    "Split",
    "Strategy",
    "Study",
    "Training",
    "UNetConfig",
    "resolve_network",
]
